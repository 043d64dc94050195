"""Overlap and cross entropy of logits and target in one pass over the voxels."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check

from ._channel_scan import Formula, channel_terms, scan_channels
from ._chunks import wide_dtype
from ._class_scan import class_terms, scan_classes
from ._focal import focal, scan_focal
from ._overlap import Overlap

Activation = Literal["softmax", "sigmoid"]
Needs = Literal["both", "overlap", "cross_entropy"]


class VoxelScan(NamedTuple):
    """What one pass over the voxels gives.

    Attributes:
        overlap: Sums of probability and target per sample and channel; None if not needed.
        cross_entropy: Cross entropy of each voxel, not multiplied by the voxel's weight; None if
            not needed.
    """

    overlap: Overlap | None
    cross_entropy: Float[Tensor, "batch *spatial"] | None


def voxel_scan(
    input: Float[Tensor, "batch channel *spatial"],
    target: Shaped[Tensor, "batch ..."],
    *,
    activation: Activation | None = "softmax",
    weight: Shaped[Tensor, "batch *spatial"] | None = None,
    class_weight: Sequence[float]
    | Float[Tensor, " channel"]
    | Float[Tensor, "2 channel"]
    | None = None,
    label_smoothing: float = 0.0,
    gamma: float = 0.0,
    needs: Needs = "both",
) -> VoxelScan:
    r"""Return soft overlap per class and cross entropy per voxel, from one pass over the voxels.

    With probabilities :math:`p = \mathrm{activation}(x)`, voxel weights :math:`w`, class weights
    :math:`k`, targets :math:`t` and smoothed targets
    :math:`\tilde t = (1 - \varepsilon)\,t + \varepsilon / m`

    .. math::

        I_{bc} = \sum_v w\,p\,t, \quad P_{bc} = \sum_v w\,p, \quad T_{bc} = \sum_v w\,t, \quad
        H_b(v) = -\sum_c k_c\,\tilde t\,\log p

    with :math:`m` the number of channels; for a sigmoid, or a single channel, :math:`H` adds
    :math:`-\sum_c k_c\,(1 - \tilde t)\log(1 - p)` and :math:`m` is 2. With ``gamma`` each
    :math:`-\log q` has the factor :math:`(1 - q)^\gamma`.

    Use it to build losses. It is what Dice loss and cross entropy are made of: no one-hot tensor
    is built, nothing of the size of the input is kept for the backward pass but the input, and
    sums accumulate in float32, or in float64 for a float64 input. The result has that type.
    Gradients flow to ``input``, and to soft targets and weights that ask for them; they can be
    differentiated again.

    Args:
        input: Logits, or probabilities if ``activation`` is None. Where the weight is zero, any
            value, also NaN.
        target: Class index of each voxel, ``(batch, *spatial)`` of integers in
            ``[0, channel)``, or a value in [0, 1] per channel, of the shape of ``input``.
        activation: What turns ``input`` into probabilities; None if it holds probabilities.
        weight: How much each voxel counts, zero or more, boolean or floating point. None counts
            each voxel once.
        class_weight: Factor of each class in the cross entropy; None is one. For a sigmoid, or a
            single channel, there may be two rows: for the structure, and for what is outside.
        label_smoothing: Share of the target in the cross entropy that is spread over all classes.
        gamma: Exponent of the focal factor, zero or more; above zero without label smoothing.
        needs: Which of the results to make; one costs less than "both".

    Returns:
        The overlap and the cross entropy. Where the weight is zero the cross entropy is finite
        and has no meaning.

    Raises:
        ValueError: If ``activation`` or ``needs`` is unknown, or ``gamma`` or a second row of
            ``class_weight`` is not for this case.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.0, 3.0], [0.0, -3.0]]])
        >>> scan = voxel_scan(logits, torch.tensor([[1, 0]]))
        >>> scan.overlap.intersection
        tensor([[0.9975, 0.5000]])
        >>> scan.cross_entropy.round(decimals=4)
        tensor([[0.6931, 0.0025]])
    """
    check.one_of("activation", activation, ("softmax", "sigmoid", None))
    check.one_of("needs", needs, ("both", "overlap", "cross_entropy"))
    if check.non_negative("gamma", gamma) and label_smoothing:
        raise check.fail("gamma", "0 with label smoothing", gamma)
    batch, channels = input.shape[:2]
    voxels = math.prod(input.shape[2:])
    wide = wide_dtype(input)
    x = input.reshape(batch, channels, voxels)
    t = target.reshape(x.shape if target.ndim == input.ndim else (batch, voxels))
    w = None if weight is None else weight.reshape(batch, voxels)
    k = None
    if class_weight is not None:
        k = torch.as_tensor(class_weight, dtype=wide, device=input.device)
        if k.ndim > 1 and channels > 1 and activation != "sigmoid":
            raise check.fail("class_weight", "one row for classes", f"shape {tuple(k.shape)}")
    if t.ndim < x.ndim and activation != "sigmoid":
        sums, entropy = _classes(x, t, w, k, label_smoothing, activation, needs, gamma)
    else:
        sums, entropy = _channels(x, t, w, k, label_smoothing, activation, needs, gamma)
    overlap, cross_entropy = None, None
    if needs != "cross_entropy":
        counted = x.new_full((batch, 1), voxels, dtype=wide)
        if w is not None:
            counted = w.sum(-1, keepdim=True, dtype=wide)
        overlap = Overlap(*sums, counted)
    if needs != "overlap":
        cross_entropy = entropy.reshape(batch, *input.shape[2:])
    return VoxelScan(overlap, cross_entropy)


def _needs_autograd(*tensors: Tensor | None) -> bool:
    """Return whether the plain formula is called for: to be compiled, or for other gradients."""
    return torch.compiler.is_compiling() or any(t is not None and t.requires_grad for t in tensors)


def _classes(
    x: Tensor,
    index: Tensor,
    weight: Tensor | None,
    factors: Tensor | None,
    smoothing: float,
    activation: Activation | None,
    needs: Needs,
    gamma: float,
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    spread = None
    if smoothing and needs != "overlap":
        spread = x.new_ones(x.shape[1], dtype=wide_dtype(x)) if factors is None else factors
    if activation is None or _needs_autograd(weight, spread):
        terms = class_terms(x, index, weight, spread, logits=activation == "softmax")
    else:
        terms = scan_classes(
            x,
            index,
            weight,
            spread,
            overlap=needs != "cross_entropy",
            likelihood=needs != "overlap",
        )
    entropy = terms.surprise
    if gamma and needs != "overlap":
        entropy = (focal if _needs_autograd() else scan_focal)(entropy, gamma)
    if factors is not None and needs != "overlap":
        entropy = entropy * factors[index]
    if spread is not None:
        entropy = (1 - smoothing) * entropy + smoothing / x.shape[1] * terms.spread
    return terms[:3], entropy


def _channels(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    factors: Tensor | None,
    smoothing: float,
    activation: Activation | None,
    needs: Needs,
    gamma: float,
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    kind = activation or ("classes" if x.shape[1] > 1 else "binary")
    formula = Formula(kind, factors, smoothing, gamma)
    if activation is None or _needs_autograd(target, weight, factors):
        terms = channel_terms(x, target, weight, formula)
    else:
        terms = scan_channels(
            x,
            target,
            weight,
            formula,
            overlap=needs != "cross_entropy",
            entropy=needs != "overlap",
        )
    return terms[:3], terms.cross_entropy
