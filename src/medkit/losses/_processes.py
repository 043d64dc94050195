"""What processes that train together tell each other."""

from typing import NamedTuple

import torch
from torch import Tensor, distributed


class Gathered(NamedTuple):
    """The rows of all processes, one process below the other.

    Attributes:
        rows: All rows, without gradient.
        first: Number of the first row that this process gave.
        pieces: Pieces that the rows came in, of all processes.
        processes: Number of processes.
    """

    rows: Tensor
    first: int
    pieces: int
    processes: int


def gather_rows(rows: Tensor, *, pieces: int) -> Gathered:
    """Return the rows of all processes; each may have another number of them."""
    rows = rows.detach()
    if not (distributed.is_available() and distributed.is_initialized()):
        return Gathered(rows, 0, pieces, 1)
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    numbers = torch.zeros(processes, 2, dtype=torch.int64, device=rows.device)
    numbers[rank, 0], numbers[rank, 1] = len(rows), pieces
    _add_up(numbers)
    sizes: list[int] = numbers[:, 0].tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  torch leaves it untyped
    first = sum(sizes[:rank])
    everything = rows.new_zeros(sum(sizes), rows.shape[1])
    everything[first : first + len(rows)] = rows
    _add_up(everything)
    return Gathered(everything, first, int(numbers[:, 1].sum()), processes)


def mean_over_processes(values: Tensor) -> Tensor:
    """Return the mean over the processes that train together; alone, the values themselves."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    total = values.clone()
    _add_up(total)
    return total / distributed.get_world_size()


def _add_up(tensor: Tensor) -> None:
    distributed.all_reduce(tensor)  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
