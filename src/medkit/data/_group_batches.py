"""Batches made of whole groups of samples."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils.data import Sampler

from medkit._core import check
from medkit._core.keyed_random import sample_rng
from medkit._core.processes import place_among

_GROUPS = 2  # stream of the order of groups


class CompleteGroupBatchSampler(Sampler[Tensor]):
    """Batches of about one size in which every group of samples is whole.

    Use it where a loss needs all samples of a group at once, such as
    ``group_reconstruction_loss``: nodes of a mesh that share one measurement. Groups are taken in
    random order, and a batch ends before the group that would make it larger than ``max_size``; a
    group that is larger by itself is a batch of its own.

    The order depends on seed and epoch alone. Over several processes all have equally many
    batches, and no group comes twice in an epoch: where their number does not divide, batches are
    split between two of their groups, and where there are too few groups for that, the last ones
    of the epoch are left out.

    A batch is one tensor of indices. Take it to index tensors that hold all samples, or hand the
    sampler to a ``DataLoader`` as ``sampler=`` with ``batch_size=None``, so that the dataset gets
    all indices at once. ``medkit.train.ResumableLoader`` round either goes on inside an epoch.

    Args:
        group_ids: Group of each sample, any integers in any order.
        max_size: Most samples of a batch, over which none goes but a single large group.
        shuffle: Whether groups and batches come in random order; else groups come by rising id.
        seed: Start of the order.
        rank: Number of this process; None asks torch.distributed.
        world_size: Number of processes; None asks torch.distributed.

    Raises:
        ValueError: If ``group_ids`` is empty or not one axis of integers, or there are fewer
            groups than processes.

    Example:
        >>> import torch
        >>> group_ids = torch.tensor([7, 7, 3, 3, 3, 9])
        >>> sampler = CompleteGroupBatchSampler(group_ids, max_size=4, shuffle=False)
        >>> [batch.tolist() for batch in sampler]
        [[2, 3, 4], [0, 1, 5]]

    References:
        Q. Sen et al., Computers in Biology and Medicine 198, 111219, 2025: training on the nodes
        of whole cells.
    """

    def __init__(
        self,
        group_ids: Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."] | Sequence[int],
        *,
        max_size: int,
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        ids = np.asarray(group_ids)
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
            got = f"{ids.dtype} of shape {ids.shape}"
            raise check.fail("group_ids", "one integer for each of at least one sample", got)
        _, groups, sizes = np.unique(ids, return_inverse=True, return_counts=True)
        self.max_size: int = check.integer("max_size", max_size, minimum=1)
        self.shuffle: bool = shuffle
        self.seed: int = check.integer("seed", seed, minimum=0)
        place = place_among(rank, world_size)
        self.rank: int = place[0]
        self.world_size: int = place[1]
        if len(sizes) < self.world_size:
            rule = f"at least one group for each of {self.world_size} processes"
            raise check.fail("group_ids", rule, f"{len(sizes)} groups")
        self.epoch: int = 0
        self._sizes = sizes
        self._samples = np.argsort(groups, kind="stable")
        self._ends = np.cumsum(sizes)
        self._first = 0

    def __len__(self) -> int:
        """Return the number of batches of this epoch."""
        return len(self._batches(self.epoch)) // self.world_size

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the samples of each batch, group by group."""
        epoch, first, self._first = self.epoch, self._first, 0
        for groups in self._batches(epoch)[self.rank :: self.world_size][first:]:
            ends = self._ends[groups]
            parts = [
                self._samples[end - size : end]
                for end, size in zip(ends, self._sizes[groups], strict=True)
            ]
            yield torch.as_tensor(np.concatenate(parts))

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
            Options by name, and the numbers of samples, groups and processes.
        """
        return {
            "num_samples": len(self._samples),
            "num_groups": len(self._sizes),
            "max_size": self.max_size,
            "shuffle": int(self.shuffle),
            "seed": self.seed,
            "world_size": self.world_size,
        }

    def _batches(self, epoch: int) -> list[list[int]]:
        """Return the groups of each batch of all processes, a multiple of their number."""
        order = np.arange(len(self._sizes))
        if self.shuffle:
            order = sample_rng(self.seed, epoch, 0, stream=_GROUPS).permutation(len(order))
        batches = self._packed(order.tolist())
        missing = -len(batches) % self.world_size
        for _ in range(missing):
            widest = max(range(len(batches)), key=lambda b: len(batches[b]))
            groups = batches[widest]
            if len(groups) < 2:
                batches = batches[: len(batches) - len(batches) % self.world_size]
                break
            half = len(groups) // 2
            batches[widest : widest + 1] = [groups[:half], groups[half:]]
        return batches

    def _packed(self, order: list[int]) -> list[list[int]]:
        """Return groups in batches, each closed before the group that would exceed the limit."""
        batches: list[list[int]] = []
        filled = 0
        for group in order:
            size = int(self._sizes[group])
            if not batches or filled + size > self.max_size:
                batches.append([])
                filled = 0
            batches[-1].append(group)
            filled += size
        return batches
