"""Accumulation of voxel counts per case, and scores made of them."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from medkit._core import check
from medkit.metrics._scores import STATUSES, Scores
from medkit.ops import Overlap, hard_overlap


def as_scores(
    counts: Int64[Tensor, "case class 3"],
    values: Float64[Tensor, "case class"],
    *,
    include_background: bool,
) -> Scores:
    """Return values made of counts with the status of each, NaN where both are empty.

    ``counts`` are voxels of intersection, prediction and target.
    """
    _, predicted, target = counts.unbind(-1)
    status = torch.full_like(target, STATUSES.index("ok"), dtype=torch.uint8)
    both_empty = (predicted == 0) & (target == 0)
    status[both_empty] = STATUSES.index("both_empty")
    status[(predicted == 0) & (target > 0)] = STATUSES.index("missed")
    status[(predicted > 0) & (target == 0)] = STATUSES.index("spurious")
    values = torch.where(both_empty, torch.nan, values)
    first = 0 if include_background else 1
    return Scores(values[:, first:], status[:, first:], tuple(range(first, values.shape[1])))


def stack_counts(overlap: Overlap) -> Int64[Tensor, "case class 3"]:
    """Return intersection, prediction and target along a last axis."""
    return torch.stack([overlap.intersection, overlap.predicted, overlap.target], dim=-1)


class OverlapScore(ABC):
    """Voxel counts of every case seen so far: three integers per case and class.

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
        self._counts: list[Tensor] = []

    @abstractmethod
    def compute(self) -> Scores:
        """Return the scores of all cases seen so far, in the order they came in."""

    def update(
        self,
        prediction: Shaped[Tensor, "batch ..."],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> None:
        """Count the voxels of a batch of cases.

        Args:
            prediction: Class map ``(batch, *spatial)`` or ``(batch, 1, *spatial)`` of integers,
                or boolean masks ``(batch, channel, *spatial)``.
            target: Truth in the form of ``prediction``.
            mask: Voxels that count, boolean; None counts all.
        """
        overlap = hard_overlap(
            prediction,
            target,
            num_classes=self.num_classes,
            ignore_index=self.ignore_index,
            mask=mask,
        )
        self._take(stack_counts(overlap))

    def merge(self, other: "OverlapScore") -> None:
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
            self._take(other.counts)

    def reset(self) -> None:
        """Forget all cases."""
        self._counts.clear()

    @property
    def num_cases(self) -> int:
        """Number of cases seen so far."""
        return sum(len(counts) for counts in self._counts)

    def __repr__(self) -> str:
        """Return the options and the number of cases."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{type(self).__name__}({options}): {self.num_cases} cases"

    @property
    def counts(self) -> Int64[Tensor, "case class 3"]:
        """Voxels of intersection, prediction and target of each case and class."""
        if not self._counts:
            return torch.zeros(0, self.num_classes or 0, 3, dtype=torch.int64)
        return torch.cat([counts.cpu() for counts in self._counts])

    @property
    def options(self) -> dict[str, int | bool | None]:
        """What the accumulator was made with, by name."""
        return {
            "num_classes": self.num_classes,
            "include_background": self.include_background,
            "ignore_index": self.ignore_index,
        }

    def _take(self, counts: Tensor) -> None:
        if self._counts and counts.shape[1] != self._counts[0].shape[1]:
            rule = f"of {self._counts[0].shape[1]} channels, as those before"
            raise check.fail("prediction", rule, f"{counts.shape[1]} channels")
        self._counts.append(counts)
