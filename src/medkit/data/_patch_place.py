"""Where a patch lies: tables from which voxels are drawn, and the patch around one of them."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from ._any_case import AnyCase

_WIDE_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def comparable(values: Shaped[Tensor, "*voxel"]) -> Shaped[Tensor, "*voxel"]:
    """Return voxels in a type that can be compared; torch stores wide unsigned ones only."""
    return values.long() if values.dtype in _WIDE_UNSIGNED else values


class VoxelTable:
    """Weights of all voxels, added up per row, so that any voxel can be drawn.

    It holds 8 bytes per row; the weights of one row are computed again when it is drawn from.

    Args:
        planes: Weights (height, width) of the planes of a volume in order, zero or more each.
    """

    def __init__(self, planes: Iterable[Shaped[Tensor, "height width"]]) -> None:
        rows: list[Tensor] = []
        for plane in planes:
            self._height = plane.shape[0]
            kind = torch.float64 if plane.is_floating_point() else torch.int64
            rows.append(plane.sum(dim=-1, dtype=kind))
        self._ends = np.cumsum(torch.cat(rows).cpu().numpy())
        self.total: float = self._ends[-1].item()

    def row(self, number: float) -> tuple[int, int, float]:
        """Return plane and row of a number in [0, total), and the weight of all rows before."""
        row = min(int(np.searchsorted(self._ends, number, side="right")), len(self._ends) - 1)
        d, h = divmod(row, self._height)
        return d, h, self._ends[row - 1].item() if row else 0


def voxel_in_row(weights: Shaped[Tensor, "width"], number: float) -> int:
    """Return the voxel of a row that a number in [0, sum of its weights) falls on."""
    kind = torch.float64 if weights.is_floating_point() else torch.int64
    ends = weights.cumsum(0, dtype=kind).cpu()
    last = int(torch.searchsorted(ends, ends[-1:]))  # where rounding carries the number past it
    return min(int(torch.searchsorted(ends, number, right=True)), last)


def place(
    case: AnyCase,
    patch_size: Sequence[int],
    generator: np.random.Generator,
    inside: Sequence[int | None],
) -> tuple[int, ...]:
    """Draw the first voxel of a patch within the volume that contains the voxel ``inside``.

    On an axis shorter than the patch the volume lies in the middle of the patch.
    """
    start: list[int] = []
    for size, patch, voxel in zip(case.image.spatial_shape, patch_size, inside, strict=True):
        if size <= patch:
            start.append(-((patch - size) // 2))
            continue
        low = 0 if voxel is None else max(0, voxel - patch + 1)
        high = size - patch if voxel is None else min(size - patch, voxel)
        start.append(int(generator.integers(low, high + 1)))
    return tuple(start)


def place_around(
    case: AnyCase,
    patch_size: Sequence[int],
    generator: np.random.Generator,
    middle: Sequence[int] | None,
) -> tuple[int, ...]:
    """Return the first voxel of the patch about a middle voxel, moved into the volume.

    Without a middle it lies anywhere.
    """
    if middle is None:
        return place(case, patch_size, generator, (None, None, None))
    start: list[int] = []
    for size, patch, voxel in zip(case.image.spatial_shape, patch_size, middle, strict=True):
        centred = -((patch - size) // 2)
        start.append(centred if size <= patch else min(max(voxel - patch // 2, 0), size - patch))
    return tuple(start)
