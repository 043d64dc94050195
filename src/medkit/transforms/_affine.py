"""Random affine and elastic changes, each one interpolation."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from medkit._core import check

from ._maps import centred_map
from ._rotate import rotation
from ._transform import Grid, SpatialTransform, interval, names
from ._warp import Interpolation, Warp


class RandomAffine(SpatialTransform):
    r"""Turns, scales, shears and shifts about the middle, in 2D or 3D, in one interpolation.

    In mm where the sample has an affine, so that voxels that are not cubes do not shear a turn,
    else in voxels. Rotation, scale, shear and shift are each drawn, or left out, on their own.
    The defaults are nnU-Net's for volumes.

    Args:
        rotation: Largest angle in degrees about each spatial axis (one angle in 2D), or
            (low, high).
        scale: Magnification as (low, high), one for all axes, drawn evenly on a logarithmic scale;
            above 1 things become larger.
        shear: Largest shift of one axis per unit of each other, or (low, high).
        translation: Largest shift along each axis, as a share of its extent, or (low, high).
        probability: Of each of the four that is not zero to be made.
        mode: "linear" or "cubic" for images; labels take the nearest voxel.
        fill: Image value of what was outside.
        label_fill: Label of what was outside, e.g. the ignore_index of the loss.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> sample = {"image": torch.rand(1, 9, 9, 9), "label": torch.ones(1, 9, 9, 9).long()}
        >>> sorted(RandomAffine(probability=1.0)(sample)["label"].unique().tolist())
        [0, 1]

    References:
        F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical
        image segmentation", Nature Methods, 2021, supplementary note 4.
    """

    draws: bool = True

    def __init__(
        self,
        *,
        rotation: float | Sequence[float] = 30.0,
        scale: Sequence[float] = (0.7, 1.4),
        shear: float | Sequence[float] = 0.0,
        translation: float | Sequence[float] = 0.0,
        probability: float = 0.2,
        mode: Interpolation = "linear",
        fill: float = 0.0,
        label_fill: int = 0,
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        check.one_of("mode", mode, ("linear", "nearest", "cubic"))
        self.rotation: tuple[float, float] = interval("rotation", rotation)
        self.scale: tuple[float, float] = interval("scale", scale)
        check.positive("scale", self.scale[0])
        self.shear: tuple[float, float] = interval("shear", shear)
        self.translation: tuple[float, float] = interval("translation", translation)
        self.probability: float = check.fraction("probability", probability)
        self.mode: Interpolation = mode
        self.fill: float | None = check.real("fill", fill)
        self.label_fill: int = check.integer("fill", label_fill)
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        dims = len(grid.size)
        turn, shift = np.eye(dims), np.zeros(dims)
        if self._drawn(self.rotation, generator):
            turn = turn @ _turn(dims, np.radians(generator.uniform(*self.rotation, 3)))
        if self._drawn(self.scale, generator, neutral=1.0):
            turn = turn / math.exp(
                generator.uniform(math.log(self.scale[0]), math.log(self.scale[1]))
            )
        if self._drawn(self.shear, generator):
            shear = generator.uniform(*self.shear, (dims, dims))
            np.fill_diagonal(shear, 1.0)
            turn = turn @ shear
        if self._drawn(self.translation, generator):
            shift = generator.uniform(*self.translation, dims) * grid.size
        mm = grid.spacing
        if np.array_equal(turn, np.eye(dims)) and not shift.any():
            return ()
        warp = centred_map(turn / mm[:, None] * mm, grid.size, grid.size)
        warp.matrix[:-1, -1] -= shift
        return (warp,)

    def _drawn(
        self, limits: tuple[float, float], generator: np.random.Generator, neutral: float = 0.0
    ) -> bool:
        return limits != (neutral, neutral) and generator.random() < self.probability


class RandomElastic(SpatialTransform):
    """Bends the image by random displacements on a coarse grid, smooth between its points.

    The displacements are those of a cubic spline through independent normal numbers. With points
    eight times as far apart as they are displaced the image hardly ever folds. Landmarks follow
    ``Applied.warps``; the affine stays, as no affine describes a bend.

    Args:
        spacing: Distance between control points, at least two along each axis, in mm where the
            sample has an affine, else in voxels.
        displacement: Standard deviation of the shift of each point along each axis, likewise.
        probability: Of a bend.
        fill: Image value of what was outside.
        label_fill: Label of what was outside, e.g. the ignore_index of the loss.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> bend = RandomElastic(spacing=8, displacement=2, probability=1.0)
        >>> bend({"image": torch.rand(1, 16, 16)})["image"].shape
        torch.Size([1, 16, 16])
    """

    draws: bool = True

    def __init__(
        self,
        *,
        spacing: float,
        displacement: float,
        probability: float = 0.2,
        fill: float = 0.0,
        label_fill: int = 0,
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        self.spacing: float = check.positive("spacing", spacing)
        self.displacement: float = check.non_negative("displacement", displacement)
        self.probability: float = check.fraction("probability", probability)
        self.fill: float | None = check.real("fill", fill)
        self.label_fill: int = check.integer("fill", label_fill)
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        if generator.random() >= self.probability:
            return ()
        mm = grid.spacing
        lengths = np.array(grid.size) * mm
        points = [max(2, round(length / self.spacing)) for length in lengths]
        shift = generator.standard_normal((len(points), *points), dtype=np.float32)
        shift *= (self.displacement / mm).reshape(-1, *(1,) * len(points)).astype(np.float32)
        field = torch.tensor(shift, device=grid.device)
        return (Warp(np.eye(len(points) + 1), grid.size, grid.size, field),)


def _turn(dims: int, angles: np.ndarray) -> np.ndarray:
    """Return the product of the turns about each axis; in 2D the only one there is."""
    if dims == 2:
        return rotation(float(angles[0]))
    turn = np.eye(dims)
    for axis in range(dims):
        plane = [other for other in range(dims) if other != axis]
        single = np.eye(dims)
        single[np.ix_(plane, plane)] = rotation(float(angles[axis]))
        turn = turn @ single
    return turn
