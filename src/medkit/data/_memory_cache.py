"""Items that are kept in memory once they were made."""

import copy
from typing import Generic, TypeVar

from torch.utils.data import Dataset

from ._fingerprint import Indexed

Item = TypeVar("Item")


class MemoryCache(Dataset[Item], Generic[Item]):
    """A dataset that keeps every item in memory after its first use.

    Each reading gives a copy, so that a transform that writes into an item changes nothing here.
    Workers started by fork share what was read before they started; what a worker reads, it keeps
    for itself, and workers started in another way begin with nothing. One copy for all workers and
    ranks is a :func:`cache` in a file, be it in ``/dev/shm``, whose pages they share.

    Random items stay as they were first drawn: put random transforms behind the cache.

    Args:
        dataset: Gives items by number. Of volumes from which only patches are needed, use
            ``VolumeDataset(..., cache=True)``, which copies nothing but the patch.

    Example:
        >>> import torch
        >>> dataset = MemoryCache([{"image": torch.zeros(2)}])
        >>> dataset[0]["image"] += 1
        >>> dataset[0]["image"].tolist()
        [0.0, 0.0]
    """

    def __init__(self, dataset: Indexed[Item]) -> None:
        self._dataset = dataset
        self._items: dict[int, Item] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_items": {}}

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}; got {index}")
        number = index % len(self)
        if number not in self._items:
            self._items[number] = self._dataset[number]
        return copy.deepcopy(self._items[number])
