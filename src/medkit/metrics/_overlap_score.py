"""Accumulation of voxel counts per case, and scores made of them."""

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from medkit.ops import Overlap, hard_overlap

from ._accumulator import Accumulator
from ._scores import STATUSES, Scores


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


class OverlapScore(Accumulator):
    """Voxel counts of every case seen so far: three integers per case and class."""

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

    @property
    def counts(self) -> Int64[Tensor, "case class 3"]:
        """Voxels of intersection, prediction and target of each case and class."""
        if not self.num_cases:
            return torch.zeros(0, self.num_classes or 0, 3, dtype=torch.int64)
        return self.rows
