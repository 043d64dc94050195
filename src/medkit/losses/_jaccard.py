"""Jaccard loss."""

from collections.abc import Sequence

from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import Overlap

from ._overlap_loss import Absent, OverlapLoss, count, ratio_loss, reduce_classes
from ._voxels import Activation, Reduction


def jaccard_loss(
    input: Float[Tensor, "batch channel *spatial"],
    target: Shaped[Tensor, "batch ..."],
    *,
    mask: Shaped[Tensor, "batch ..."] | None = None,
    activation: Activation | None = "softmax",
    include_background: bool = True,
    ignore_index: int | None = None,
    class_weight: Sequence[float] | Tensor | None = None,
    absent: Absent = "ratio",
    batch: bool = False,
    smooth: float = 1e-5,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    r"""Return one minus the soft Jaccard index, averaged over samples and classes.

    .. math::

        L_{bc} = 1 - \frac{\sum_v m\,p\,t + s}{\sum_v m\,p + \sum_v m\,t - \sum_v m\,p\,t + s},
        \qquad L = \frac{\sum_{bc} k_c L_{bc}}{\sum_{bc} k_c}

    with probabilities :math:`p`, target :math:`t`, mask :math:`m`, smoothing :math:`s` and class
    weights :math:`k`, in each sample :math:`b` and class :math:`c`.

    Use it in place of a Dice loss where results are judged by intersection over union. With
    :math:`D` the Dice loss it is :math:`2D / (1 + D)` for a structure, without smoothing: both
    rank predictions alike, and this one has the steeper slope where they are nearly right.

    Sums over voxels accumulate in float32, whatever the type of ``input``, or in float64 for a
    float64 input, and the loss has that type. With everything left out, of a class, a sample or
    the batch, its part is 0 with gradient 0.

    Args:
        input: Logits, or probabilities if ``activation`` is None; at least two channels, or one
            with ``activation`` "sigmoid" or None.
        target: Class map of integers or booleans, ``(batch, *spatial)`` or
            ``(batch, 1, *spatial)``, or values in [0, 1] per channel, ``(batch, channel,
            *spatial)``: one-hot, multi-label or soft labels. For an input of one channel a class
            map says 1 for the structure and 0 for the rest.
        mask: Voxels that count, ``(batch, *spatial)`` or ``(batch, 1, *spatial)``: boolean, or
            weights of zero or more. Logits and targets where it is zero have no influence, even
            if NaN. None counts all.
        activation: What makes probabilities of ``input``; None if it holds them already.
        include_background: Whether channel 0 has a part in the loss. It is dropped after the
            activation.
        ignore_index: Label of voxels that do not count, any integer; needs a class map. If it is
            one of the classes, that class is absent from the target: see ``absent``. None counts
            all.
        class_weight: Weight of each channel of ``input``, the background's included, zero or
            more. Only ratios matter: weights are divided by their mean. None weighs all the same.
        absent: What a class without target voxels adds: "ratio" the formula above, as in other
            libraries, which is near 1 with next to no gradient; "penalize" its mean predicted
            probability, which has a gradient against false positives; "skip" nothing, and the
            mean is taken over the others.
        batch: Whether to sum voxels over the whole batch before the ratio, so that small patches
            without a class matter less. Default is one ratio per sample.
        smooth: Added above and below in the ratio, in voxels. Zero is allowed: an empty ratio
            counts as 1.
        reduction: "mean" is the weighted mean; "sum" adds up the weighted values; "none" returns
            them, ``(batch, channel)`` without a dropped background, and one row with ``batch``.

    Returns:
        The loss, zero for a perfect prediction and at most one ("mean").

    Raises:
        TypeError: If ``input`` is not floating point, a mask neither boolean nor floating point.
        ValueError: If shapes do not fit, a label is no class, or an option is unknown.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0, -4.0], [-4.0, -4.0, 4.0, 4.0]]])
        >>> print(f"{jaccard_loss(logits, torch.tensor([[0, 0, 1, 1]])):.4f}")
        0.0007
        >>> print(f"{jaccard_loss(logits, torch.tensor([[0, 0, 1, 0]])):.4f}")
        0.4169

    References:
        M. A. Rahman, Y. Wang, "Optimizing Intersection-over-Union in Deep Neural Networks for
        Image Segmentation", ISVC, 2016, section 3.
    """
    check.non_negative("smooth", smooth)
    counts = count(
        input, target, mask, activation=activation, ignore_index=ignore_index, batch=batch
    )
    return reduce_classes(
        _jaccard(counts, smooth),
        counts,
        include_background=include_background,
        class_weight=class_weight,
        absent=absent,
        reduction=reduction,
    )


def _jaccard(counts: Overlap, smooth: float) -> Tensor:
    """Return one minus the ratio of each row and class."""
    union = counts.predicted + counts.target - counts.intersection
    return ratio_loss(counts.intersection, union, smooth)


class JaccardLoss(OverlapLoss):
    """One minus the soft Jaccard index, averaged over samples and classes.

    The module form of ``jaccard_loss``, whose documentation gives the formula and each rule.
    Beside losses with the same ``activation`` and ``ignore_index`` in a ``WeightedSum`` it shares
    their pass over the voxels.

    Args:
        activation: What makes probabilities of the input; None if it holds them already.
        include_background: Whether channel 0 has a part in the loss, after the activation.
        ignore_index: Label of voxels that do not count, any integer. None counts all.
        class_weight: Weight of each channel, of which only ratios matter. None weighs all the
            same. Kept as a buffer.
        absent: What a class without target voxels adds: the plain "ratio", a "penalize" of its
            mean predicted probability, or nothing, "skip".
        batch: Whether to sum voxels over the whole batch before the ratio.
        smooth: Added above and below in the ratio, in voxels.
        reduction: Whether to return the weighted "mean", the "sum", or "none": each value.

    Example:
        >>> import torch
        >>> loss = JaccardLoss(activation="sigmoid", absent="skip")
        >>> regions = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
        >>> print(f"{loss(torch.zeros(1, 2, 3), regions):.4f}")
        0.6000

    References:
        M. A. Rahman, Y. Wang, "Optimizing Intersection-over-Union in Deep Neural Networks for
        Image Segmentation", ISVC, 2016, section 3.
    """

    def __init__(
        self,
        *,
        activation: Activation | None = "softmax",
        include_background: bool = True,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
        absent: Absent = "ratio",
        batch: bool = False,
        smooth: float = 1e-5,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            activation=activation,
            include_background=include_background,
            ignore_index=ignore_index,
            class_weight=class_weight,
            absent=absent,
            batch=batch,
            smooth=smooth,
            reduction=reduction,
        )

    def from_counts(self, counts: Overlap) -> Float[Tensor, "..."]:
        """Return the loss from the counts of each sample, or of the whole batch in one row.

        Args:
            counts: Overlap of prediction and target.
        """
        return reduce_classes(
            _jaccard(counts, self.smooth),
            counts,
            include_background=self.include_background,
            class_weight=self.class_weight,
            absent=self.absent,
            reduction=self.reduction,
        )
