"""Skeleton recall loss."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import soft_erode, soft_skeletonize

from ._overlap_loss import Absent, ratio_loss, reduce_classes
from ._skeleton_loss import Channels, SkeletonLoss, as_channels, given_skeleton
from ._voxels import Activation, Reduction


def skeleton_recall_loss(
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
    tube_radius: int = 2,
) -> Float[Tensor, "..."]:
    r"""Return one minus the recall of probabilities on the target's skeleton, thickened to tubes.

    .. math::

        L_{bc} = 1 - \frac{\sum_v m\,p\,Y + s}{\sum_v m\,Y + s}, \qquad
        Y = \min(t, D^r(S(t))), \qquad L = \frac{\sum_{bc} k_c L_{bc}}{\sum_{bc} k_c}

    with probabilities :math:`p`, target :math:`t`, its skeleton :math:`S(t)`, :math:`r` dilations
    :math:`D` by the neighbours along each axis, mask :math:`m`, smoothing :math:`s` and class
    weights :math:`k`, in each sample :math:`b` and class :math:`c`.

    Use it, added to a Dice loss, to keep thin structures connected at next to no cost: no skeleton
    is made of the prediction. It says nothing about false positives; the other loss must.

    The paper makes the skeleton by thinning, which keeps it connected, of all foreground classes
    together; for that, pass ``target_skeleton``, for example ``skimage.morphology.skeletonize`` of
    the label times each class. The default is the soft skeleton of each class, whose small gaps
    the tubes close. Masked and ignored voxels are treated like those outside the image. The paper
    leaves the constant one out.

    Args:
        input: Logits, or probabilities if ``activation`` is None, with two or three spatial axes.
        target: Class map of integers or booleans, ``(batch, *spatial)`` or
            ``(batch, 1, *spatial)``, or values in [0, 1] per channel, of the shape of ``input``.
        mask: Voxels that count, ``(batch, *spatial)`` or ``(batch, 1, *spatial)``: boolean, or
            weights of zero or more, which weigh the sums. None counts all.
        target_skeleton: Skeleton :math:`S(t)` of each channel, of the shape of ``input``, boolean
            or floating point. None makes it here.
        activation: What makes probabilities of ``input``; None if it holds them already.
        include_background: Whether channel 0 has a part in the loss; the paper leaves it out. It
            is dropped after the activation, and no skeleton is made of it.
        ignore_index: Label of voxels that do not count; needs a class map. None counts all.
        class_weight: Weight of each channel of ``input``, the background's included, of which
            only ratios matter. None weighs all the same.
        absent: What a class without target voxels adds: the formula above ("ratio"), which is 0,
            its mean predicted probability ("penalize"), or nothing ("skip").
        batch: Whether to sum over the whole batch before the ratio.
        smooth: Added above and below in the ratio, in voxels. With zero an empty ratio counts
            as 1.
        reduction: "mean" is the weighted mean; "sum" adds up the weighted values; "none" returns
            them, ``(batch, channel)`` without a dropped background, and one row with ``batch``.
        iterations: How many erosions the skeleton goes down; at least half the width, in voxels,
            of the thickest structure.
        tube_radius: How many voxels the skeleton is thickened by on each side; 0 leaves it.

    Returns:
        The loss, zero where the prediction covers all tubes and at most one ("mean").

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
        >>> print(f"{skeleton_recall_loss(logits, line, include_background=False):.4f}")
        0.1111

    References:
        Y. Kirchhoff et al., "Skeleton Recall Loss for Connectivity Conserving and Resource
        Efficient Segmentation of Thin Tubular Structures", ECCV, 2024, section 3.
    """
    check.non_negative("smooth", smooth)
    check.integer("tube_radius", tube_radius, minimum=0)
    channels = as_channels(
        input,
        target,
        mask,
        activation=activation,
        include_background=include_background,
        ignore_index=ignore_index,
    )
    if target_skeleton is None:
        skeleton = soft_skeletonize(channels.target, iterations=iterations, mask=channels.inside)
    else:
        check.integer("iterations", iterations, minimum=0)
        skeleton = given_skeleton(target_skeleton, input, channels)
    tube = _tube(skeleton, channels, tube_radius)
    found, all_of_it = channels.sums(channels.p * tube), channels.sums(tube)
    if batch:
        found, all_of_it = found.sum(0, keepdim=True), all_of_it.sum(0, keepdim=True)
    return reduce_classes(
        ratio_loss(found, all_of_it, smooth),
        channels.counts(batch=batch),
        include_background=include_background,
        class_weight=class_weight,
        absent=absent,
        reduction=reduction,
    )


def _tube(skeleton: Tensor, channels: Channels, radius: int) -> Tensor:
    """Return the skeleton thickened inside the target."""
    if skeleton.dtype == torch.bool and channels.target.dtype == torch.bool:
        for _ in range(radius):
            skeleton = ~soft_erode(~skeleton)
            skeleton = skeleton if channels.inside is None else skeleton & channels.inside
        return skeleton & channels.target
    skeleton, target = skeleton.to(channels.p.dtype), channels.target.to(channels.p.dtype)
    for _ in range(radius):
        skeleton = -soft_erode(-skeleton)
        skeleton = skeleton if channels.inside is None else skeleton * channels.inside
    return torch.minimum(skeleton, target)


class SkeletonRecallLoss(SkeletonLoss):
    """One minus the recall of probabilities on the target's skeleton, thickened to tubes.

    The module form of ``skeleton_recall_loss``, whose documentation gives the formula and each
    rule.

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
        iterations: How many erosions the skeleton goes down; at least half the width, in voxels,
            of the thickest structure.
        tube_radius: How many voxels the skeleton is thickened by on each side; 0 leaves it.

    Example:
        >>> import torch
        >>> loss = SkeletonRecallLoss(activation="sigmoid")
        >>> tube = torch.zeros(1, 1, 5, 5, 9)
        >>> tube[..., 2, 2, :] = 1
        >>> print(f"{loss(20 * tube - 10, tube):.4f}")
        0.0000

    References:
        Y. Kirchhoff et al., "Skeleton Recall Loss for Connectivity Conserving and Resource
        Efficient Segmentation of Thin Tubular Structures", ECCV, 2024, section 3.
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
        tube_radius: int = 2,
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
        self.tube_radius: int = check.integer("tube_radius", tube_radius, minimum=0)

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
        return skeleton_recall_loss(
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
            tube_radius=self.tube_radius,
        )
