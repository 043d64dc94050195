"""Every patch of a regular grid over each volume."""

from collections.abc import Sequence
from itertools import accumulate, product

import numpy as np
import torch
from torch.utils.data import Dataset

from medkit._core import check
from medkit.ops import patch_grid

from ._any_case import AnySource, case_of
from ._dataset import Item
from ._patch_cut import check_size, cut


class GridItem(Item, total=False):
    """What :class:`GridPatchDataset` gives: an item that knows where it lies."""

    start: torch.Tensor
    """int64 (3,), the patch's first voxel (d, h, w) in the volume."""


class GridPatchDataset(Dataset[GridItem]):
    """All patches of a grid over every case, in order: for validation, for features, for tiles.

    The grid is that of :func:`medkit.ops.patch_grid`: the last patch of an axis is moved back to
    end with the volume, and an axis shorter than the patch is padded behind. Items are those of
    :class:`PatchDataset` with ``start``, the first voxel, which puts a result back in its place.

    Args:
        dataset: Where the cases come from, usually a :class:`VolumeDataset` with ``cache=True``.
            Every case is read once, for its size.
        patch_size: Voxels of a patch, one number or one each for d, h and w.
        overlap: Fraction of a patch that the next one covers again, in [0, 1).
        pad_value: Image value beyond a volume that is smaller than the patch; None makes such a
            volume an error.
        pad_label: Label there.

    Raises:
        ValueError: If an argument is out of range, or a case is smaller than the patch without a
            pad value.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import Volume, VolumeDataset
        >>> dataset = VolumeDataset([{"image": Volume(torch.rand(1, 20, 16, 16), np.eye(4))}])
        >>> patches = GridPatchDataset(dataset, patch_size=16)
        >>> len(patches), patches[1]["start"].tolist()
        (2, [4, 0, 0])
    """

    def __init__(
        self,
        dataset: AnySource,
        *,
        patch_size: int | Sequence[int],
        overlap: float | Sequence[float] = 0.0,
        pad_value: float | None = None,
        pad_label: int | None = None,
    ) -> None:
        sizes = check.per_axis("patch_size", patch_size, 3)
        self.patch_size: tuple[int, ...] = tuple(
            check.integer("patch_size", n, minimum=1) for n in sizes
        )
        self._dataset = dataset
        self._fills = (pad_value, pad_label)
        self._starts: list[list[tuple[int, ...]]] = []
        for number in range(len(dataset)):
            case = case_of(dataset, number)
            check_size(case, self.patch_size, pad_value, pad_label)
            shape = case.image.spatial_shape
            grid = patch_grid(shape, patch_size=self.patch_size, overlap=overlap)
            self._starts.append(list(product(*grid)))
        self._ends: list[int] = list(accumulate(len(starts) for starts in self._starts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> GridItem:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}; got {index}")
        index %= len(self)
        number = int(np.searchsorted(self._ends, index, side="right"))
        start = self._starts[number][index - self._ends[number]]  # counted from the end of a case
        patch = cut(case_of(self._dataset, number), start, self.patch_size, *self._fills)
        return GridItem(**patch, start=torch.tensor(start))
