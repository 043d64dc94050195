"""Overlap and cross entropy of probabilities against one value per channel."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from medkit.ops._chunks import Context, chunks, counted, gradient_of, num_chunks, wide_dtype


class ChannelTerms(NamedTuple):
    """Sums per sample and channel, and the cross entropy per voxel."""

    intersection: Tensor
    predicted: Tensor
    target: Tensor
    cross_entropy: Tensor


class Formula(NamedTuple):
    """What the terms are made with.

    ``kind`` is the activation; ``classes`` and ``binary`` take probabilities that sum to one over
    the channels, or that are one decision each.
    """

    kind: str
    factors: Tensor | None
    smoothing: float


def channel_terms(
    x: Tensor, target: Tensor, weight: Tensor | None, formula: Formula
) -> ChannelTerms:
    """Return the terms in plain differentiable operations.

    Args:
        x: Logits, or probabilities, ``(batch, channel, voxel)``.
        target: Value of each channel, of the shape of ``x``, or class indices
            ``(batch, voxel)``.
        weight: Weight of each voxel, ``(batch, voxel)``, or None.
        formula: Activation, factors of the classes, label smoothing.
    """
    dtype = wide_dtype(x)
    x = counted(x, weight, dtype)
    t = _values(target, weight, x)
    p = _probabilities(x, formula.kind)
    entropy = _cross_entropy(x, t, formula)
    if weight is None:
        return ChannelTerms((p * t).sum(-1), p.sum(-1), t.sum(-1), entropy)
    w = weight.to(dtype).unsqueeze(1)
    return ChannelTerms((p * t * w).sum(-1), (p * w).sum(-1), (t * w).sum(-1), entropy)


def _values(target: Tensor, weight: Tensor | None, like: Tensor) -> Tensor:
    """Return one value per channel in the type of ``like``, zero where the voxel does not count."""
    if target.ndim == like.ndim:
        return counted(target, weight, like.dtype)
    channels = torch.arange(like.shape[1], device=like.device).unsqueeze(1)
    return (target.unsqueeze(1) == channels).to(like.dtype)


def _probabilities(x: Tensor, kind: str) -> Tensor:
    if kind == "softmax":
        return torch.softmax(x, dim=1)
    return torch.sigmoid(x) if kind == "sigmoid" else x


def _cross_entropy(x: Tensor, t: Tensor, formula: Formula) -> Tensor:
    outcomes = x.shape[1] if formula.kind in ("softmax", "classes") else 2
    t = _smoothed(t, formula.smoothing, outcomes)
    if formula.kind == "softmax":
        each = -t * torch.log_softmax(x, dim=1)
    elif formula.kind == "sigmoid":
        each = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    else:
        each = -t * x.clamp(min=torch.finfo(x.dtype).tiny).log()
        if formula.kind == "binary":
            each = each - (1 - t) * (1 - x).clamp(min=torch.finfo(x.dtype).tiny).log()
    return (each if formula.factors is None else each * formula.factors.unsqueeze(1)).sum(1)


def _smoothed(t: Tensor, smoothing: float, outcomes: int) -> Tensor:
    return t * (1 - smoothing) + smoothing / outcomes if smoothing else t


def scan_channels(
    x: Tensor, target: Tensor, weight: Tensor | None, formula: Formula
) -> ChannelTerms:
    """Return ``channel_terms`` of logits without autograd's copies."""
    apply = cast("Callable[..., tuple[Tensor, ...]]", _ChannelScan.apply)  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
    return ChannelTerms(*apply(x, target, weight, formula))


class _Context(Context, Protocol):
    formula: Formula


