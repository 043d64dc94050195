"""The largest batch that fits."""

import gc
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import NamedTuple, cast

import torch
from torch import Tensor

from medkit._core import check

from ._agreement import any_process
from ._memory import memory_stats
from ._seeding import fork_rng
from ._stateful import Stateful


class BatchSizeTrial(NamedTuple):
    """One batch size that was tried.

    Attributes:
        batch_size: Samples.
        fits: Whether the step went through, in every process.
        peak_bytes: Most memory that tensors took on the GPU; 0 without one.
    """

    batch_size: int
    fits: bool
    peak_bytes: int


class BatchSizeReport(NamedTuple):
    """What ``find_batch_size`` found.

    Attributes:
        batch_size: What to use; 0 if not even the first size fits.
        largest: Largest size that fitted.
        trials: What was tried, in order.
    """

    batch_size: int
    largest: int
    trials: tuple[BatchSizeTrial, ...]


def find_batch_size(
    try_step: Callable[[int], object],
    *,
    limit: int,
    start: int = 1,
    safety: float = 0.9,
    restore: Mapping[str, Stateful] | None = None,
) -> BatchSizeReport:
    """Return the largest batch size whose step does not run out of memory.

    It doubles the size until a step fails or ``limit`` is reached, then halves the gap. Afterwards
    the random state, and every object in ``restore``, is what it was before. In a run of several
    processes each try counts as failed if it fails in one of them, so that all find the same;
    give them a step without exchanges between processes (the model before it is wrapped), since
    one that fails would leave the others waiting.

    On a CPU the system may end the process before it reports that memory is out: there ``limit``
    is the protection.

    Args:
        try_step: Runs one whole training step with a batch of the given size: forward, loss,
            backward, optimizer. A smaller last step of an epoch does not show what the others need.
        limit: Largest size to try.
        start: First size to try.
        safety: Fraction of the largest fitting size to use, if a larger one failed: memory
            fragments as a run goes on.
        restore: Objects with state that ``try_step`` changes, by name; model and optimizer. Their
            states are kept on the CPU meanwhile.

    Returns:
        The size to use and what was tried.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> import torch
        >>> def try_step(batch_size):
        ...     if batch_size > 11:
        ...         raise torch.OutOfMemoryError
        >>> report = find_batch_size(try_step, limit=64)
        >>> report.batch_size, report.largest, [trial.batch_size for trial in report.trials]
        (9, 11, [1, 2, 4, 8, 16, 12, 10, 11])
    """
    check.integer("start", start, minimum=1)
    check.integer("limit", limit, minimum=start)
    check.positive("safety", check.fraction("safety", safety))
    objects = dict(restore or {})
    kept = {name: _on_cpu(thing.state_dict()) for name, thing in objects.items()}
    trials: list[BatchSizeTrial] = []

    def fits(size: int) -> bool:
        trials.append(_try(try_step, size))
        return trials[-1].fits

    try:
        with fork_rng():
            largest, failed = _search(fits, start, limit)
    finally:
        for name, thing in objects.items():
            thing.load_state_dict(kept[name])
    chosen = max(min(largest, 1), int(largest * safety)) if failed else largest
    return BatchSizeReport(chosen, largest, tuple(trials))


def _search(fits: Callable[[int], bool], start: int, limit: int) -> tuple[int, bool]:
    """Return the largest size that fits and whether a larger one failed."""
    largest, size = 0, start
    while fits(size):
        largest = size
        if size == limit:
            return largest, False
        size = min(2 * size, limit)
    low, high = largest, size
    while high - low > 1 and low:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low, True


def _try(try_step: Callable[[int], object], size: int) -> BatchSizeTrial:
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    failed = any_process(not _runs(try_step, size))
    peak = memory_stats(device="cuda")["peak_allocated"] if on_gpu else 0
    if failed:
        gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
    return BatchSizeTrial(size, not failed, peak)


def _runs(try_step: Callable[[int], object], size: int) -> bool:
    try:
        try_step(size)
    except (torch.OutOfMemoryError, MemoryError):
        return False
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch's words on a CPU
            raise
        return False
    return True


def _on_cpu(state: object) -> Mapping[str, object]:
    """Return a copy of a state that nothing changes, away from the device under test."""

    def copied(value: object) -> object:
        if isinstance(value, Tensor):
            return value.detach().to("cpu", copy=True)
        if isinstance(value, Mapping):
            return {k: copied(v) for k, v in cast("Mapping[object, object]", value).items()}
        if isinstance(value, list):
            return [copied(part) for part in cast("list[object]", value)]
        return deepcopy(value)

    return cast("Mapping[str, object]", copied(state))
