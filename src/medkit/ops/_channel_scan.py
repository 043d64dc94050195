"""Overlap and cross entropy of probabilities against one value per channel."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ._chunks import (
    Context,
    Room,
    chunks,
    counted,
    gradient_of,
    num_chunks,
    on_cpu,
    wide_dtype,
)
from ._focal import Outcomes, focal, focal_slope, sigmoid_focal, sigmoid_focal_slope


class ChannelTerms(NamedTuple):
    """Sums per sample and channel, and the cross entropy per voxel."""

    intersection: Tensor
    predicted: Tensor
    target: Tensor
    cross_entropy: Tensor


class Formula(NamedTuple):
    """What the terms are made with.

    ``kind`` is the activation; ``classes`` and ``binary`` take probabilities that sum to one over
    the channels, or that are one decision each. A second row of ``factors`` is for the outcome
    that a structure is not there. ``gamma`` makes the cross entropy a focal one.
    """

    kind: str
    factors: Tensor | None
    smoothing: float
    gamma: float = 0.0

    @property
    def is_focal(self) -> bool:
        """Return whether the outcomes of a channel are modulated or weighed one by one."""
        return self.gamma > 0 or (self.factors is not None and self.factors.ndim > 1)

    @property
    def outcomes(self) -> Outcomes:
        """Return the factors where a structure is, and where it is not."""
        if self.factors is None:
            return Outcomes(1.0, 1.0)
        rows = self.factors.expand(2, -1) if self.factors.ndim == 1 else self.factors
        return Outcomes(rows[0].unsqueeze(1), rows[1].unsqueeze(1))


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
    if formula.is_focal:
        return _focal_entropy(x, t, formula)
    if formula.kind == "softmax":
        each = -t * torch.log_softmax(x, dim=1)
    elif formula.kind == "sigmoid":
        each = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    else:
        each = -t * x.clamp(min=torch.finfo(x.dtype).tiny).log()
        if formula.kind == "binary":
            each = each - (1 - t) * (1 - x).clamp(min=torch.finfo(x.dtype).tiny).log()
    return (each if formula.factors is None else each * formula.factors.unsqueeze(1)).sum(1)


def _focal_entropy(x: Tensor, t: Tensor, formula: Formula) -> Tensor:
    there, not_there = formula.outcomes
    of_one, of_other = _surprises(x, formula.kind)
    each = there * t * focal(of_one, formula.gamma)
    if of_other is not None:
        each = each + not_there * (1 - t) * focal(of_other, formula.gamma)
    return each.sum(1)


def _surprises(x: Tensor, kind: str) -> tuple[Tensor, Tensor | None]:
    """Return minus the log probability of each channel, and of its opposite if it has one."""
    if kind == "softmax":
        return -torch.log_softmax(x, dim=1), None
    if kind == "sigmoid":
        return -F.logsigmoid(x), -F.logsigmoid(-x)
    tiny = torch.finfo(x.dtype).tiny
    one = -x.clamp(min=tiny).log()
    return one, -(1 - x).clamp(min=tiny).log() if kind == "binary" else None


def _smoothed(t: Tensor, smoothing: float, outcomes: int) -> Tensor:
    return t * (1 - smoothing) + smoothing / outcomes if smoothing else t


def scan_channels(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    formula: Formula,
    *,
    overlap: bool = True,
    entropy: bool = True,
) -> ChannelTerms:
    """Return ``channel_terms`` of logits without autograd's copies.

    Args:
        x: Logits, ``(batch, channel, voxel)``.
        target: Value of each channel, of the shape of ``x``, or class indices
            ``(batch, voxel)``.
        weight: Weight of each voxel, ``(batch, voxel)``, or None.
        formula: Activation, factors of the classes, label smoothing.
        overlap: Whether the sums are needed; they are empty otherwise.
        entropy: Whether the cross entropy is needed; it is empty otherwise.
    """
    apply = cast("Callable[..., tuple[Tensor, ...]]", _ChannelScan.apply)  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
    *terms, _ = apply(x, target, weight, formula, overlap, entropy)
    return ChannelTerms(*terms)


class _ChannelScan(torch.autograd.Function):
    r"""``channel_terms`` of logits in one pass each way; keeps nothing but its arguments.

    With :math:`g_c` the gradient of the sums with respect to a probability, that of a logit is
    :math:`p_c\,(g_c - \sum_j p_j g_j)` for a softmax and :math:`p_c (1 - p_c)\,g_c` for a sigmoid;
    the cross entropy adds :math:`p_c \sum_j k_j t_j - k_c t_c` or :math:`k_c (p_c - t_c)`.

    Looking for NaN costs less than clearing the voxels that do not count. So on a CPU a piece is
    cleared only if NaN has been found in its sums; the last output says where.
    """

    @staticmethod
    def forward(
        x: Tensor,
        target: Tensor,
        weight: Tensor | None,
        formula: Formula,
        overlap: bool,
        entropy: bool,
    ) -> tuple[Tensor, ...]:
        """Return the terms, and which pieces had to be cleared."""
        batch, channels, voxels = x.shape
        dtype = wide_dtype(x)
        sums = x.new_zeros(3, num_chunks(x), batch if overlap else 0, channels, dtype=dtype)
        each = x.new_empty(batch if entropy else 0, voxels, dtype=dtype)
        dirty = torch.zeros(sum(1 for _ in chunks(x)), dtype=torch.bool)
        rooms = tuple(Room(x) for _ in range(4))
        look = weight is not None and on_cpu(x)
        for number, (row, rows, part) in enumerate(chunks(x)):
            w = None if weight is None else weight[rows, part].to(dtype)
            arguments = x[rows, :, part], target[rows, ..., part], w
            piece = _take(*arguments, rooms, clear=not look)
            terms = _terms_of_piece(piece, formula, rooms[2:], overlap=overlap, entropy=entropy)
            if look and not all(bool(term.sum().isfinite()) for term in terms):
                dirty[number] = True
                piece = _take(*arguments, rooms, clear=True)
                terms = _terms_of_piece(piece, formula, rooms[2:], overlap=overlap, entropy=entropy)
            if overlap:
                for total, term in zip(sums, terms, strict=False):
                    total[row, rows] = term
            if entropy:
                each[rows, part] = terms.cross_entropy
        shared, predicted, present = sums.sum(1)
        return shared, predicted, present, each, dirty

    @staticmethod
    def setup_context(
        ctx: "_Context",
        inputs: tuple[Tensor, Tensor, Tensor | None, Formula, bool, bool],
        output: tuple[Tensor, ...],
    ) -> None:
        """Keep the arguments."""
        x, target, weight, formula, _, _ = inputs
        ctx.save_for_backward(x, target, weight, formula.factors)
        ctx.formula = formula
        ctx.dirty = output[4]
        ctx.mark_non_differentiable(output[2], output[4])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: "_Context", *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradient of the logits."""
        x, target, weight, _ = ctx.saved_tensors
        of_shared, of_predicted, _, of_entropy, _ = grad_outputs
        if torch.is_grad_enabled():
            formula = ctx.formula

            def terms(logits: Tensor) -> ChannelTerms:
                return channel_terms(logits, target, weight, formula)

            gradients = (of_shared, of_predicted, None, of_entropy)
            return gradient_of(terms, x, gradients), *[None] * 5
        if (given := of_predicted if of_shared is None else of_shared) is not None:
            of_shared = torch.zeros_like(given) if of_shared is None else of_shared
            of_predicted = torch.zeros_like(given) if of_predicted is None else of_predicted
        result = torch.empty_like(x)
        rooms = tuple(Room(x) for _ in range(5))
        for number, (_, rows, part) in enumerate(chunks(x)):
            w = None if weight is None else weight[rows, part].to(wide_dtype(x))
            clear = not on_cpu(x) or bool(ctx.dirty[number])
            piece = _take(x[rows, :, part], target[rows, ..., part], w, rooms, clear=clear)
            slopes = _Slopes(
                None if of_shared is None else of_shared[rows].unsqueeze(-1),
                None if of_predicted is None else of_predicted[rows].unsqueeze(-1),
                None if of_entropy is None else of_entropy[rows, part],
            )
            _write_gradient(result[rows, :, part], piece, ctx.formula, rooms[2:], slopes)
        return result, *[None] * 5


