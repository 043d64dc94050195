"""Crops and paddings."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medkit._core import check

from ._maps import crop_map
from ._transform import Grid, SpatialTransform, names, tensor
from ._warp import Warp


class SpatialCrop(SpatialTransform):
    """Cuts out a box, moved into the grid where it would stick out.

    Args:
        size: Voxels per spatial axis, one number for all; an axis that is shorter is kept whole.
        start: Index of the first voxel; None goes by ``centre``.
        centre: Index of the middle voxel, ``size // 2`` after the first; None means that of the
            image.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If ``size`` is not positive, or both ``start`` and ``centre`` are given.

    Example:
        >>> import torch
        >>> SpatialCrop(size=2, start=(1,))({"image": torch.tensor([[1, 2, 3, 4]])})["image"]
        tensor([[2, 3]])
    """

    moves: bool = True

    def __init__(
        self,
        *,
        size: int | Sequence[int],
        start: Sequence[int] | None = None,
        centre: Sequence[int] | None = None,
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        if start is not None and centre is not None:
            raise check.fail("start and centre", "given one at a time", (start, centre))
        self.size: int | Sequence[int] = size
        self.start: Sequence[int] | None = start
        self.centre: Sequence[int] | None = centre
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        dims = len(grid.size)
        size = inside(self.size, grid.size)
        if self.start is not None:
            start = list(check.per_axis("start", self.start, dims))
        else:
            middle = [n // 2 for n in grid.size] if self.centre is None else self.centre
            centre = check.per_axis("centre", middle, dims)
            start = [c - n // 2 for c, n in zip(centre, size, strict=True)]
        return (crop_map(grid.size, moved_in(start, size, grid.size), size),)


class CropForeground(SpatialTransform):
    """Cuts out the smallest box around what lies above a threshold.

    A sample with nothing above it is kept whole.

    Args:
        source: Key of the tensor that is looked at, in all its channels.
        threshold: What is above it is foreground.
        margin: Voxels to add on every side, as far as there are any; one number or one per axis.
        divisible: Sizes are enlarged at the end to multiples of it, as far as there are voxels.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If ``margin`` is negative or ``divisible`` not positive.

    Example:
        >>> import torch
        >>> CropForeground()({"image": torch.tensor([[0, 0, 5, 0, 7, 0]])})["image"]
        tensor([[5, 0, 7]])
    """

    moves: bool = True
    looks: bool = True

    def __init__(
        self,
        *,
        source: str = "image",
        threshold: float = 0.0,
        margin: int | Sequence[int] = 0,
        divisible: int | Sequence[int] = 1,
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        self.source: str = source
        self.threshold: float = check.real("threshold", threshold)
        self.margin: int | Sequence[int] = margin
        self.divisible: int | Sequence[int] = divisible
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        dims = len(grid.size)
        margins = check.per_axis("margin", self.margin, dims)
        factors = check.per_axis("divisible", self.divisible, dims)
        mask = (tensor(grid.sample, self.source) > self.threshold).any(0)
        start, size = [0] * dims, list(grid.size)
        for axis, count in enumerate(grid.size):
            others = [other for other in range(dims) if other != axis]
            found = (mask.amax(others) if others else mask).nonzero().flatten()
            if not len(found):
                return ()
            margin = check.integer("margin", margins[axis], minimum=0)
            factor = check.integer("divisible", factors[axis], minimum=1)
            start[axis] = max(0, int(found[0]) - margin)
            end = min(count, int(found[-1]) + 1 + margin)
            wanted = -(-(end - start[axis]) // factor) * factor
            size[axis] = min(count, start[axis] + wanted) - start[axis]
        return (crop_map(grid.size, start, size),)


class PadOrCrop(SpatialTransform):
    """Brings a sample to a size by padding and cropping about its middle.

    Args:
        size: Voxels per spatial axis; one number for all, None in a sequence leaves an axis.
        fill: Image value of padding.
        label_fill: Label of padding, e.g. the ignore_index of the loss.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If ``size`` is not positive.

    Example:
        >>> import torch
        >>> PadOrCrop(size=(4, 1))({"image": torch.tensor([[[1, 2, 3], [4, 5, 6]]])})["image"]
        tensor([[[0],
                 [2],
                 [5],
                 [0]]])
    """

    def __init__(
        self,
        *,
        size: int | Sequence[int | None],
        fill: float = 0.0,
        label_fill: int = 0,
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        self.size: int | Sequence[int | None] = size
        self.fill: float | None = check.real("fill", fill)
        self.label_fill: int = check.integer("fill", label_fill)
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        dims = len(grid.size)
        given = (self.size,) * dims if isinstance(self.size, int) else tuple(self.size)
        if len(given) != dims:
            raise check.fail("size", f"one value or {dims}, one per spatial axis", self.size)
        size = [
            count if wanted is None else check.integer("size", wanted, minimum=1)
            for wanted, count in zip(given, grid.size, strict=True)
        ]
        return (_about_middle(grid.size, size),)


class Pad(SpatialTransform):
    """Pads a sample on both sides, up to a least size and a multiple.

    Args:
        size: Least voxels per spatial axis; one number for all.
        divisible: Sizes are enlarged to multiples of it, e.g. the stride of a network.
        fill: Image value of padding.
        label_fill: Label of padding, e.g. the ignore_index of the loss.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If ``size`` or ``divisible`` is not positive.

    Example:
        >>> import torch
        >>> Pad(divisible=4)({"image": torch.tensor([[1, 2, 3, 4, 5]])})["image"]
        tensor([[0, 1, 2, 3, 4, 5, 0, 0]])
    """

    def __init__(
        self,
        *,
        size: int | Sequence[int] = 1,
        divisible: int | Sequence[int] = 1,
        fill: float = 0.0,
        label_fill: int = 0,
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        self.size: int | Sequence[int] = size
        self.divisible: int | Sequence[int] = divisible
        self.fill: float | None = check.real("fill", fill)
        self.label_fill: int = check.integer("fill", label_fill)
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        dims = len(grid.size)
        least = check.per_axis("size", self.size, dims)
        factors = check.per_axis("divisible", self.divisible, dims)
        size: list[int] = []
        for count, wanted, factor in zip(grid.size, least, factors, strict=True):
            multiple = check.integer("divisible", factor, minimum=1)
            full = max(count, check.integer("size", wanted, minimum=1))
            size.append(-(-full // multiple) * multiple)
        return (_about_middle(grid.size, size),)


class RandomSpatialCrop(SpatialTransform):
    """Cuts out a box at a random place, with enough voxels whose label is known.

    Without ``invalid_label`` every place is equally likely. With it the middle is drawn among the
    voxels of other labels; while the share of these in the box is below ``min_valid_ratio``,
    another place is drawn from all, up to ``max_attempts`` times; the last one is taken.

    Args:
        size: Voxels per spatial axis, one number for all; an axis that is shorter is kept whole.
        least_size: Draw the size of each axis too, from this one up to ``size``, each equally
            likely; None keeps it at ``size``.
        invalid_label: Label of voxels that nothing is known about.
        min_valid_ratio: Least share of other voxels in the box, in [0, 1].
        max_attempts: How often a box with too few is given up.
        label: Key of the label that is looked at.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If an argument is out of range, or ``min_valid_ratio`` is given without
            ``invalid_label``.

    Example:
        >>> import torch
        >>> RandomSpatialCrop(size=8)({"image": torch.rand(1, 20, 20, 20)})["image"].shape
        torch.Size([1, 8, 8, 8])
    """

    moves: bool = True
    draws: bool = True

    def __init__(
        self,
        *,
        size: int | Sequence[int],
        least_size: int | Sequence[int] | None = None,
        invalid_label: int | None = None,
        min_valid_ratio: float = 0.0,
        max_attempts: int = 1,
        label: str = "label",
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        self.size: int | Sequence[int] = size
        self.least_size: int | Sequence[int] | None = least_size
        self.invalid_label: int | None = invalid_label
        self.label: str = label
        self.min_valid_ratio: float = check.fraction("min_valid_ratio", min_valid_ratio)
        self.max_attempts: int = check.integer("max_attempts", max_attempts, minimum=1)
        if min_valid_ratio and invalid_label is None:
            raise check.fail("invalid_label", "given with min_valid_ratio", None)
        self.looks: bool = invalid_label is not None
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        size = self._drawn_size(grid.size, generator)
        start = [int(generator.integers(n - m + 1)) for n, m in zip(grid.size, size, strict=True)]
        if self.invalid_label is not None:
            valid = (tensor(grid.sample, self.label) != self.invalid_label).any(0)
            start = self._valid_start(valid, start, size, generator)
        return (crop_map(grid.size, start, size),)

    def _drawn_size(self, old: Sequence[int], generator: np.random.Generator) -> list[int]:
        size = inside(self.size, old)
        if self.least_size is None:
            return size
        least = inside(self.least_size, old)
        if any(low > high for low, high in zip(least, size, strict=True)):
            raise check.fail("least_size", f"at most size, {tuple(size)}", tuple(least))
        return [int(generator.integers(a, b + 1)) for a, b in zip(least, size, strict=True)]

    def _valid_start(
        self, valid: Tensor, start: list[int], size: list[int], generator: np.random.Generator
    ) -> list[int]:
        start = start_about_voxel(valid, size, generator) or start
        for _ in range(self.max_attempts):
            box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
            if float(valid[box].float().mean()) >= self.min_valid_ratio:
                break
            limits = zip(valid.shape, size, strict=True)
            start = [int(generator.integers(n - m + 1)) for n, m in limits]
        return start


def inside(size: int | Sequence[int], old: Sequence[int]) -> list[int]:
    sizes = check.per_axis("size", size, len(old))
    pairs = zip(sizes, old, strict=True)
    return [min(count, check.integer("size", wanted, minimum=1)) for wanted, count in pairs]


def moved_in(start: Sequence[int], size: Sequence[int], old: Sequence[int]) -> list[int]:
    return [min(max(0, a), n - m) for a, m, n in zip(start, size, old, strict=True)]


def start_about_voxel(
    mask: Tensor, size: Sequence[int], generator: np.random.Generator
) -> list[int] | None:
    """Return the start of the box about a drawn voxel of a mask, or None if the mask is empty."""
    planes = mask.flatten(1) if mask.ndim > 1 else mask[None]  # one sum over all is slow and large
    ends = torch.stack([plane.count_nonzero() for plane in planes]).cumsum(0)
    if not ends[-1]:
        return None
    number = int(generator.integers(int(ends[-1]))) + 1
    plane = int(torch.searchsorted(ends, number))
    number -= int(ends[plane - 1]) if plane else 0
    voxel = int(torch.searchsorted(planes[plane].cumsum(0), number))
    centre = np.unravel_index(plane * planes.shape[1] + voxel, mask.shape)
    start = [int(c) - n // 2 for c, n in zip(centre, size, strict=True)]
    return moved_in(start, size, mask.shape)


def _about_middle(old: Sequence[int], size: Sequence[int]) -> Warp:
    return crop_map(old, [-((m - n) // 2) for n, m in zip(old, size, strict=True)], size)
