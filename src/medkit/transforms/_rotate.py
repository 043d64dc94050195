"""Rotations in a plane, by an angle."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from medkit._core import check

from ._grids import Profile
from ._maps import centred_map, crop_map, scale_map
from ._transform import Grid, SpatialTransform, interval, names, spatial_axes
from ._warp import Warp

Border = Literal["constant", "crop"]
_MEDICAI_SHARE = 0.98  # of the largest rectangle that medicai keeps


class Rotate(SpatialTransform):
    r"""Turns by an angle in the plane of two axes, about the middle, in one interpolation.

    New place :math:`(a, b)` about the middle shows the old
    :math:`(a \cos t - b \sin t, a \sin t + b \cos t)`, in mm where the sample has an affine, so
    that nothing is sheared on voxels that are not square.

    Args:
        angle: In degrees.
        axes: The two axes :math:`(a, b)` of the plane.
        border: "constant" fills what was outside; "crop" enlarges the image until nothing of it
            shows, and keeps the size.
        profile: "aligned" as described. "medicai" turns about the voxel after the middle, in
            voxels, and for "crop" interpolates twice: it turns, cuts out 0.98 of the largest
            rectangle (of a square; corners show in others), and resizes that.
        fill: Image value of what was outside.
        images: Keys of the images.
        labels: Keys of labels that go along, outside 0; those a sample lacks are passed over.

    Raises:
        ValueError: If ``axes`` are not two different axes, or a choice is unknown.

    Example:
        >>> import torch
        >>> image = torch.zeros(1, 5, 5)
        >>> image[0, 0, 2] = 1
        >>> Rotate(angle=90)({"image": image})["image"][0, 2, 4].round(decimals=4)
        tensor(1.)
    """

    def __init__(
        self,
        *,
        angle: float,
        axes: Sequence[int] = (-2, -1),
        border: Border = "constant",
        profile: Profile = "aligned",
        fill: float = 0.0,
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        check.one_of("border", border, ("constant", "crop"))
        check.one_of("profile", profile, ("aligned", "medicai"))
        if len(axes) != 2:
            raise check.fail("axes", "two different spatial axes", axes)
        self.angle: float = check.real("angle", angle)
        self.axes: tuple[int, ...] = tuple(axes)
        self.border: Border = border
        self.profile: Profile = profile
        self.fuses: bool = profile == "aligned"
        self.fill: float | None = check.real("fill", fill)
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        a, b = spatial_axes("axes", self.axes, len(grid.size))
        angle = math.radians(self.angle)
        if self.profile == "medicai":
            return _as_medicai(grid.size, (a, b), angle, self.border)
        mm = grid.spacing
        turn = np.eye(len(mm))
        turn[np.ix_((a, b), (a, b))] = rotation(angle)
        turn = turn / mm[:, None] * mm
        if self.border == "crop":
            extent = np.array([(grid.size[axis] - 1) * mm[axis] for axis in (a, b)])
            turn[:, [a, b]] *= _share(extent, angle)
        return (centred_map(turn, grid.size, grid.size),)


class RandomRotate(SpatialTransform):
    """Turns by a random angle in the plane of two axes: :class:`Rotate`, or nothing.

    Args:
        angle: Largest angle in degrees on either side, or (low, high); each equally likely.
        axes: The two axes of the plane.
        probability: Of a turn.
        border: "constant" or "crop", as in :class:`Rotate`.
        profile: "aligned" or "medicai", as in :class:`Rotate`.
        fill: Image value of what was outside.
        images: Keys of the images.
        labels: Keys of labels that go along, outside 0; those a sample lacks are passed over.

    Raises:
        ValueError: If an argument is out of range or a choice is unknown.

    Example:
        >>> import torch
        >>> RandomRotate(angle=15)({"image": torch.rand(1, 9, 9)})["image"].shape
        torch.Size([1, 9, 9])
    """

    draws: bool = True

    def __init__(
        self,
        *,
        angle: float | Sequence[float],
        axes: Sequence[int] = (-2, -1),
        probability: float = 0.5,
        border: Border = "constant",
        profile: Profile = "aligned",
        fill: float = 0.0,
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        self.angle: tuple[float, float] = interval("angle", angle)
        self.probability: float = check.fraction("probability", probability)
        self._rotate: Rotate = Rotate(
            angle=0, axes=axes, border=border, profile=profile, fill=fill, images=images
        )
        self.fill: float | None = self._rotate.fill
        self.fuses: bool = self._rotate.fuses
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        if generator.random() >= self.probability:
            return ()
        rotate = self._rotate
        turned = Rotate(
            angle=generator.uniform(*self.angle),
            axes=rotate.axes,
            border=rotate.border,
            profile=rotate.profile,
        )
        return turned.plan(grid, generator)


def rotation(angle: float) -> np.ndarray:
    """Return the matrix of a turn in a plane, the angle in radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _share(extent: np.ndarray, angle: float) -> float:
    """Return the scale at which a turned rectangle fits into itself."""
    if not extent.any():
        return 1.0
    needed = np.abs(rotation(angle)) @ extent
    return float((extent / np.where(needed > 0, needed, 1)).min())


def _as_medicai(
    size: tuple[int, ...], axes: tuple[int, int], angle: float, border: Border
) -> tuple[Warp, ...]:
    matrix = np.eye(len(size) + 1)
    turn = rotation(angle)
    plane = np.array([size[axis] for axis in axes])
    matrix[np.ix_(axes, axes)] = turn
    matrix[axes, -1] = plane / 2 - turn @ (plane / 2)
    turned = Warp(matrix, size, size)
    if border == "constant":
        return (turned,)
    ratio = float(plane.min() / plane.max())  # right for squares, too large a part for others
    share = _MEDICAI_SHARE / (abs(math.sin(angle)) + ratio * math.cos(angle))
    start = [int((n - n * share) / 2) if i in axes else 0 for i, n in enumerate(size)]
    kept = [n - 2 * first for n, first in zip(size, start, strict=True)]
    step = [m / n for m, n in zip(kept, size, strict=True)]
    cut = crop_map(size, start, kept)
    return turned, cut, scale_map(cut.size, size, step)
