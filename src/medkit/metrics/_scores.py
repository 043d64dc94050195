"""Values per case and class that say what became of each structure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor

from medkit._core import check

Empty = Literal["skip", "perfect"]
Status = Literal["ok", "both_empty", "missed", "spurious"]

POLICY = (
    "mean over cases in each class, then over classes; a structure missed or invented counts with "
    "its worst value; {empty}"
)
EMPTY_POLICY = {
    "skip": "where truth and prediction are both empty, the case is left out of the class",
    "perfect": "where truth and prediction are both empty, the case is perfect",
}


STATUSES: tuple[Status, ...] = ("ok", "both_empty", "missed", "spurious")
"""What can become of a structure; ``Scores.status`` holds positions in this tuple."""


class Summary(NamedTuple):
    """Scores brought to one number, with the rule by which it was done.

    Attributes:
        mean: Mean of ``per_class`` over the classes that have a value; NaN if none has.
        per_class: Mean of each class; NaN where no case counts.
        counts: Number of cases in each class, by status.
        policy: The rule in words.
    """

    mean: float
    per_class: Float64[Tensor, " class"]
    counts: dict[Status, Int64[Tensor, " class"]]
    policy: str


@dataclass(frozen=True, eq=False)
class Scores:
    """One value and one status per case and class.

    Use it to look at single cases, and to report a mean that hides nothing. A missed structure
    has the worst value and always counts, so that missing one never improves a mean.

    Args:
        values: Score of each case (row) and class (column); NaN where there is nothing to score.
        status: What became of the structure: 0 "ok", both have it; 1 "both_empty", neither has
            it; 2 "missed", the truth alone has it; 3 "spurious", the prediction alone has it.
        classes: Class or channel of each column.
        perfect: The best value of this score.

    Example:
        >>> import torch
        >>> scores = dice_score(
        ...     torch.tensor([[0, 1, 1], [0, 0, 0]]), torch.tensor([[0, 1, 0], [0, 0, 2]]),
        ...     num_classes=3, include_background=False,
        ... )
        >>> scores.values
        tensor([[0.6667,    nan],
                [   nan, 0.0000]], dtype=torch.float64)
        >>> scores.is_status("missed")
        tensor([[False, False],
                [False,  True]])

    References:
        A. Reinke et al., "Understanding metric-related pitfalls in image analysis validation",
        Nature Methods 21, 2024.
    """

    values: Float64[Tensor, "case class"]
    status: UInt8[Tensor, "case class"]
    classes: tuple[int, ...]
    perfect: float = 1.0

    def is_status(self, status: Status) -> Bool[Tensor, "case class"]:
        """Return where a structure has a status.

        Args:
            status: "ok", "both_empty", "missed" or "spurious".
        """
        check.one_of("status", status, STATUSES)
        return self.status == STATUSES.index(status)

    def mean(self, *, empty: Empty = "skip") -> float:
        """Return the mean over cases in each class, then over classes.

        Args:
            empty: What a case counts where truth and prediction are both empty: "skip" leaves it
                out, "perfect" gives it the best value.
        """
        return self.summary(empty=empty).mean

    def summary(self, *, empty: Empty = "skip") -> Summary:
        """Return the means, the number of cases of each status, and the rule in words.

        Sums are exact, so that neither the order of cases nor their split changes a bit.

        Args:
            empty: What a case counts where truth and prediction are both empty: "skip" leaves it
                out, "perfect" gives it the best value.
        """
        check.one_of("empty", empty, ("skip", "perfect"))
        values = self.values.cpu()
        if empty == "perfect":
            values = torch.where(self.is_status("both_empty").cpu(), self.perfect, values)
        columns: list[list[float]] = [
            [float(value) for value in column if not value.isnan()] for column in values.unbind(1)
        ]
        per_class = [_exact_mean(column) for column in columns]
        mean = _exact_mean([value for value in per_class if not math.isnan(value)])
        counts: dict[Status, Tensor] = {
            status: self.is_status(status).sum(0).cpu() for status in STATUSES
        }
        return Summary(
            mean,
            torch.tensor(per_class, dtype=torch.float64),
            counts,
            POLICY.format(empty=EMPTY_POLICY[empty]),
        )


def _exact_mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
