"""One answer for all processes of a run, so that none steps or stops alone."""

import pickle
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import distributed

from medkit._core.processes import in_several_processes

Result = TypeVar("Result")


def any_process(flag: bool) -> bool:
    """Return whether ``flag`` is true in any process; without a process group, the flag itself."""
    if not in_several_processes():
        return flag
    vote = torch.tensor(int(flag), device=_device())
    distributed.all_reduce(vote, op=distributed.ReduceOp.MAX)  # pyright: ignore[reportUnknownMemberType]  untyped
    return bool(vote.item())


def means_over_processes(*values: float) -> tuple[float, ...]:
    """Return the mean of each value over all processes, asked at once; alone, the values."""
    if not in_several_processes():
        return values
    totals = torch.tensor(values, device=_device(), dtype=torch.float64)
    distributed.all_reduce(totals)  # pyright: ignore[reportUnknownMemberType]  untyped
    return tuple(total.item() / distributed.get_world_size() for total in totals)


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


def from_main(work: Callable[[], Result]) -> Result:
    """Let the first process work while the others wait; all get its result, or all its error."""
    if not in_several_processes():
        return work()
    outcome: list[object] = [None, None]
    if is_main():
        try:
            outcome[0] = work()
        except Exception as error:  # noqa: BLE001  whatever it is, the others must not wait for ever
            outcome[1] = _portable(error)
    distributed.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[1], Exception):
        raise outcome[1]
    return cast("Result", outcome[0])


def together(work: Callable[[], Result]) -> list[Result]:
    """Let every process work; all get the results of all, or all an error of the first to fail."""
    if not in_several_processes():
        return [work()]
    result: Result | None = None
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:  # noqa: BLE001  whatever it is, the others must not wait for ever
        failure = _portable(error)
    outcomes = gather_objects((result, failure))
    for _, error in outcomes:
        if error is not None:
            raise error
    return [cast("Result", result) for result, _ in outcomes]


def gather_objects(value: Result) -> list[Result]:
    """Return the values of all processes, in the order of their ranks.

    Args:
        value: Anything that can be pickled, e.g. a metric of :mod:`medkit.metrics` to merge.

    Returns:
        One value for each process.

    Example:
        >>> from medkit.train import gather_objects
        >>> gather_objects("alone")
        ['alone']
    """
    if not in_several_processes():
        return [value]
    values = cast("list[Result]", [None] * distributed.get_world_size())
    distributed.all_gather_object(values, value)  # pyright: ignore[reportUnknownMemberType]  untyped
    return values


def _portable(error: Exception) -> Exception:
    """Return an error that can go to other processes, itself if it can."""
    try:
        pickle.dumps(error)
    except Exception:  # noqa: BLE001  an error of a third party may hold anything
        rank = distributed.get_rank()
        return RuntimeError(f"process {rank} failed: {type(error).__name__}: {error}")
    return error


def _device() -> torch.device:
    """Return where the group's backend computes: NCCL alone cannot reduce what is on the CPU."""
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
