"""Transforms to another size or spacing."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medkit._core import check

from ._maps import scale_map
from ._transform import Grid, SpatialTransform, names
from ._warp import Interpolation, Warp

Profile = Literal["aligned", "medicai"]
_PROFILES = ("aligned", "medicai")
_STRAIGHT = 1e-5  # cosine up to which medicai takes axes for straight


class _OnAnotherGrid(SpatialTransform):
    """Labels lie where the image does, or where medicai puts them."""

    profile: Profile
    fill: float | None = None

    def _label(self, label: Tensor, warp: Warp) -> Tensor:
        if self.profile == "aligned":
            return super()._label(label, warp)
        anchored = not warp.matrix[:-1, -1].any()
        inside = torch.ones((1,) * label.ndim, dtype=torch.bool, device=label.device)
        for axis, (old, new) in enumerate(zip(warp.old_size, warp.size, strict=True), start=1):
            place = torch.linspace(0, old - 1, new, device=label.device)
            if anchored:
                step = float(warp.matrix[axis - 1, axis - 1])
                place = torch.arange(new, device=label.device) * step
            index = place.round().long()
            shape = [-1 if i == axis else 1 for i in range(label.ndim)]
            inside = inside & (index < old).reshape(shape)
            label = label.index_select(axis, index.clamp(max=old - 1))
        return label.masked_fill(~inside, 0)


class Resize(_OnAnotherGrid):
    """Brings a sample to a size, over the same extent.

    Args:
        size: Voxels per spatial axis; one number for all.
        mode: "linear" or "cubic" for images; labels take the nearest voxel.
        profile: "aligned" samples labels where it samples the image; "medicai" takes them from
            corner to corner, up to half a voxel beside the image.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If ``size`` is not positive or ``mode`` is unknown.

    Example:
        >>> import torch
        >>> Resize(size=2)({"image": torch.tensor([[0.0, 1.0, 2.0, 3.0]])})["image"]
        tensor([[0.5000, 2.5000]])
    """

    def __init__(
        self,
        *,
        size: int | Sequence[int],
        mode: Interpolation = "linear",
        profile: Profile = "aligned",
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        check.one_of("mode", mode, ("linear", "nearest", "cubic"))
        check.one_of("profile", profile, _PROFILES)
        self.size: int | Sequence[int] = size
        self.mode: Interpolation = mode
        self.profile: Profile = profile
        self.fuses: bool = profile == "aligned"
        self.fill: float | None = None if profile == "aligned" else 0.0
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        sizes = check.per_axis("size", self.size, len(grid.size))
        size = [check.integer("size", n, minimum=1) for n in sizes]
        step = [n / m for n, m in zip(grid.size, size, strict=True)]
        return (scale_map(grid.size, size, step),)


class Spacing(_OnAnotherGrid):
    """Brings a volume to a spacing, about the same centre; the axes keep their directions.

    The size is the extent divided by the spacing, rounded. The sample needs an ``affine``. For
    another orientation put :class:`Orientation` before it: the two become one interpolation in
    :class:`Compose`.

    Args:
        spacing: Distance between voxels in mm along d, h and w; one number for all.
        mode: "linear" or "cubic" for images; labels take the nearest voxel.
        profile: "aligned" as described. "medicai" keeps the extent of a straight volume, so that
            the spacing differs by the rounding, with labels as in :class:`Resize`; an oblique one
            keeps its first voxel. The affine says where the voxels are in either.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If ``spacing`` is not positive, ``mode`` is unknown or a sample has no affine.

    Example:
        >>> import torch
        >>> affine = torch.diag(torch.tensor([3.0, 1.0, 1.0, 1.0]))
        >>> sample = {"image": torch.zeros(1, 4, 5, 6), "affine": affine}
        >>> Spacing(spacing=1.0)(sample)["image"].shape
        torch.Size([1, 12, 5, 6])
    """

    def __init__(
        self,
        *,
        spacing: float | Sequence[float],
        mode: Interpolation = "linear",
        profile: Profile = "aligned",
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        check.one_of("mode", mode, ("linear", "nearest", "cubic"))
        check.one_of("profile", profile, _PROFILES)
        given = check.per_axis("spacing", spacing, 3)
        self.spacing: tuple[float, ...] = tuple(check.positive("spacing", value) for value in given)
        self.mode: Interpolation = mode
        self.profile: Profile = profile
        self.fuses: bool = profile == "aligned"
        self.fill: float | None = None if profile == "aligned" else 0.0
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        if grid.affine is None:
            raise check.fail("sample['affine']", "the 4 x 4 matrix of a volume", "none")
        step = np.array(self.spacing) / grid.spacing
        exact = np.array(grid.size) / step
        if self.profile == "aligned":
            return (scale_map(grid.size, [max(1, round(float(n))) for n in exact], step.tolist()),)
        size = tuple(max(1, int(n)) for n in np.floor(exact + 0.5))
        directions = grid.affine[:3, :3] / grid.spacing
        if np.abs(directions - np.diag(np.diag(directions))).max() <= _STRAIGHT:
            return (scale_map(grid.size, size, (np.array(grid.size) / size).tolist()),)
        return (Warp(np.diag([*step, 1.0]), grid.size, size),)
