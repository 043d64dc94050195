"""Centerline Dice loss."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import soft_skeletonize

from ._overlap_loss import Absent, ratio_loss, reduce_classes
from ._skeleton_loss import SkeletonLoss, as_channels, given_skeleton
from ._voxels import Activation, Reduction


def cldice_loss(
    input: Float[Tensor, "batch channel *spatial"],
    target: Shaped[Tensor, "batch ..."],
    *,
    mask: Shaped[Tensor, "batch ..."] | None = None,
    target_skeleton: Shaped[Tensor, "batch ..."] | None = None,
    activation: Activation | None = "softmax",
    include_background: bool = True,
    ignore_index: int | None = None,
    class_weight: Sequence[float] | Tensor | None = None,
    absent: Absent = "ratio",
    batch: bool = False,
    smooth: float = 1.0,
    reduction: Reduction = "mean",
    iterations: int = 10,
    skeleton_gradient: bool = True,
) -> Float[Tensor, "..."]:
    r"""Return one minus the soft centerline Dice, averaged over samples and classes.

    .. math::

        P = \frac{\sum_v m\,S(p)\,t + s}{\sum_v m\,S(p) + s}, \quad
        R = \frac{\sum_v m\,S(t)\,p + s}{\sum_v m\,S(t) + s}, \quad
        L_{bc} = 1 - \frac{2 P R}{P + R}, \quad L = \frac{\sum_{bc} k_c L_{bc}}{\sum_{bc} k_c}

    with probabilities :math:`p`, target :math:`t`, their soft skeletons :math:`S`, mask :math:`m`,
    smoothing :math:`s` and class weights :math:`k`, in each sample :math:`b` and class :math:`c`.

    Use it, added to a Dice loss, for tubes and sheets that must stay connected: a gap or a false
    branch costs by its length, not by its volume.

    A voxel that is masked or ignored is treated like one outside the image, by the skeletons too:
    leaving a slab out is the same as cropping it away. MONAI offers neither; medicai sets such
    voxels to background before it makes skeletons, so that they end structures there. To have
    that, set input and target to background yourself. MONAI sums over channels before its ratios.

    Sums accumulate in float32, whatever the type of ``input``, or in float64 for a float64 input,
    and the loss has that type.

    Args:
        input: Logits, or probabilities if ``activation`` is None, with two or three spatial axes.
        target: Class map of integers or booleans, ``(batch, *spatial)`` or
            ``(batch, 1, *spatial)``, or values in [0, 1] per channel, of the shape of ``input``.
        mask: Voxels that count, ``(batch, *spatial)`` or ``(batch, 1, *spatial)``: boolean, or
            weights of zero or more, which weigh the sums. None counts all.
        target_skeleton: Skeleton of each channel of the target, of the shape of ``input``, boolean
            or floating point, for example made once in the data loader. None makes it here.
        activation: What makes probabilities of ``input``; None if it holds them already.
        include_background: Whether channel 0 has a part in the loss. It is dropped after the
            activation, and no skeleton is made of it.
        ignore_index: Label of voxels that do not count; needs a class map. None counts all.
        class_weight: Weight of each channel of ``input``, the background's included, of which
            only ratios matter. None weighs all the same.
        absent: What a class without target voxels adds: the formula above ("ratio"), its mean
            predicted probability ("penalize"), or nothing ("skip").
        batch: Whether to sum over the whole batch before the ratios.
        smooth: Added above and below in :math:`P` and :math:`R`, in voxels. With zero an empty
            ratio counts as 1.
        reduction: "mean" is the weighted mean; "sum" adds up the weighted values; "none" returns
            them, ``(batch, channel)`` without a dropped background, and one row with ``batch``.
        iterations: How many erosions the skeletons go down; at least half the width, in voxels,
            of the thickest structure.
        skeleton_gradient: Whether a gradient flows through the skeleton of the prediction. Without
            it (the default of medicai, there called memory efficient) :math:`P` does not train:
            false branches get no gradient against them.

    Returns:
        The loss, zero for a perfect prediction and at most one ("mean").

    Raises:
        TypeError: If a tensor has the wrong type.
        ValueError: If shapes do not fit, a label is no class, or an option is unknown.

    Example:
        >>> import torch
        >>> line = torch.zeros(1, 5, 8, dtype=torch.int64)
        >>> line[:, 2] = 1
        >>> gap = line.clone()
        >>> gap[:, 2, 4] = 0
        >>> logits = 20.0 * torch.nn.functional.one_hot(gap).movedim(-1, 1)
        >>> print(f"{cldice_loss(logits, line, include_background=False):.4f}")
        0.0588

    References:
        S. Shit et al., "clDice - a Novel Topology-Preserving Loss Function for Tubular Structure
        Segmentation", CVPR, 2021, algorithm 2.
    """
    check.non_negative("smooth", smooth)
    channels = as_channels(
        input,
        target,
        mask,
        activation=activation,
        include_background=include_background,
        ignore_index=ignore_index,
    )
    p, t = channels.p, channels.target
    imagined = p if skeleton_gradient else p.detach()
    predicted = soft_skeletonize(imagined, iterations=iterations, mask=channels.inside)
    if target_skeleton is None:
        wanted = soft_skeletonize(t, iterations=iterations, mask=channels.inside)
    else:
        wanted = given_skeleton(target_skeleton, input, channels)
    sums = [channels.sums(v) for v in (predicted * t, predicted, wanted * p, wanted)]
    if batch:
        sums = [each.sum(0, keepdim=True) for each in sums]
    on_target, of_predicted, on_prediction, of_target = sums
    precision = 1 - ratio_loss(on_target, of_predicted, smooth)
    recall = 1 - ratio_loss(on_prediction, of_target, smooth)
    both = precision + recall
    return reduce_classes(
        1 - 2 * precision * recall / torch.where(both == 0, 1.0, both),
        channels.counts(batch=batch),
        include_background=include_background,
        class_weight=class_weight,
        absent=absent,
        reduction=reduction,
    )


class ClDiceLoss(SkeletonLoss):
    """One minus the soft centerline Dice, averaged over samples and classes.

    The module form of ``cldice_loss``, whose documentation gives the formula and each rule.

    Args:
        activation: What makes probabilities of the input; None if it holds them already.
        include_background: Whether channel 0 has a part in the loss, after the activation.
        ignore_index: Label of voxels that do not count, any integer. None counts all.
        class_weight: Weight of each channel, of which only ratios matter. None weighs all the
            same. Kept as a buffer.
        absent: What a class without target voxels adds: the plain "ratio", a "penalize" of its
            mean predicted probability, or nothing, "skip".
        batch: Whether to sum voxels over the whole batch before the ratios.
        smooth: Added above and below in each ratio, in voxels.
        reduction: Whether to return the weighted "mean", the "sum", or "none": each value.
        iterations: How many erosions the skeletons go down; at least half the width, in voxels,
            of the thickest structure.
        skeleton_gradient: Whether a gradient flows through the skeleton of the prediction; False
            is medicai's default, with which false branches get no gradient against them.

    Example:
        >>> import torch
        >>> loss = ClDiceLoss(activation="sigmoid", iterations=3)
        >>> tube = torch.zeros(1, 1, 5, 5, 9)
        >>> tube[..., 2, 2, :] = 1
        >>> print(f"{loss(20 * tube - 10, tube):.4f}")
        0.0000

    References:
        S. Shit et al., "clDice - a Novel Topology-Preserving Loss Function for Tubular Structure
        Segmentation", CVPR, 2021, algorithm 2.
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
        smooth: float = 1.0,
        reduction: Reduction = "mean",
        iterations: int = 10,
        skeleton_gradient: bool = True,
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
            iterations=iterations,
        )
        self.skeleton_gradient = skeleton_gradient

    def forward(
        self,
        input: Float[Tensor, "batch channel *spatial"],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
        target_skeleton: Shaped[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """Return the loss.

        Args:
            input: Logits, or probabilities if ``activation`` is None.
            target: Class map, or values per channel.
            mask: Voxels that count, boolean or weights; None counts all.
            target_skeleton: Skeleton of each channel of the target; None makes it here.
        """
        return cldice_loss(
            input,
            target,
            mask=mask,
            target_skeleton=target_skeleton,
            activation=self.activation,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            class_weight=self.class_weight,
            absent=self.absent,
            batch=self.batch,
            smooth=self.smooth,
            reduction=self.reduction,
            iterations=self.iterations,
            skeleton_gradient=self.skeleton_gradient,
        )
