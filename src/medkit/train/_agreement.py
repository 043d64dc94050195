"""One answer for all processes of a run, so that none steps or stops alone."""

import torch
from torch import distributed


def any_process(flag: bool, *, device: torch.device | None = None) -> bool:
    """Return whether ``flag`` is true in any process; without a process group, the flag itself.

    Args:
        flag: This process' answer.
        device: Where the group's backend computes; None is the CPU, or this process' GPU for a
            group that has only NCCL.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return flag
    if distributed.get_world_size() == 1:
        return flag
    if device is None:
        device = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
    vote = torch.tensor(int(flag), device=device)
    distributed.all_reduce(vote, op=distributed.ReduceOp.MAX)
    return bool(vote.item())
