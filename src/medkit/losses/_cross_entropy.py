"""Cross entropy."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import VoxelScan

from ._entropy_loss import (
    entropy_weights,
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

MILLIONTHS = 1_000_000
"""``top_k`` is counted in these, so that the number of voxels is exact."""


def cross_entropy_loss(
    input: Float[Tensor, "batch channel *spatial"],
    target: Shaped[Tensor, "batch ..."],
    *,
    mask: Shaped[Tensor, "batch ..."] | None = None,
    activation: Activation | None = "softmax",
    include_background: bool = True,
    ignore_index: int | None = None,
    class_weight: Sequence[float] | Tensor | None = None,
    label_smoothing: float = 0.0,
    top_k: float | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    r"""Return the cross entropy of target and prediction, averaged over voxels.

    .. math::

        L = \frac{\sum_v m_v \sum_c k_c\,\tilde t_{vc} \,(-\log p_{vc})}
            {\sum_v m_v \sum_c k_c\,t_{vc}}, \qquad
        \tilde t = (1 - \varepsilon)\,t + \varepsilon / C

    with probabilities :math:`p`, target :math:`t`, mask :math:`m`, class weights :math:`k` and
    label smoothing :math:`\varepsilon`. With a sigmoid, or a single channel, each channel is a
    decision of its own:

    .. math::

        L = \frac{\sum_v m_v \sum_c k_c \bigl(-\tilde t_{vc} \log p_{vc}
            - (1 - \tilde t_{vc}) \log(1 - p_{vc})\bigr)}{\sum_v m_v \sum_c k_c}, \qquad
        \tilde t = (1 - \varepsilon)\,t + \varepsilon / 2

    Use it as the loss of each voxel, alone or beside a loss on overlap. For class maps it equals
    ``torch.nn.functional.cross_entropy`` with its ``weight`` and ``label_smoothing``; for values
    per channel with weights it stays a weighted mean, where torch divides by the number of
    voxels.

    Sums over voxels accumulate in float32, whatever the type of ``input``, or in float64 for a
    float64 input, and the loss has that type. With every voxel left out it is 0 with gradient 0.

    Args:
        input: Logits, or probabilities if ``activation`` is None, which then sum to one over the
            channels, or are those of the structure for a single channel. Logits are exact where
            probabilities round to 0 or 1.
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
            more. Only ratios matter: weights are divided by their mean. With a softmax, voxels
            whose class has weight zero do not count. None weighs all the same.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1].
        top_k: Share of the counted voxels of the batch to keep, those of highest loss, in (0, 1];
            rounded down, at least one. Voxels tied for the last places share them. None keeps
            all.
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
        >>> print(f"{cross_entropy_loss(logits, labels, ignore_index=255):.4f}")
        0.4100
        >>> print(f"{cross_entropy_loss(logits, labels, ignore_index=255, top_k=0.5):.4f}")
        0.6931

    References:
        I. Goodfellow, Y. Bengio, A. Courville, "Deep Learning", MIT Press, 2016, equation 6.13.
        C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR, 2016,
        section 7 (label smoothing). Z. Wu, C. Shen, A. van den Hengel, "Bridging Category-level
        and Instance-level Semantic Image Segmentation", arXiv:1605.06885, 2016, section 4
        (``top_k``).
    """
    _check_options(reduction, top_k)
    voxels = as_voxels(input, target, mask, activation=activation, ignore_index=ignore_index)
    weight = entropy_weights(
        voxels, activation, class_weight, include_background=include_background
    )
    entropy = Entropy(weight, check.fraction("label_smoothing", label_smoothing))
    scan = scan_voxels(voxels, activation, entropy, overlap=False)
    return _reduce(voxels, cross_entropy_of(scan), weight, activation, top_k, reduction)


def _check_options(reduction: Reduction, top_k: float | None) -> None:
    check.one_of("reduction", reduction, REDUCTIONS)
    if top_k is not None and check.fraction("top_k", top_k) < 1 / MILLIONTHS:
        raise check.fail("top_k", "in (0, 1] or None", top_k)


def _reduce(
    voxels: Voxels,
    terms: Tensor,
    class_weight: Tensor | None,
    activation: Activation | None,
    top_k: float | None,
    reduction: Reduction,
) -> Tensor:
    terms, weights = weighted(voxels, terms, class_weight, activation)
    if top_k is not None:
        weights = torch.ones_like(terms) if weights is None else weights
        kept = _hardest(terms.detach(), weights, top_k)
        terms, weights = terms * kept, weights * kept
    return reduce_voxels(terms, weights, reduction)


def _hardest(loss: Tensor, weights: Tensor, top_k: float) -> Tensor:
    """Return one for each of the share of counted voxels of highest loss, ties shared evenly."""
    if not loss.numel():
        return weights
    counted = weights > 0
    number = counted.sum() * round(top_k * MILLIONTHS) // MILLIONTHS
    number = number.clamp(min=1)
    loss = torch.where(counted, loss, -torch.inf)
    if can_look_at(loss):
        threshold = loss.flatten().kthvalue(loss.numel() - int(number) + 1).values
    else:
        threshold = loss.flatten().sort(descending=True).values.take(number - 1)
    above, tied = loss > threshold, loss == threshold
    share = (number - above.sum()) / tied.sum()
    return torch.where(above, 1.0, torch.where(tied, share, 0.0)).to(loss.dtype)


class CrossEntropyLoss(VoxelLoss):
    """The cross entropy of target and prediction, averaged over voxels.

    The module form of ``cross_entropy_loss``, whose documentation gives the formula and each
    rule. Beside losses with the same ``activation`` and ``ignore_index`` in a ``WeightedSum`` it
    shares their pass over the voxels.

    Args:
        activation: What makes probabilities of the input; None if it holds them already.
        include_background: Whether channel 0 has a part in the loss, after the activation.
        ignore_index: Label of voxels that do not count, any integer. None counts all.
        class_weight: Weight of each channel, of which only ratios matter. None weighs all the
            same. Kept as a buffer.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1].
        top_k: Share of the counted voxels to keep, those of highest loss; None keeps all.
        reduction: Whether to return the weighted "mean", the "sum", or "none": each value.

    Example:
        >>> import torch
        >>> loss = CrossEntropyLoss(class_weight=(0.1, 1.0), ignore_index=-1)
        >>> print(f"{loss(torch.zeros(1, 2, 4), torch.tensor([[0, 1, 1, -1]])):.4f}")
        0.6931

    References:
        I. Goodfellow, Y. Bengio, A. Courville, "Deep Learning", MIT Press, 2016, equation 6.13;
        see ``cross_entropy_loss``.
    """

    def __init__(
        self,
        *,
        activation: Activation | None = "softmax",
        include_background: bool = True,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
        label_smoothing: float = 0.0,
        top_k: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            activation=activation,
            include_background=include_background,
            ignore_index=ignore_index,
            class_weight=class_weight,
            reduction=reduction,
        )
        _check_options(reduction, top_k)
        self.label_smoothing: float = check.fraction("label_smoothing", label_smoothing)
        self.top_k = top_k

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
        return cross_entropy_loss(
            input,
            target,
            mask=mask,
            activation=self.activation,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            top_k=self.top_k,
            reduction=self.reduction,
        )

    def entropy(self, voxels: Voxels) -> Entropy:
        """Return how the cross entropy of the pass over the voxels is wanted.

        Args:
            voxels: What the pass goes over.
        """
        weight = entropy_weights(
            voxels,
            self.activation,
            self.class_weight,
            include_background=self.include_background,
        )
        return Entropy(weight, self.label_smoothing)

    def from_scan(self, voxels: Voxels, scan: VoxelScan) -> Float[Tensor, "..."]:
        """Return the loss from a pass over the voxels.

        Args:
            voxels: What the pass went over.
            scan: Its result, with the cross entropy made as wanted.
        """
        return _reduce(
            voxels,
            cross_entropy_of(scan),
            self.entropy(voxels).class_weight,
            self.activation,
            self.top_k,
            self.reduction,
        )

    def rows(self, voxels: Voxels, scan: VoxelScan) -> Float[Tensor, "batch 2"]:
        """Return the sum over the voxels of each sample, and what they weigh in the mean.

        Args:
            voxels: What the pass went over.
            scan: Its result, with the cross entropy made as wanted.
        """
        if self.top_k is not None:
            raise check.fail("top_k", "None where the batch comes in pieces", self.top_k)
        terms, weight = cross_entropy_of(scan), self.entropy(voxels).class_weight
        return rows_of_voxels(*weighted(voxels, terms, weight, self.activation))

    def from_rows(self, rows: Float[Tensor, "batch 2"]) -> Float[Tensor, ""]:
        """Return the loss from the rows of all samples.

        Args:
            rows: As ``rows`` returns them, one below the other.
        """
        return reduce_rows(rows, self.reduction)
