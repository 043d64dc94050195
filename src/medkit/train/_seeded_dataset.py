"""A dataset whose random numbers depend on the sample and the epoch alone."""

import random
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medkit._core import check
from medkit._core.keyed_random import sample_rng

from ._batch_sampler import ResumableBatchSampler, SampleIndex

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)
_SEEDS = 2**32


@runtime_checkable
class _LikeMonai(Protocol):
    """``monai.transforms.Randomizable``, and a ``Compose`` of such."""

    def set_random_state(self, seed: int) -> object: ...


@runtime_checkable
class _LikeAlbumentations(Protocol):
    """``albumentations.Compose`` and its transforms."""

    def set_random_seed(self, seed: int) -> object: ...


@runtime_checkable
class Indexed(Protocol[Item_co]):
    """What a dataset must have: items by number, and a length."""

    def __getitem__(self, index: int, /) -> Item_co: ...

    def __len__(self) -> int: ...


class SeededDataset(Dataset[Item], Generic[Item]):
    """Any dataset, with randomness that depends on (seed, epoch, sample) alone.

    While an item is made the global generators of Python, NumPy and torch are seeded for it, and
    put back afterwards. Transforms that keep a generator of their own are seeded when they are
    named in ``transform`` or ``own_state``: those with ``set_random_state`` (MONAI) or
    ``set_random_seed`` (albumentations). TorchIO and batchgeneratorsv2 draw from the global
    generators. A function around them is no such transform: give it as ``transform``, and what it
    calls as ``own_state``. The same items come with any number of workers, and after a restart.

    The epoch comes with the indices of a :class:`ResumableBatchSampler`; with any other sampler
    call ``set_epoch`` (:class:`ResumableLoader` does), of which persistent workers hear too.

    Args:
        dataset: Gives items by number.
        seed: Start of the random numbers.
        transform: Called with each item, seeded like the rest; None leaves items as they are.
        own_state: Further objects with a generator of their own, e.g. the transforms inside
            ``dataset``.

    Raises:
        ValueError: If an object in ``own_state`` cannot be seeded.

    Example:
        >>> import torch
        >>> data = SeededDataset([1.0, 2.0], seed=0, transform=lambda x: x + torch.rand(1).item())
        >>> first = data[1]
        >>> data.set_epoch(1)
        >>> other = data[1]
        >>> data.set_epoch(0)
        >>> data[1] == first, other == first
        (True, False)
    """

    def __init__(
        self,
        dataset: Indexed[Item],
        *,
        seed: int,
        transform: Callable[[Item], Item] | None = None,
        own_state: Sequence[object] = (),
    ) -> None:
        self.dataset = dataset
        self.seed: int = check.integer("seed", seed, minimum=0)
        self.transform = transform
        for thing in own_state:
            if not isinstance(thing, _LikeMonai | _LikeAlbumentations):
                rule = "made of objects with set_random_state or set_random_seed"
                raise check.fail("own_state", rule, type(thing).__name__)
        self._stateful: list[object] = [*own_state]
        if isinstance(transform, _LikeMonai | _LikeAlbumentations):
            self._stateful.append(transform)
        self._epoch: Tensor = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item:
        if isinstance(index, SampleIndex):
            epoch, draw = index.epoch, index.draw
        else:
            epoch, draw = int(self._epoch), index % max(len(self), 1)
        seeds = sample_rng(self.seed, epoch, draw).integers(_SEEDS, size=2 + len(self._stateful))
        with _seeded(int(seeds[0])):
            for thing, seed in zip(self._stateful, seeds[2:], strict=True):
                _seed(thing, int(seed))
            item = self.dataset[index]
            return item if self.transform is None else self.transform(item)

    def set_epoch(self, epoch: int) -> None:
        """Choose the random numbers of an epoch, for samplers that do not say it.

        The dataset inside is told too, if it has a ``set_epoch``.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self._epoch.fill_(check.integer("epoch", epoch, minimum=0))
        set_epoch = getattr(self.dataset, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)


def make_loader(
    dataset: Indexed[Item],
    sampler: ResumableBatchSampler,
    *,
    num_workers: int = 0,
    pin_memory: bool | None = None,
    prefetch: int = 2,
    timeout_s: float = 0,
    collate: Callable[[list[Item]], object] | None = None,
) -> DataLoader[Item]:
    """Return a ``DataLoader`` that leaves the global random numbers alone.

    Workers stay alive between epochs and draw their seeds from a generator of the loader's own, so
    that their number changes nothing.

    Args:
        dataset: Gives items by number, usually a :class:`SeededDataset`.
        sampler: Gives the batches.
        num_workers: Processes that make items; 0 makes them in this one.
        pin_memory: Whether batches lie where a GPU can fetch them; None does so if there is one.
        prefetch: Batches that each worker makes ahead.
        timeout_s: Seconds to wait for a worker before it is an error; 0 waits for ever.
        collate: Makes a batch of a list of items; None stacks tensors.

    Returns:
        The loader; put it into a :class:`ResumableLoader` to know where it stands.

    Example:
        >>> loader = make_loader([0, 1, 2, 3], ResumableBatchSampler(4, 2, seed=0, shuffle=False))
        >>> [batch.tolist() for batch in loader]
        [[0, 1], [2, 3]]
    """
    workers = check.integer("num_workers", num_workers, minimum=0)
    return DataLoader(
        cast("Dataset[Item]", dataset),
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        prefetch_factor=check.integer("prefetch", prefetch, minimum=1) if workers else None,
        timeout=check.non_negative("timeout_s", timeout_s) if workers else 0,
        persistent_workers=workers > 0,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(sampler.seed),
    )


def _seed(thing: object, seed: int) -> None:
    if isinstance(thing, _LikeMonai):
        thing.set_random_state(seed=seed)
    elif isinstance(thing, _LikeAlbumentations):
        thing.set_random_seed(seed)


@contextmanager
def _seeded(seed: int) -> Generator[None]:
    """Seed the global generators on the CPU, and put them back at the end."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  third-party transforms draw from it
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