class _Context(Context, Protocol):
    formula: Formula
    dirty: Tensor


class _Piece(NamedTuple):
    """Logits, values per channel and weights of a few voxels."""

    x: Tensor
    t: Tensor
    weight: Tensor | None


class _Slopes(NamedTuple):
    """Gradients with respect to the terms of a piece; those of the sums are both there or none."""

    shared: Tensor | None
    predicted: Tensor | None
    entropy: Tensor | None


def _take(
    x: Tensor, target: Tensor, weight: Tensor | None, rooms: tuple[Room, ...], *, clear: bool
) -> _Piece:
    zeros = weight if clear else None
    logits = _wide(x, zeros, rooms[0])
    if target.ndim < x.ndim:
        return _Piece(logits, _values(target, None, logits), weight)
    return _Piece(logits, _wide(target, zeros, rooms[1]), weight)


def _wide(values: Tensor, zeros: Tensor | None, room: Room) -> Tensor:
    """Return values in the type of the room, themselves if nothing is to change."""
    same = zeros is None and values.dtype == room.memory.dtype
    return values if same else room.take(values, zeros)


def _terms_of_piece(
    piece: _Piece, formula: Formula, rooms: tuple[Room, ...], *, overlap: bool, entropy: bool
) -> ChannelTerms:
    """Return the terms of a piece; what is not needed is empty."""
    x, t, w = piece
    shared = predicted = present = each = x.new_empty(0)
    if entropy and formula.is_focal and formula.kind == "sigmoid":
        smoothed = _smoothed(t, formula.smoothing, 2)
        room = rooms[0].like(x), rooms[1].like(x)
        each = sigmoid_focal(x, smoothed, formula.gamma, formula.outcomes, room).sum(1)
    elif entropy:
        each = _cross_entropy(x, t, formula)
    if overlap:
        p = rooms[0].like(x)
        p = torch.sigmoid(x, out=p) if formula.kind == "sigmoid" else torch.softmax(x, 1, out=p)
        if w is not None:
            p.mul_(w.unsqueeze(1))
        predicted = p.sum(-1)
        shared = p.mul_(t).sum(-1)
        present = t.sum(-1) if w is None else torch.mul(t, w.unsqueeze(1), out=p).sum(-1)
    return ChannelTerms(shared, predicted, present, each)


