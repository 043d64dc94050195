"""What accumulators of whole numbers share: sums are exact, so no batching changes a bit."""

from abc import ABC, abstractmethod

from jaxtyping import Int64
from torch import Tensor

from medkit._core import check

Options = dict[str, object]


class SumAccumulator(ABC):
    """Whole numbers added up over everything seen so far."""

    def __init__(self) -> None:
        self._total: Tensor | None = None

    @property
    @abstractmethod
    def options(self) -> Options:
        """What the accumulator was made with, by name."""

    def merge(self, other: "SumAccumulator") -> None:
        """Add what another accumulator has seen, for instance that of another process.

        Args:
            other: One of the same kind and options; it is left as it is.

        Raises:
            TypeError: If ``other`` is of another kind.
            ValueError: If its options differ.
        """
        if type(other) is not type(self):
            raise TypeError(f"other must be a {type(self).__name__}; got {other!r}")
        if other.options != self.options:
            raise check.fail("other", f"made with {self.options}", f"{other.options}")
        if other.is_updated:
            self._add(other.total)

    def reset(self) -> None:
        """Forget everything."""
        self._total = None

    @property
    def is_updated(self) -> bool:
        """Whether there was an update since the start or the last reset."""
        return self._total is not None

    @property
    def total(self) -> Int64[Tensor, "..."]:
        """The sums kept so far, on the CPU.

        Raises:
            ValueError: If there was no update.
        """
        if self._total is None:
            raise check.fail(type(self).__name__, "updated before compute()", "nothing")
        return self._total

    def __repr__(self) -> str:
        """Return the options."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{type(self).__name__}({options})"

    def _add(self, counts: Tensor) -> None:
        counts = counts.cpu()
        self._total = counts if self._total is None else self._total + counts
