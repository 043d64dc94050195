"""The order of samples as a function of seed and epoch, cut into batches."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from medkit._core import check
from medkit._core.keyed_random import sample_rng
from medkit._core.processes import place_among

_ORDER = 1  # stream of the order; samples have stream 0
Order = Callable[[int, np.random.Generator], "np.ndarray[Any, np.dtype[Any]]"]


class SampleIndex(int):
    """The number of a sample that also says when it was drawn: an ``int`` to any dataset.

    Args:
        index: The number of the sample.
        epoch: Epoch it was drawn in.
        draw: What its randomness depends on: the sample's own number, or its place in the epoch
            where samples come more than once.

    Example:
        >>> index = SampleIndex(7, epoch=2, draw=7)
        >>> index + 1, index.epoch, "abcdefgh"[index]
        (8, 2, 'h')
    """

    epoch: int
    draw: int

    def __new__(cls, index: int, *, epoch: int, draw: int) -> "SampleIndex":
        self = super().__new__(cls, index)
        self.epoch, self.draw = epoch, draw
        return self

    def __reduce__(self) -> tuple[Callable[..., "SampleIndex"], tuple[int, int, int]]:
        return _sample_index, (int(self), self.epoch, self.draw)


def _sample_index(index: int, epoch: int, draw: int) -> SampleIndex:
    return SampleIndex(index, epoch=epoch, draw=draw)


class ResumableBatchSampler(Sampler[list[int]]):
    """Batches of an order that depends on seed and epoch alone, from any batch on.

    Nothing of the random history matters: epoch 7 has the same order whether the run came there
    in one go or not. A :class:`ResumableLoader` round the loader starts it where the loop was,
    without loading what is done. The indices carry their epoch (:class:`SampleIndex`), so that
    :class:`SeededDataset` needs no word from the parent process.

    In a run of several processes every global batch is cut by rank: the same samples stand behind
    a step whatever the number of processes. Each gets every so-many-th sample of the batch, so that
    shares of a ragged last batch differ by one; ``Stepper.backward(weight=...)`` makes up for it.

    Args:
        num_samples: Samples in an epoch, usually ``len(dataset)``.
        batch_size: Samples of one micro-batch, over all processes.
        seed: Start of the order.
        shuffle: Whether to shuffle; else samples come in their own order.
        drop_last: Whether a last batch that is not full is left out.
        rank: Number of this process; None asks torch.distributed.
        world_size: Number of processes; None asks torch.distributed.
        order: Gives the order instead: called with the epoch and a generator, it returns
            ``num_samples`` indices, which may repeat; None goes by ``shuffle``.

    Raises:
        ValueError: If an option is out of range, or a process would get no sample of some batch.

    Example:
        >>> sampler = ResumableBatchSampler(7, 3, seed=0)
        >>> whole = [list(map(int, batch)) for batch in sampler]
        >>> sampler.start_at(1)
        >>> [list(map(int, batch)) for batch in sampler] == whole[1:]
        True
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        order: Order | None = None,
    ) -> None:
        self.num_samples: int = check.integer("num_samples", num_samples, minimum=1)
        self.batch_size: int = check.integer("batch_size", batch_size, minimum=1)
        self.seed: int = check.integer("seed", seed, minimum=0)
        self.shuffle: bool = shuffle
        self.drop_last: bool = drop_last
        place = place_among(rank, world_size)
        self.rank: int = place[0]
        self.world_size: int = place[1]
        self.epoch: int = 0
        self._order = order
        self._first = 0
        self._check_shares()

    def __len__(self) -> int:
        full, rest = divmod(self.num_samples, self.batch_size)
        return full + bool(rest and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first, self._first = self.epoch, self._first, 0
        order = self._indices(epoch)
        repeats = len(np.unique(order)) < len(order)
        for number in range(first, len(self)):
            start = number * self.batch_size
            stop = min(start + self.batch_size, self.num_samples)
            draws = range(start + self.rank, stop, self.world_size)
            indices = [int(index) for index in order[start + self.rank : stop : self.world_size]]
            yield [
                SampleIndex(index, epoch=epoch, draw=draw if repeats else index)
                for draw, index in zip(draws, indices, strict=True)
            ]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next.

        Args:
            epoch: Its number, from 0.
        """
        self.epoch = check.integer("epoch", epoch, minimum=0)

    def start_at(self, batch: int) -> None:
        """Let the next pass, and no later one, begin with a batch inside the epoch.

        Args:
            batch: Its number, from 0.
        """
        self._first = check.integer("batch", batch, minimum=0)

    def fingerprint(self) -> dict[str, int]:
        """Return what must not change when a run goes on inside an epoch.

        Returns:
            Options by name; the number of processes is none of them.
        """
        names = ("num_samples", "batch_size", "seed", "shuffle", "drop_last")
        return {name: int(getattr(self, name)) for name in names}

    def _indices(self, epoch: int) -> "np.ndarray[Any, np.dtype[Any]]":
        generator = sample_rng(self.seed, epoch, 0, stream=_ORDER)
        if self._order is None:
            count = self.num_samples
            return generator.permutation(count) if self.shuffle else np.arange(count)
        order = np.asarray(self._order(epoch, generator))
        if order.shape != (self.num_samples,):
            raise check.fail("order", f"{self.num_samples} indices", f"shape {order.shape}")
        return order

    def _check_shares(self) -> None:
        rest = self.num_samples % self.batch_size
        smallest = rest if rest and not self.drop_last else self.batch_size
        if smallest < self.world_size:
            rule = f"at least world_size ({self.world_size}) in every batch, or drop_last set"
            raise check.fail("batch_size", rule, smallest)


def eval_indices(
    num_samples: int, *, rank: int | None = None, world_size: int | None = None
) -> range:
    """Return the samples that this process evaluates: all together each once, none padded.

    Args:
        num_samples: Samples in all.
        rank: Number of this process; None asks torch.distributed.
        world_size: Number of processes; None asks torch.distributed.

    Returns:
        Every so-many-th index; use it in a ``torch.utils.data.Subset``.

    Raises:
        ValueError: If ``rank`` is out of range.

    Example:
        >>> [list(eval_indices(7, rank=rank, world_size=3)) for rank in range(3)]
        [[0, 3, 6], [1, 4], [2, 5]]
    """
    rank, world_size = place_among(rank, world_size)
    return range(rank, check.integer("num_samples", num_samples, minimum=0), world_size)
