"""Where this process stands among those of a run."""

from torch import distributed

from . import check


def in_several_processes() -> bool:
    """Return whether this run has a process group of more than one."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def place_among(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return rank and number of processes, asked of torch.distributed where not given."""
    grouped = in_several_processes()
    if world_size is None:
        world_size = distributed.get_world_size() if grouped else 1
    if rank is None:
        rank = distributed.get_rank() if grouped else 0
    check.integer("world_size", world_size, minimum=1)
    if check.integer("rank", rank, minimum=0) >= world_size:
        raise check.fail("rank", f"below world_size ({world_size})", rank)
    return rank, world_size