class _ChannelScan(torch.autograd.Function):
    r"""``channel_terms`` of logits in one pass each way; keeps nothing but its arguments.

    With :math:`g_c` the gradient of the sums with respect to a probability, that of a logit is
    :math:`p_c\,(g_c - \sum_j p_j g_j)` for a softmax and :math:`p_c (1 - p_c)\,g_c` for a sigmoid;
    the cross entropy adds :math:`p_c \sum_j k_j t_j - k_c t_c` or :math:`k_c (p_c - t_c)`.
    """

    @staticmethod
    def forward(x: Tensor, target: Tensor, weight: Tensor | None, formula: Formula) -> ChannelTerms:
        """Return the terms."""
        dtype = wide_dtype(x)
        batch, channels, voxels = x.shape
        entropy = x.new_empty(batch, voxels, dtype=dtype)
        sums = x.new_zeros(3, num_chunks(x), batch, channels, dtype=dtype)
        for number, rows, part in chunks(x):
            terms = channel_terms(
                x[rows, :, part],
                target[rows, ..., part],
                None if weight is None else weight[rows, part],
                formula,
            )
            entropy[rows, part] = terms.cross_entropy
            for total, term in zip(sums, terms, strict=False):
                total[number, rows] = term
        intersection, predicted, present = sums.sum(1)
        return ChannelTerms(intersection, predicted, present, entropy)

    @staticmethod
    def setup_context(
        ctx: _Context,
        inputs: tuple[Tensor, Tensor, Tensor | None, Formula],
        output: tuple[Tensor, ...],
    ) -> None:
        """Keep the arguments."""
        x, target, weight, formula = inputs
        ctx.save_for_backward(x, target, weight, formula.factors)
        ctx.mark_non_differentiable(output[2])
        ctx.set_materialize_grads(False)
        ctx.formula = formula

    @staticmethod
    def backward(
        ctx: _Context, *grad_outputs: Tensor | None
    ) -> tuple[Tensor | None, None, None, None]:
        """Return the gradient of the logits."""
        x, target, weight, _ = ctx.saved_tensors
        formula = ctx.formula
        if torch.is_grad_enabled():
            gradients = (*grad_outputs[:2], None, grad_outputs[3])

            def terms(logits: Tensor) -> ChannelTerms:
                return channel_terms(logits, target, weight, formula)

            return gradient_of(terms, x, gradients), None, None, None
        of_shared, of_predicted, _, of_entropy = grad_outputs
        result = torch.empty_like(x)
        for _, rows, part in chunks(x):
            result[rows, :, part] = _logit_gradient(
                x[rows, :, part],
                target[rows, ..., part],
                None if weight is None else weight[rows, part],
                formula,
                None if of_shared is None else of_shared[rows],
                None if of_predicted is None else of_predicted[rows],
                None if of_entropy is None else of_entropy[rows, part],
            )
        return result, None, None, None


def _logit_gradient(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    formula: Formula,
    of_shared: Tensor | None,
    of_predicted: Tensor | None,
    of_entropy: Tensor | None,
) -> Tensor:
    """Return the gradient of the logits of one piece, in the wide type."""
    dtype = wide_dtype(x)
    t = _values(target, weight, x.to(dtype))
    p = _probabilities(counted(x, weight, dtype), formula.kind)
    result = torch.zeros_like(p)
    if of_shared is not None or of_predicted is not None:
        slope = result if of_shared is None else t * of_shared.unsqueeze(-1)
        if of_predicted is not None:
            slope = slope + of_predicted.unsqueeze(-1)
        if weight is not None:
            slope = slope * weight.to(dtype).unsqueeze(1)
        slope = slope * p
        result = slope - p * slope.sum(1, keepdim=True)
        if formula.kind == "sigmoid":
            result = slope - slope * p
    if of_entropy is not None:
        g = of_entropy if weight is None else torch.where(weight > 0, of_entropy, 0.0)
        k = 1.0 if formula.factors is None else formula.factors.unsqueeze(1)
        t = _smoothed(t, formula.smoothing, x.shape[1] if formula.kind == "softmax" else 2) * k
        whole = t.sum(1, keepdim=True) if formula.kind == "softmax" else k
        result = result + (p * whole - t) * g.unsqueeze(1)
    return result