def _write_gradient(
    result: Tensor, piece: _Piece, formula: Formula, rooms: tuple[Room, ...], slopes: _Slopes
) -> None:
    """Write the gradient of the logits of a piece."""
    x, t, w = piece
    softmax = formula.kind == "softmax"
    p = rooms[0].like(x)
    if not formula.is_focal or softmax or slopes.shared is not None:
        p = torch.softmax(x, 1, out=p) if softmax else torch.sigmoid(x, out=p)
    gradient = result if result.dtype == p.dtype else rooms[1].like(x)
    if slopes.shared is not None and slopes.predicted is not None:
        slope = torch.addcmul(slopes.predicted, t, slopes.shared, out=rooms[1].like(x))
        if w is not None:
            slope.mul_(w.unsqueeze(1))
        slope.mul_(p)
        common = slope.sum(1, keepdim=True) if softmax else slope
        torch.addcmul(slope, p, common, value=-1, out=gradient)
    elif slopes.entropy is None:
        gradient.zero_()
    if slopes.entropy is not None:
        g = slopes.entropy if w is None else torch.where(w > 0, slopes.entropy, 0.0)
        slope = _entropy_slope(x, t, p, formula, rooms[2].like(x))
        if slopes.shared is None:
            torch.mul(slope, g.unsqueeze(1), out=gradient)
        else:
            gradient.addcmul_(slope, g.unsqueeze(1))
    if gradient is not result:
        result.copy_(gradient)


def _entropy_slope(x: Tensor, t: Tensor, p: Tensor, formula: Formula, room: Tensor) -> Tensor:
    """Return the derivative of the cross entropy by the logits; ``p`` may be overwritten."""
    softmax = formula.kind == "softmax"
    t = _smoothed(t, formula.smoothing, x.shape[1] if softmax else 2)
    if formula.is_focal and not softmax:
        return sigmoid_focal_slope(x, t, formula.gamma, formula.outcomes, (p, room))
    if formula.is_focal:
        of_one, _ = _surprises(x, formula.kind)
        up = formula.outcomes.there * t * focal_slope(of_one, formula.gamma)
        return p.mul_(up.sum(1, keepdim=True)).sub_(up)
    k = 1.0 if formula.factors is None else formula.factors.unsqueeze(1)
    t = t * k
    return p.mul_(t.sum(1, keepdim=True) if softmax else k).sub_(t)
