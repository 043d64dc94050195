"""How fast a run is, and how much of its time it waits for data."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from medkit._core import check

Batch = TypeVar("Batch")


class Throughput:
    """Samples and steps per second, and the share of time spent waiting for the loader.

    Where the loader is watched, waiting is the time between asking for a batch and getting it;
    near zero the network is the bottleneck, near one the data are. A GPU works on after its
    commands are given: over many steps the waits add up right, a single one says little.

    Args:
        warmup: First steps that do not count, while caches fill and kernels are chosen.
        clock: Gives the time in seconds.

    Example:
        >>> ticks = iter(range(100))
        >>> speed = Throughput(warmup=1, clock=lambda: float(next(ticks)))
        >>> for batch in speed.watch([[1, 2]] * 3):
        ...     speed.update(len(batch))
        >>> speed.compute()["samples_per_s"]
        0.6666666666666666
    """

    def __init__(self, *, warmup: int = 5, clock: Callable[[], float] = time.perf_counter) -> None:
        self.warmup: int = check.integer("warmup", warmup, minimum=0)
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Begin anew, warm-up included."""
        self._steps = self._samples = 0
        self._waited = 0.0
        self._begin = self._end = self._clock()

    def watch(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches of a loader and measure how long each was waited for.

        Args:
            loader: The loader.

        Yields:
            Its batches.
        """
        batches = iter(loader)
        while True:
            asked = self._clock()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += self._clock() - asked
            yield batch

    def update(self, samples: int) -> None:
        """Count a step.

        Args:
            samples: Samples, or voxels, in its batch.
        """
        self._steps += 1
        self._end = self._clock()
        if self._steps <= self.warmup:
            self._begin, self._waited = self._end, 0.0
        else:
            self._samples += check.integer("samples", samples, minimum=0)

    def compute(self) -> dict[str, float]:
        """Return the averages over all steps that count.

        Returns:
            ``samples_per_s``, ``steps_per_s`` and ``waiting``, the fraction of time spent waiting
            for the loader; all 0 before the first step that counts.
        """
        seconds, steps = self._end - self._begin, self._steps - self.warmup
        if steps <= 0 or seconds <= 0:
            return {"samples_per_s": 0.0, "steps_per_s": 0.0, "waiting": 0.0}
        return {
            "samples_per_s": self._samples / seconds,
            "steps_per_s": steps / seconds,
            "waiting": min(1.0, self._waited / seconds),
        }
