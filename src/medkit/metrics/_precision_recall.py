"""Precision and recall."""

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from medkit.ops import hard_overlap

from ._overlap_score import OverlapScore, as_scores, stack_counts
from ._scores import Scores


def precision_score(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    *,
    num_classes: int | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    mask: Shaped[Tensor, "batch ..."] | None = None,
) -> Scores:
    r"""Return the precision of each case and class: how much of what was found is there.

    .. math:: \pi_{bc} = \frac{|P_{bc} \cap T_{bc}|}{|P_{bc}|}

    Use it beside recall to see whether errors are false alarms or misses. A structure
    that is missed or invented has 0, also where the ratio is 0/0, so that missing one never
    improves a mean; where truth and prediction are both empty the value is NaN.

    Args:
        prediction: Class map ``(batch, *spatial)`` or ``(batch, 1, *spatial)`` of integers, or
            boolean masks ``(batch, channel, *spatial)``, one per channel, which may overlap.
        target: Truth in the form of ``prediction``.
        num_classes: Number of classes of the maps; None for masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that do not count, whatever is predicted there; for
            class maps only. None counts all.
        mask: Voxels that count, boolean, ``(batch, *spatial)`` or ``(batch, 1, *spatial)``. None
            counts all.

    Returns:
        Values and statuses per case and class, in float64 from exact counts.

    Raises:
        TypeError: If a segmentation is neither of integers nor of booleans.
        ValueError: If shapes differ or a label is no class.

    Example:
        >>> import torch
        >>> truth = torch.tensor([[0, 1, 1, 2]])
        >>> precision_score(torch.tensor([[0, 1, 0, 0]]), truth, num_classes=3).values
        tensor([[0.3333, 1.0000, 0.0000]], dtype=torch.float64)

    References:
        C. J. van Rijsbergen, "Information Retrieval", 2nd edition, Butterworths 1979, chapter 7.
    """
    counts = stack_counts(
        hard_overlap(
            prediction, target, num_classes=num_classes, ignore_index=ignore_index, mask=mask
        )
    )
    return as_scores(counts, _share(counts, 1), include_background=include_background)


def recall_score(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    *,
    num_classes: int | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    mask: Shaped[Tensor, "batch ..."] | None = None,
) -> Scores:
    r"""Return the recall of each case and class: how much of what is there was found.

    .. math:: \rho_{bc} = \frac{|P_{bc} \cap T_{bc}|}{|T_{bc}|}

    Use it beside precision to see whether errors are misses or false alarms. A structure
    that is missed or invented has 0, also where the ratio is 0/0, so that missing one never
    improves a mean; where truth and prediction are both empty the value is NaN.

    Args:
        prediction: Class map ``(batch, *spatial)`` or ``(batch, 1, *spatial)`` of integers, or
            boolean masks ``(batch, channel, *spatial)``, one per channel, which may overlap.
        target: Truth in the form of ``prediction``.
        num_classes: Number of classes of the maps; None for masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that do not count, whatever is predicted there; for
            class maps only. None counts all.
        mask: Voxels that count, boolean, ``(batch, *spatial)`` or ``(batch, 1, *spatial)``. None
            counts all.

    Returns:
        Values and statuses per case and class, in float64 from exact counts.

    Raises:
        TypeError: If a segmentation is neither of integers nor of booleans.
        ValueError: If shapes differ or a label is no class.

    Example:
        >>> import torch
        >>> truth = torch.tensor([[0, 1, 1, 2]])
        >>> recall_score(torch.tensor([[0, 1, 0, 0]]), truth, num_classes=3).values
        tensor([[1.0000, 0.5000, 0.0000]], dtype=torch.float64)

    References:
        C. J. van Rijsbergen, "Information Retrieval", 2nd edition, Butterworths 1979, chapter 7.
    """
    counts = stack_counts(
        hard_overlap(
            prediction, target, num_classes=num_classes, ignore_index=ignore_index, mask=mask
        )
    )
    return as_scores(counts, _share(counts, 2), include_background=include_background)


def _share(counts: Int64[Tensor, "case class 3"], whole: int) -> Float64[Tensor, "case class"]:
    """Return the intersection as a share of the prediction (1) or the target (2); 0/0 is 0."""
    return counts[..., 0].to(torch.float64) / counts[..., whole].clamp(min=1)


class PrecisionScore(OverlapScore):
    """Precision over any number of batches.

    It keeps three integers per case and class, so that results are the same bit for bit however
    cases are batched or split over processes.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks, one per channel.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that do not count; None counts all.

    Example:
        >>> import torch
        >>> metric = PrecisionScore(2, include_background=False)
        >>> metric.update(torch.tensor([[0, 1, 1, 1]]), torch.tensor([[0, 0, 1, 1]]))
        >>> round(metric.compute().mean(), 4)
        0.6667

    References:
        C. J. van Rijsbergen, "Information Retrieval", 2nd edition, Butterworths 1979, chapter 7;
        see ``precision_score``.
    """

    def compute(self) -> Scores:
        """Return the scores of all cases seen so far, in the order they came in."""
        share = _share(self.counts, 1)
        return as_scores(self.counts, share, include_background=self.include_background)


class RecallScore(OverlapScore):
    """Recall over any number of batches.

    It keeps three integers per case and class, so that results are the same bit for bit however
    cases are batched or split over processes.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks, one per channel.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that do not count; None counts all.

    Example:
        >>> import torch
        >>> metric = RecallScore(2, include_background=False)
        >>> metric.update(torch.tensor([[0, 1, 1, 1]]), torch.tensor([[0, 0, 1, 1]]))
        >>> round(metric.compute().mean(), 4)
        1.0

    References:
        C. J. van Rijsbergen, "Information Retrieval", 2nd edition, Butterworths 1979, chapter 7;
        see ``recall_score``.
    """

    def compute(self) -> Scores:
        """Return the scores of all cases seen so far, in the order they came in."""
        share = _share(self.counts, 2)
        return as_scores(self.counts, share, include_background=self.include_background)
