"""Random patches of volumes, the same whatever the number of workers."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from medkit._core import check
from medkit._core.keyed_random import sample_rng

from ._any_case import AnyCase, AnySource, case_of
from ._dataset import Item
from ._patch_cut import check_size, cut
from ._patch_samplers import PatchSampler, UniformPatchSampler


@runtime_checkable
class _Drawn(Protocol):
    """An index that says when it was drawn, such as ``medkit.train.SampleIndex``."""

    epoch: int
    draw: int


class PatchDataset(Dataset[Item]):
    """Random patches of one size, for the ordinary ``DataLoader``.

    Item ``index`` is a patch of case ``index // patches_per_case``, at a place that ``sampler``
    draws: :class:`ForegroundPatchSampler`, :class:`UniformPatchSampler`, or your own object whose
    ``prepare(cases)`` looks at every case once and returns one object per case, whose
    ``start(case, patch_size, generator)`` returns the first voxel (d, h, w).

    Patches do not leave the volume; an axis that is shorter than the patch is padded on both
    sides. Items are plain dicts as in :class:`VolumeDataset`, with the affine of the patch.

    The draw depends on ``(seed, epoch, index)`` alone: the same patches come with any number of
    workers and after a resume. Call :meth:`set_epoch` before each pass over the data to get new
    ones; workers that stay alive are told. An index drawn twice in an epoch gives one patch twice.
    Indices of ``medkit.train.ResumableBatchSampler`` say their epoch, and their draw, themselves.

    Args:
        dataset: Where the cases come from: a :class:`VolumeDataset` with ``cache=True``, or a
            :class:`CachedDataset`, of which patches are read without the rest of their volume.
            Every case, or what the sampler needs of it, is read once when the patch dataset is
            built.
        patch_size: Voxels of a patch, one number or one each for d, h and w.
        sampler: Draws the places; None means :class:`UniformPatchSampler`.
        patches_per_case: Items per case in an epoch.
        pad_value: Image value outside of a volume that is smaller than the patch; None makes such
            a volume an error when the dataset is built.
        pad_label: Label there, e.g. 0 for background or the ignore_index of the loss; needed with
            ``pad_value`` if there are labels.
        seed: Start of the random numbers.

    Raises:
        ValueError: If a case is smaller than the patch without a pad value, or the sampler cannot
            use it; the message names the case.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import ForegroundPatchSampler, Volume, VolumeDataset
        >>> image = Volume(torch.rand(1, 20, 20, 20), np.eye(4))
        >>> dataset = VolumeDataset([{"image": image, "label": image.like(image.data > 0.9)}])
        >>> sampler = ForegroundPatchSampler(probability=0.5)
        >>> patches = PatchDataset(dataset, patch_size=8, sampler=sampler, patches_per_case=4)
        >>> len(patches), patches[0]["image"].shape
        (4, torch.Size([1, 8, 8, 8]))
    """

    def __init__(
        self,
        dataset: AnySource,
        *,
        patch_size: int | Sequence[int],
        sampler: PatchSampler | None = None,
        patches_per_case: int = 1,
        pad_value: float | None = None,
        pad_label: int | None = None,
        seed: int = 0,
    ) -> None:
        sizes = check.per_axis("patch_size", patch_size, 3)
        self.patch_size: tuple[int, ...] = tuple(
            check.integer("patch_size", n, minimum=1) for n in sizes
        )
        self.patches_per_case: int = check.integer("patches_per_case", patches_per_case, minimum=1)
        self.seed: int = check.integer("seed", seed, minimum=0)
        self._dataset = dataset
        self._pad_value = pad_value
        self._pad_label = pad_label
        self._epoch: Tensor = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # workers see the epoch that the parent sets
        self._draws = (sampler or UniformPatchSampler()).prepare(self._checked_cases())

    def __len__(self) -> int:
        return len(self._draws) * self.patches_per_case

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}; got {index}")
        if isinstance(index, _Drawn):
            epoch, draw = index.epoch, index.draw
        else:
            epoch, draw = int(self._epoch), index % len(self)
        number = index % len(self) // self.patches_per_case
        case = case_of(self._dataset, number)
        generator = sample_rng(self.seed, epoch, draw)
        size = self.patch_size
        start = self._draws[number].start(case, size, generator)
        return cut(case, start, size, self._pad_value, self._pad_label)

    def set_epoch(self, epoch: int) -> None:
        """Choose the random patches of an epoch; call it before iterating over the loader.

        Args:
            epoch: Number of the epoch, from 0.

        Raises:
            ValueError: If ``epoch`` is negative.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> from medkit.data import Volume, VolumeDataset
            >>> dataset = VolumeDataset([{"image": Volume(torch.rand(1, 20, 20, 20), np.eye(4))}])
            >>> patches = PatchDataset(dataset, patch_size=8)
            >>> first = patches[0]["image"]
            >>> patches.set_epoch(1)
            >>> torch.equal(first, patches[0]["image"])
            False
        """
        self._epoch.fill_(check.integer("epoch", epoch, minimum=0))

    def _checked_cases(self) -> Iterator[AnyCase]:
        for number in range(len(self._dataset)):
            case = case_of(self._dataset, number)
            check_size(case, self.patch_size, self._pad_value, self._pad_label)
            yield case
