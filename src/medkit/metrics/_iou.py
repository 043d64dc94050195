"""Intersection over union."""

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from medkit.ops import hard_overlap

from ._overlap_score import OverlapScore, as_scores, stack_counts
from ._scores import Scores


def iou_score(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    *,
    num_classes: int | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    mask: Shaped[Tensor, "batch ..."] | None = None,
) -> Scores:
    r"""Return intersection over union of each case and class, and what became of the structure.

    .. math:: J_{bc} = \frac{|P_{bc} \cap T_{bc}|}{|P_{bc} \cup T_{bc}|}

    Use it to judge segmentations. It takes decisions, not probabilities: ``logits.argmax(1)`` for
    classes, ``logits > 0`` for masks. A structure that is missed or invented has 0; where truth
    and prediction are both empty the value is NaN, and the mean says how it counts.

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
        >>> scores = iou_score(torch.tensor([[0, 1, 0, 0]]), truth, num_classes=3)
        >>> scores.values
        tensor([[0.3333, 0.5000, 0.0000]], dtype=torch.float64)
        >>> round(scores.mean(), 4)
        0.2778

    References:
        P. Jaccard, "The Distribution of the Flora in the Alpine Zone", New Phytologist 11, 1912.
    """
    counts = stack_counts(
        hard_overlap(
            prediction, target, num_classes=num_classes, ignore_index=ignore_index, mask=mask
        )
    )
    return as_scores(counts, _iou(counts), include_background=include_background)


def _iou(counts: Int64[Tensor, "case class 3"]) -> Float64[Tensor, "case class"]:
    intersection, predicted, target = counts.to(torch.float64).unbind(-1)
    return intersection / (predicted + target - intersection)


class IoUScore(OverlapScore):
    """Intersection over union over any number of batches.

    It keeps three integers per case and class, so that results are the same bit for bit however
    cases are batched or split over processes: gather the accumulators, they pickle, and ``merge``
    them.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks, one per channel.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that do not count; None counts all.

    Example:
        >>> import torch
        >>> metric = IoUScore(2, include_background=False)
        >>> metric.update(torch.tensor([[0, 1, 1, 1]]), torch.tensor([[0, 0, 1, 1]]))
        >>> metric.update(torch.tensor([[0, 0, 0, 0]]), torch.tensor([[0, 0, 0, 1]]))
        >>> metric.compute().values.squeeze(1)
        tensor([0.6667, 0.0000], dtype=torch.float64)
        >>> round(metric.compute().mean(), 4)
        0.3333

    References:
        P. Jaccard, "The Distribution of the Flora in the Alpine Zone", New Phytologist 11, 1912;
        see ``iou_score``.
    """

    def compute(self) -> Scores:
        """Return the scores of all cases seen so far, in the order they came in."""
        return as_scores(self.counts, _iou(self.counts), include_background=self.include_background)
