"""Tversky loss."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import Overlap

from ._overlap_loss import Absent, OverlapLoss, count, ratio_loss, reduce_classes
from ._voxels import Activation, Reduction, can_look_at


def tversky_loss(
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
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float | Sequence[float] | Tensor = 1.0,
) -> Float[Tensor, "..."]:
    r"""Return one minus the soft Tversky index, averaged over samples and classes.

    .. math::

        L_{bc} = \left(1 - \frac{\sum_v m\,p\,t + s}{\sum_v m\,p\,t + \alpha \sum_v m\,p\,(1 - t)
        + \beta \sum_v m\,(1 - p)\,t + s}\right)^{\gamma_c}, \qquad
        L = \frac{\sum_{bc} k_c L_{bc}}{\sum_{bc} k_c}

    with probabilities :math:`p`, target :math:`t`, mask :math:`m`, smoothing :math:`s` and class
    weights :math:`k`, in each sample :math:`b` and class :math:`c`.

    Use it where a missed voxel costs more than a spurious one, or less: ``beta`` above ``alpha``
    asks for recall, ``alpha`` above ``beta`` for precision. With both at 0.5 it is the Dice loss
    of twice the smoothing, with both at 1 the Jaccard loss. Some programs swap the two names; here
    they are those of the paper and of MONAI.

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
        alpha: Weight of false positives, zero or more.
        beta: Weight of false negatives, zero or more.
        gamma: Exponent, above zero: one number, or one for each channel of ``input``. Below 1
            classes that are nearly right keep a larger slope (the paper's "focal" 4/3 is its
            inverse, 0.75, here), above 1 those that are far off (segmentation_models_pytorch).
            What ``absent`` puts in place of the ratio has no exponent.

    Returns:
        The loss, zero for a perfect prediction and at most one ("mean").

    Raises:
        TypeError: If ``input`` is not floating point, a mask neither boolean nor floating point.
        ValueError: If shapes do not fit, a label is no class, or an option is unknown.

    Example:
        >>> import torch
        >>> truth = torch.tensor([[1, 1, 1, 1, 0, 0]])
        >>> missed = torch.tensor([[[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]])
        >>> spurious = torch.tensor([[[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]])
        >>> options = {"activation": None, "alpha": 0.3, "beta": 0.7}
        >>> print(f"{tversky_loss(missed, truth, **options):.4f}")
        0.4118
        >>> print(f"{tversky_loss(spurious, truth, **options):.4f}")
        0.1304

    References:
        S. S. M. Salehi, D. Erdogmus, A. Gholipour, "Tversky Loss Function for Image Segmentation
        Using 3D Fully Convolutional Deep Networks", MLMI, 2017, equation 4. N. Abraham,
        N. M. Khan, "A Novel Focal Tversky Loss Function with Improved Attention U-Net for Lesion
        Segmentation", ISBI, 2019 (``gamma``).
    """
    check.non_negative("smooth", smooth)
    counts = count(
        input, target, mask, activation=activation, ignore_index=ignore_index, batch=batch
    )
    return reduce_classes(
        _tversky(counts, smooth, alpha, beta, gamma),
        counts,
        include_background=include_background,
        class_weight=class_weight,
        absent=absent,
        reduction=reduction,
    )


def _tversky(
    counts: Overlap,
    smooth: float,
    alpha: float,
    beta: float,
    gamma: float | Sequence[float] | Tensor,
) -> Tensor:
    """Return one minus the ratio of each row and class, to its power."""
    check.non_negative("alpha", alpha)
    check.non_negative("beta", beta)
    shared = counts.intersection
    whole = (1 - alpha - beta) * shared + alpha * counts.predicted + beta * counts.target
    return _power(ratio_loss(shared, whole, smooth), gamma)


def _power(loss: Tensor, gamma: float | Sequence[float] | Tensor) -> Tensor:
    """Return the loss to its power, 0 with slope 0 where it is 0 or rounding brings it below."""
    exponent: float | Tensor
    if isinstance(gamma, int | float):
        exponent = check.positive("gamma", gamma)
        if exponent == 1:
            return loss
    else:
        exponent = torch.as_tensor(gamma, dtype=loss.dtype, device=loss.device)
        if tuple(exponent.shape) != tuple(loss.shape[1:]):
            rule = f"one number, or one for each of the {loss.shape[1]} channels"
            raise check.fail("gamma", rule, f"shape {tuple(exponent.shape)}")
        if can_look_at(exponent) and not bool((exponent > 0).all()):
            raise check.fail("gamma", "positive", f"{gamma}")
    above = ~(loss <= 0)  # NaN included
    return torch.where(above, torch.where(above, loss, 1.0) ** exponent, 0.0)


class TverskyLoss(OverlapLoss):
    """One minus the soft Tversky index, averaged over samples and classes.

    The module form of ``tversky_loss``, whose documentation gives the formula and each rule.
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
        alpha: Weight of false positives, zero or more.
        beta: Weight of false negatives, zero or more.
        gamma: Exponent, above zero: one number, or one for each channel. A sequence is kept as a
            buffer.

    Example:
        >>> import torch
        >>> loss = TverskyLoss(activation="sigmoid", alpha=0.3, beta=0.7, gamma=0.75)
        >>> print(f"{loss(torch.zeros(1, 1, 4), torch.tensor([[1, 0, 0, 0]])):.4f}")
        0.6948

    References:
        S. S. M. Salehi, D. Erdogmus, A. Gholipour, "Tversky Loss Function for Image Segmentation
        Using 3D Fully Convolutional Deep Networks", MLMI, 2017, equation 4. N. Abraham,
        N. M. Khan, "A Novel Focal Tversky Loss Function with Improved Attention U-Net for Lesion
        Segmentation", ISBI, 2019 (``gamma``).
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
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float | Sequence[float] | Tensor = 1.0,
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
        self.alpha: float = check.non_negative("alpha", alpha)
        self.beta: float = check.non_negative("beta", beta)
        if isinstance(gamma, int | float):
            self.gamma: float | Tensor = check.positive("gamma", gamma)
        else:
            self.register_buffer("gamma", torch.as_tensor(gamma), persistent=False)

    def from_counts(self, counts: Overlap) -> Float[Tensor, "..."]:
        """Return the loss from the counts of each sample, or of the whole batch in one row.

        Args:
            counts: Overlap of prediction and target.
        """
        return reduce_classes(
            _tversky(counts, self.smooth, self.alpha, self.beta, self.gamma),
            counts,
            include_background=self.include_background,
            class_weight=self.class_weight,
            absent=self.absent,
            reduction=self.reduction,
        )
