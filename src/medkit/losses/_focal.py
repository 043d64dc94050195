"""Focal loss."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import VoxelScan

from ._entropy_loss import (
    entropy_weights,
    is_binary,
    reduce_rows,
    reduce_voxels,
    rows_of_voxels,
    weighted,
)
from ._voxel_loss import Entropy, VoxelLoss, cross_entropy_of, scan_voxels
from ._voxels import (
    REDUCTIONS,
    Activation,
    Reduction,
    Voxels,
    as_voxels,
    can_look_at,
)


def focal_loss(
    input: Float[Tensor, "batch channel *spatial"],
    target: Shaped[Tensor, "batch ..."],
    *,
    mask: Shaped[Tensor, "batch ..."] | None = None,
    activation: Activation | None = "softmax",
    include_background: bool = True,
    ignore_index: int | None = None,
    class_weight: Sequence[float] | Tensor | None = None,
    gamma: float = 2.0,
    alpha: float | Sequence[float] | Tensor | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    r"""Return the cross entropy with less weight on what is predicted well, averaged over voxels.

    .. math::

        L = \frac{\sum_v m_v \sum_c k_c\,\alpha_c\,t_{vc}\,(1 - p_{vc})^\gamma (-\log p_{vc})}
            {\sum_v m_v \sum_c k_c\,t_{vc}}

    with probabilities :math:`p`, target :math:`t`, mask :math:`m` and class weights :math:`k`.
    With a sigmoid, or a single channel, each channel is a decision of its own:

    .. math::

        L = \frac{\sum_v m_v \sum_c k_c \bigl(
            \alpha_c\,t_{vc}\,(1 - p_{vc})^\gamma (-\log p_{vc})
            + (1 - \alpha_c)(1 - t_{vc})\,p_{vc}^\gamma (-\log (1 - p_{vc}))\bigr)}
            {\sum_v m_v \sum_c k_c}

    without the factors :math:`\alpha_c` and :math:`1 - \alpha_c` if ``alpha`` is None.

    Use it in place of a cross entropy where most voxels are easy and would drown the others, alone
    or beside a loss on overlap. With ``gamma`` 0 and no ``alpha`` it is the cross entropy. The
    mean is over voxels; MONAI divides by the channels too.

    Sums over voxels accumulate in float32, whatever the type of ``input``, or in float64 for a
    float64 input, and the loss has that type. With every voxel left out it is 0 with gradient 0.

    Args:
        input: Logits, or probabilities if ``activation`` is None, which then sum to one over the
            channels, or are those of the structure for a single channel.
        target: Class map of integers or booleans, ``(batch, *spatial)`` or
            ``(batch, 1, *spatial)``, or values in [0, 1] per channel, ``(batch, channel,
            *spatial)``: one-hot, multi-label or soft labels. For an input of one channel a class
            map says 1 for the structure and 0 for the rest.
        mask: Voxels that count, ``(batch, *spatial)`` or ``(batch, 1, *spatial)``: boolean, or
            weights of zero or more. Logits and targets where it is zero have no influence, even
            if NaN. None counts all.
        activation: What makes probabilities of ``input``; None if it holds them already.
        include_background: Whether channel 0 has a part in the loss. It is dropped after the
            activation, as if its class weight were 0: with a softmax, voxels of background do not
            count then, and false positives there go unpunished.
        ignore_index: Label of voxels that do not count, any integer; needs a class map. None
            counts all.
        class_weight: Weight of each channel of ``input``, the background's included, zero or
            more. Only ratios matter: weights are divided by their mean. None weighs all the same.
        gamma: Exponent, zero or more. The larger, the less a voxel counts that is predicted well.
        alpha: Share, in [0, 1], of the structures against what is outside, which makes the loss
            smaller, as in the paper: one number, or one for each channel of ``input``. One number
            under a softmax is for every channel but the background's, which has one minus it.
            None has no such factor.
        reduction: "mean" is the weighted mean; "sum" adds up the weighted values of the voxels;
            "none" returns them, ``(batch, *spatial)``, zero where a voxel does not count. With a
            sigmoid the value of a voxel is the weighted mean over its channels.

    Returns:
        The loss, zero or more.

    Raises:
        TypeError: If ``input`` is not floating point, a mask neither boolean nor floating point.
        ValueError: If shapes do not fit, a label is no class, or an option is unknown.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]])
        >>> labels = torch.tensor([[0, 1, 255]])
        >>> print(f"{focal_loss(logits, labels, ignore_index=255, gamma=0.0):.4f}")
        0.4100
        >>> print(f"{focal_loss(logits, labels, ignore_index=255):.4f}")
        0.0875

    References:
        T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar, "Focal Loss for Dense Object
        Detection", ICCV, 2017, equations 4 and 5.
    """
    check.one_of("reduction", reduction, REDUCTIONS)
    voxels = as_voxels(input, target, mask, activation=activation, ignore_index=ignore_index)
    weight = entropy_weights(
        voxels, activation, class_weight, include_background=include_background
    )
    entropy = _entropy(voxels, activation, weight, gamma, alpha)
    terms = cross_entropy_of(scan_voxels(voxels, activation, entropy, overlap=False))
    return reduce_voxels(*weighted(voxels, terms, weight, activation), reduction)


def _entropy(
    voxels: Voxels,
    activation: Activation | None,
    weight: Tensor | None,
    gamma: float,
    alpha: float | Sequence[float] | Tensor | None,
) -> Entropy:
    """Return how the cross entropy is made: modulated, and multiplied by weight and ``alpha``."""
    check.non_negative("gamma", gamma)
    if alpha is None:
        return Entropy(weight, gamma=gamma)
    binary = is_binary(voxels, activation)
    shares = _shares(alpha, voxels.input, background=not binary)
    if binary:
        shares = torch.stack([shares, 1 - shares])
    return Entropy(shares if weight is None else shares * weight, gamma=gamma)


def _shares(alpha: float | Sequence[float] | Tensor, like: Tensor, *, background: bool) -> Tensor:
    """Return ``alpha`` of each channel, one minus it for channel 0 if that is a background."""
    channels = like.shape[1]
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    if isinstance(alpha, int | float):
        check.fraction("alpha", alpha)
        shares = like.new_full((channels,), alpha, dtype=dtype)
        return torch.cat([1 - shares[:1], shares[1:]]) if background else shares
    shares = torch.as_tensor(alpha, dtype=dtype, device=like.device)
    if tuple(shares.shape) != (channels,):
        rule = f"one number, or one for each of the {channels} channels"
        raise check.fail("alpha", rule, f"shape {tuple(shares.shape)}")
    if can_look_at(shares) and not bool(((shares >= 0) & (shares <= 1)).all()):
        raise check.fail("alpha", "in [0, 1]", f"{alpha}")
    return shares


class FocalLoss(VoxelLoss):
    """The cross entropy with less weight on what is predicted well, averaged over voxels.

    The module form of ``focal_loss``, whose documentation gives the formula and each rule. Beside
    losses on overlap with the same ``activation`` and ``ignore_index`` in a ``WeightedSum`` it
    shares their pass over the voxels.

    Args:
        activation: What makes probabilities of the input; None if it holds them already.
        include_background: Whether channel 0 has a part in the loss, after the activation.
        ignore_index: Label of voxels that do not count, any integer. None counts all.
        class_weight: Weight of each channel, of which only ratios matter. None weighs all the
            same. Kept as a buffer.
        gamma: Exponent, zero or more: the larger, the less a voxel counts that is predicted well.
        alpha: Share of the structures against what is outside, in [0, 1]: one number, or one for
            each channel, kept as a buffer. None has no such factor.
        reduction: Whether to return the weighted "mean", the "sum", or "none": each value.

    Example:
        >>> import torch
        >>> loss = FocalLoss(activation="sigmoid", alpha=0.25)
        >>> print(f"{loss(torch.zeros(1, 1, 4), torch.tensor([[1, 0, 0, 0]])):.4f}")
        0.1083

    References:
        T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar, "Focal Loss for Dense Object
        Detection", ICCV, 2017, equations 4 and 5; see ``focal_loss``.
    """

    def __init__(
        self,
        *,
        activation: Activation | None = "softmax",
        include_background: bool = True,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | Tensor | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            activation=activation,
            include_background=include_background,
            ignore_index=ignore_index,
            class_weight=class_weight,
            reduction=reduction,
        )
        self.gamma: float = check.non_negative("gamma", gamma)
        if alpha is None or isinstance(alpha, int | float):
            self.alpha: float | Tensor | None = alpha if alpha is None else float(alpha)
        else:
            self.register_buffer("alpha", torch.as_tensor(alpha), persistent=False)

    def forward(
        self,
        input: Float[Tensor, "batch channel *spatial"],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """Return the loss.

        Args:
            input: Logits, or probabilities if ``activation`` is None.
            target: Class map, or values per channel.
            mask: Voxels that count, boolean or weights; None counts all.
        """
        return focal_loss(
            input,
            target,
            mask=mask,
            activation=self.activation,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            class_weight=self.class_weight,
            gamma=self.gamma,
            alpha=self.alpha,
            reduction=self.reduction,
        )

    def entropy(self, voxels: Voxels) -> Entropy:
        """Return how the cross entropy of the pass over the voxels is wanted.

        Args:
            voxels: What the pass goes over.
        """
        return _entropy(voxels, self.activation, self._weight(voxels), self.gamma, self.alpha)

    def from_scan(self, voxels: Voxels, scan: VoxelScan) -> Float[Tensor, "..."]:
        """Return the loss from a pass over the voxels.

        Args:
            voxels: What the pass went over.
            scan: Its result, with the cross entropy made as wanted.
        """
        return reduce_voxels(*self._weighted(voxels, scan), self.reduction)

    def rows(self, voxels: Voxels, scan: VoxelScan) -> Float[Tensor, "batch 2"]:
        """Return the sum over the voxels of each sample, and what they weigh in the mean.

        Args:
            voxels: What the pass went over.
            scan: Its result, with the cross entropy made as wanted.
        """
        return rows_of_voxels(*self._weighted(voxels, scan))

    def from_rows(self, rows: Float[Tensor, "batch 2"]) -> Float[Tensor, ""]:
        """Return the loss from the rows of all samples.

        Args:
            rows: As ``rows`` returns them, one below the other.
        """
        return reduce_rows(rows, self.reduction)

    def _weight(self, voxels: Voxels) -> Tensor | None:
        return entropy_weights(
            voxels,
            self.activation,
            self.class_weight,
            include_background=self.include_background,
        )

    def _weighted(self, voxels: Voxels, scan: VoxelScan) -> tuple[Tensor, Tensor | None]:
        terms = cross_entropy_of(scan)
        return weighted(voxels, terms, self._weight(voxels), self.activation)
