"""How much memory a run takes."""

import os
import sys
from pathlib import Path

import torch


def memory_stats(*, device: torch.device | str | None = None) -> dict[str, int]:
    """Return the memory in use and at its peak, in bytes.

    On a GPU: ``allocated`` (tensors), ``reserved`` (held by torch's allocator) and their peaks
    since ``torch.cuda.reset_peak_memory_stats``. On a CPU: ``resident`` memory of this process and
    its peak, where the system tells.

    Args:
        device: Which device; None is the CPU.

    Returns:
        Bytes by name.

    Example:
        >>> all(size > 0 for size in memory_stats().values())
        True
    """
    place = torch.device("cpu" if device is None else device)
    if place.type == "cuda":
        return {
            "allocated": torch.cuda.memory_allocated(place),
            "peak_allocated": torch.cuda.max_memory_allocated(place),
            "reserved": torch.cuda.memory_reserved(place),
            "peak_reserved": torch.cuda.max_memory_reserved(place),
        }
    try:
        import resource
    except ImportError:  # Windows
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stats = {"peak_resident": peak if sys.platform == "darwin" else peak * 1024}
    try:
        with Path("/proc/self/statm").open("rb") as statm:
            stats["resident"] = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # only Linux has it
        pass
    return stats
