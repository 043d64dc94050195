"""One answer for all processes of a run, so that none steps or stops alone."""

import torch
from torch import distributed


def any_process(flag: bool) -> bool:
    """Return whether ``flag`` is true in any process; without a process group, the flag itself."""
    if not in_several_processes():
        return flag
    vote = torch.tensor(int(flag), device=_device())
    distributed.all_reduce(vote, op=distributed.ReduceOp.MAX)  # pyright: ignore[reportUnknownMemberType]  untyped
    return bool(vote.item())


def mean_over_processes(value: float) -> float:
    """Return the mean of ``value`` over all processes; alone, the value itself."""
    if not in_several_processes():
        return value
    total = torch.tensor(value, device=_device(), dtype=torch.float64)
    distributed.all_reduce(total)  # pyright: ignore[reportUnknownMemberType]  untyped
    return total.item() / distributed.get_world_size()


def in_several_processes() -> bool:
    """Return whether this run has a process group of more than one."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def is_main() -> bool:
    """Return whether this process is the first, or alone: the one that writes and prints.

    Returns:
        Whether its rank is 0.

    Example:
        >>> from medkit.train import is_main
        >>> is_main()
        True
    """
    return not in_several_processes() or distributed.get_rank() == 0


def _device() -> torch.device:
    """Return where the group's backend computes: NCCL alone cannot reduce what is on the CPU."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
