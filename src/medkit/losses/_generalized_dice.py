"""Generalized Dice loss."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import Overlap

from ._overlap_loss import ABSENT, Absent, OverlapLoss, count, ratio_loss
from ._voxels import REDUCTIONS, Activation, Reduction, class_weights

WeightType = Literal["square", "simple", "uniform"]

POWERS: dict[WeightType, int] = {"square": 2, "simple": 1, "uniform": 0}
"""Of the inverse volume of a class."""


def generalized_dice_loss(
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
    weight_type: WeightType = "square",
) -> Float[Tensor, "..."]:
    r"""Return one minus the soft Dice coefficient of all classes together, small ones lifted.

    .. math::

        L_b = 1 - \frac{2 \sum_c w_{bc} \sum_v m\,p\,t + s}
            {\sum_c w_{bc} \left(\sum_v m\,p + \sum_v m\,t\right) + s}, \qquad
        w_{bc} \propto \frac{k_c}{\bigl(\sum_v m\,t\bigr)^2}, \qquad
        \sum_c w_{bc} \sum_v m\,t = \sum_c k_c \sum_v m\,t

    with probabilities :math:`p`, target :math:`t`, mask :math:`m`, smoothing :math:`s` and class
    weights :math:`k`, in each sample :math:`b`.

    Use it for classes of very unequal size that are to be judged in one ratio: a class weighs by
    the inverse of its volume, or of its square. Compare ``dice_loss``, the mean of one ratio per
    class.

    Only ratios of the weights :math:`w` matter to the paper's formula. Here they are scaled so
    that the target has the size it has, so that ``smooth`` is a number of voxels as in
    ``dice_loss``, and for a single class both are equal. Added to sums of raw weights, as in MONAI
    and medicai, a smoothing of 1e-5 outweighs any structure of more than about 1e5 voxels.

    Sums over voxels accumulate in float32, whatever the type of ``input``, or in float64 for a
    float64 input, and the loss has that type. With everything left out, of a sample or the batch,
    its part is 0 with gradient 0.

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
        absent: What becomes of a class without target voxels, whose weight has no limit: "ratio"
            gives it the weight of the smallest class that is there, as MONAI; "penalize" takes it
            out of the ratio and averages the classes, each that is there with the ratio, each that
            is not with its mean predicted probability; "skip" leaves it out.
        batch: Whether to sum voxels over the whole batch before the ratio, so that small patches
            without a class matter less. Default is one ratio per sample.
        smooth: Added above and below in the ratio, in voxels. Zero is allowed: an empty ratio
            counts as 1.
        reduction: "mean" is the mean over samples; "sum" adds them up; "none" returns them,
            ``(batch,)``, or one number with ``batch``.
        weight_type: How a class weighs by its volume :math:`V` in the target: "square"
            :math:`1 / V^2`, "simple" :math:`1 / V`, "uniform" all alike.

    Returns:
        The loss, zero for a perfect prediction and at most one ("mean").

    Raises:
        TypeError: If ``input`` is not floating point, a mask neither boolean nor floating point.
        ValueError: If shapes do not fit, a label is no class, or an option is unknown.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0, -4.0], [-4.0, -4.0, 4.0, 4.0]]])
        >>> print(f"{generalized_dice_loss(logits, torch.tensor([[0, 0, 1, 1]])):.4f}")
        0.0003
        >>> print(f"{generalized_dice_loss(logits, torch.tensor([[0, 0, 1, 0]])):.4f}")
        0.3127

    References:
        C. H. Sudre et al., "Generalised Dice Overlap as a Deep Learning Loss Function for Highly
        Unbalanced Segmentations", DLMIA, 2017, section 2. W. R. Crum, O. Camara, D. L. G. Hill,
        "Generalized Overlap Measures for Evaluation and Validation in Medical Image Analysis",
        IEEE TMI 25, 2006 (the other weights).
    """
    check.non_negative("smooth", smooth)
    counts = count(
        input, target, mask, activation=activation, ignore_index=ignore_index, batch=batch
    )
    weight = class_weights(class_weight, counts.predicted, include_background=include_background)
    return _reduce(counts, weight, absent, smooth, reduction, weight_type)


def _reduce(
    counts: Overlap,
    class_weight: Tensor,
    absent: Absent,
    smooth: float,
    reduction: Reduction,
    weight_type: WeightType,
) -> Tensor:
    """Treat classes without target voxels as ``absent`` says, and reduce over the rows."""
    check.one_of("absent", absent, ABSENT)
    check.one_of("reduction", reduction, REDUCTIONS)
    check.one_of("weight_type", weight_type, tuple(POWERS))
    present = counts.target > 0
    weight = class_weight if absent == "ratio" else class_weight * present
    loss = _ratio_of_all(counts, weight, smooth, POWERS[weight_type])
    counted = torch.ones_like(loss)
    if absent == "penalize":
        voxels = torch.where(counts.voxels == 0, 1.0, counts.voxels)
        each = torch.where(present, loss.unsqueeze(1), counts.predicted / voxels)
        loss = (each * class_weight).sum(1) / class_weight.sum()
    elif absent == "skip":
        counted = (weight > 0).any(1).to(loss.dtype)
        loss = loss * counted
    if reduction == "none":
        return loss
    total = loss.sum()
    return total if reduction == "sum" else total / counted.sum().clamp(min=1)


def _ratio_of_all(counts: Overlap, class_weight: Tensor, smooth: float, power: int) -> Tensor:
    """Return one minus the ratio of each row."""
    seen = (counts.target > 0) & (class_weight > 0)
    smallest = torch.where(seen, counts.target, torch.inf).amin(1, keepdim=True)
    share = torch.where(seen, smallest / torch.where(seen, counts.target, 1.0), 1.0)
    weight = class_weight * share**power
    wanted = (class_weight * counts.target).sum(1)
    found = (weight * counts.target).sum(1)
    scale = torch.where(found > 0, wanted / torch.where(found > 0, found, 1.0), 1.0)
    shared = (weight * counts.intersection).sum(1) * scale
    whole = (weight * (counts.predicted + counts.target)).sum(1) * scale
    return ratio_loss(2 * shared, whole, smooth)


class GeneralizedDiceLoss(OverlapLoss):
    """One minus the soft Dice coefficient of all classes together, small ones lifted.

    The module form of ``generalized_dice_loss``, whose documentation gives the formula and each
    rule. Beside losses with the same ``activation`` and ``ignore_index`` in a ``WeightedSum`` it
    shares their pass over the voxels.

    Args:
        activation: What makes probabilities of the input; None if it holds them already.
        include_background: Whether channel 0 has a part in the loss, after the activation.
        ignore_index: Label of voxels that do not count, any integer. None counts all.
        class_weight: Weight of each channel, of which only ratios matter. None weighs all the
            same. Kept as a buffer.
        absent: What becomes of a class without target voxels: the weight of the smallest class
            that is there in the "ratio", "penalize" its mean predicted probability, or "skip" it.
        batch: Whether to sum voxels over the whole batch before the ratio.
        smooth: Added above and below in the ratio, in voxels.
        reduction: Whether to return the "mean" over samples, the "sum", or "none": each value.
        weight_type: Whether a class weighs by the inverse "square" of its volume in the target,
            by its inverse, "simple", or "uniform".

    Example:
        >>> import torch
        >>> loss = GeneralizedDiceLoss(activation="sigmoid", absent="skip")
        >>> regions = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
        >>> print(f"{loss(torch.zeros(1, 2, 3), regions):.4f}")
        0.4286

    References:
        C. H. Sudre et al., "Generalised Dice Overlap as a Deep Learning Loss Function for Highly
        Unbalanced Segmentations", DLMIA, 2017, section 2. W. R. Crum, O. Camara, D. L. G. Hill,
        "Generalized Overlap Measures for Evaluation and Validation in Medical Image Analysis",
        IEEE TMI 25, 2006 (the other weights).
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
        weight_type: WeightType = "square",
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
        check.one_of("weight_type", weight_type, tuple(POWERS))
        self.weight_type: WeightType = weight_type

    def from_counts(self, counts: Overlap) -> Float[Tensor, "..."]:
        """Return the loss from the counts of each sample, or of the whole batch in one row.

        Args:
            counts: Overlap of prediction and target.
        """
        weight = class_weights(
            self.class_weight, counts.predicted, include_background=self.include_background
        )
        return _reduce(counts, weight, self.absent, self.smooth, self.reduction, self.weight_type)
