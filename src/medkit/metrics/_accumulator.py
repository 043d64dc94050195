"""What every accumulator of cases shares: rows of numbers, merged and forgotten."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check

from ._scores import Scores

Options = dict[str, object]


class Accumulator(ABC):
    """A few numbers for every case and class seen so far.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that do not count.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        include_background: bool = True,
        ignore_index: int | None = None,
    ) -> None:
        if num_classes is not None:
            check.integer("num_classes", num_classes, minimum=1)
        self.num_classes = num_classes
        self.include_background = include_background
        self.ignore_index = ignore_index
        self._rows: list[Tensor] = []

    @abstractmethod
    def compute(self) -> Scores:
        """Return the scores of all cases seen so far, in the order they came in."""

    def merge(self, other: "Accumulator") -> None:
        """Add the cases of another accumulator, for instance that of another process, after ours.

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
        if other.num_cases:
            self._take(other.rows)

    def reset(self) -> None:
        """Forget all cases."""
        self._rows.clear()

    @property
    def num_cases(self) -> int:
        """Number of cases seen so far."""
        return sum(len(rows) for rows in self._rows)

    @property
    def rows(self) -> Shaped[Tensor, "case class number"]:
        """The numbers kept of each case and class, on the CPU."""
        return torch.cat([rows.cpu() for rows in self._rows])

    @property
    def options(self) -> Options:
        """What the accumulator was made with, by name."""
        return {
            "num_classes": self.num_classes,
            "include_background": self.include_background,
            "ignore_index": self.ignore_index,
        }

    def __repr__(self) -> str:
        """Return the options and the number of cases."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{type(self).__name__}({options}): {self.num_cases} cases"

    def _take(self, rows: Tensor) -> None:
        if self._rows and rows.shape[1] != self._rows[0].shape[1]:
            rule = f"of {self._rows[0].shape[1]} channels, as those before"
            raise check.fail("prediction", rule, f"{rows.shape[1]} channels")
        self._rows.append(rows)
