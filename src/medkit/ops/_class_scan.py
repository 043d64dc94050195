"""Overlap and likelihood of softmax probabilities against a map of classes."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from ._chunks import (
    Context,
    Room,
    chunks,
    counted,
    finite,
    gradient_of,
    num_chunks,
    on_cpu,
    wide_dtype,
)


class ClassTerms(NamedTuple):
    """Sums per sample and class, and two likelihoods per voxel.

    ``surprise`` is minus the log probability of the target; ``spread`` the sum of that over all
    classes, each times its factor, and is empty if no factors are given.
    """

    intersection: Tensor
    predicted: Tensor
    target: Tensor
    surprise: Tensor
    spread: Tensor


def class_terms(
    x: Tensor, index: Tensor, weight: Tensor | None, factors: Tensor | None, *, logits: bool
) -> ClassTerms:
    """Return the terms in plain differentiable operations.

    Args:
        x: Logits, or probabilities, ``(batch, channel, voxel)``.
        index: Class of each voxel, ``(batch, voxel)``.
        weight: Weight of each voxel, ``(batch, voxel)``, or None.
        factors: Factor of each class in ``spread``, or None.
        logits: Whether ``x`` holds logits of a softmax.
    """
    dtype = wide_dtype(x)
    x = counted(x, weight, dtype)
    if logits:
        log_p = torch.log_softmax(x, dim=1)
        p = log_p.exp()
    else:
        p, log_p = x, x.clamp(min=torch.finfo(dtype).tiny).log()
    w = None if weight is None else weight.to(dtype)
    at_target = p.gather(1, index.unsqueeze(1)).squeeze(1)
    surprise = -log_p.gather(1, index.unsqueeze(1)).squeeze(1)
    spread = surprise[:0] if factors is None else -(log_p * factors.unsqueeze(1)).sum(1)
    ones = torch.ones_like(surprise) if w is None else w
    shared = at_target if w is None else at_target * w
    predicted = (p if w is None else p * w.unsqueeze(1)).sum(-1)
    return ClassTerms(
        class_sums(shared, index, x.shape[1]),
        predicted,
        class_sums(ones, index, x.shape[1]),
        surprise,
        spread,
    )


def class_sums(values: Tensor, index: Tensor, num_classes: int) -> Tensor:
    """Return the sum of the values of each class, ``(batch, class)``, in plain operations."""
    sums = [torch.where(index == c, values, 0.0).sum(-1) for c in range(num_classes)]
    return torch.stack(sums, dim=-1)


def scan_classes(
    x: Tensor,
    index: Tensor,
    weight: Tensor | None,
    factors: Tensor | None,
    *,
    overlap: bool = True,
    likelihood: bool = True,
) -> ClassTerms:
    """Return ``class_terms`` of logits without autograd's copies.

    Args:
        x: Logits, ``(batch, channel, voxel)``.
        index: Class of each voxel, ``(batch, voxel)``.
        weight: Weight of each voxel, ``(batch, voxel)``, or None.
        factors: Factor of each class in ``spread``, or None.
        overlap: Whether the sums are needed; they are empty otherwise.
        likelihood: Whether the numbers per voxel are needed; they are empty otherwise.
    """
    apply = cast("Callable[..., tuple[Tensor, ...]]", _SoftmaxScan.apply)  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
    *terms, _ = apply(x, index, weight, factors, overlap, likelihood)
    return ClassTerms(*terms)


class _SoftmaxScan(torch.autograd.Function):
    r"""``class_terms`` of logits in one pass each way; keeps nothing but its arguments.

    With :math:`g_c` the gradient of the sums with respect to a probability, that of a logit is
    :math:`p_c\,(g_c - \sum_j p_j g_j)`; surprise adds :math:`p_c - [c = t]` and spread
    :math:`p_c \sum_j k_j - k_c`, each times its own gradient.

    Looking for NaN costs less than clearing the logits of voxels that do not count. So on a CPU
    a piece is cleared only if NaN has been found in its sums; the last output says where.
    """

    @staticmethod
    def forward(
        x: Tensor,
        index: Tensor,
        weight: Tensor | None,
        factors: Tensor | None,
        overlap: bool,
        likelihood: bool,
    ) -> tuple[Tensor, ...]:
        """Return the terms, and which pieces had to be cleared."""
        batch, channels, voxels = x.shape
        dtype = wide_dtype(x)
        shared = x.new_zeros(batch if overlap else 0, channels, dtype=dtype)
        present = torch.zeros_like(shared)
        predicted = x.new_zeros(num_chunks(x), *shared.shape, dtype=dtype)
        surprise = x.new_empty(batch if likelihood else 0, voxels, dtype=dtype)
        spread = x.new_empty(len(surprise) if factors is not None else 0, voxels, dtype=dtype)
        dirty = torch.zeros(sum(1 for _ in chunks(x)), dtype=torch.bool)
        rooms = Room(x), Room(x)
        look = weight is not None and on_cpu(x)
        for piece, (number, rows, part) in enumerate(chunks(x)):
            w = None if weight is None else weight[rows, part].to(dtype)
            labels = index[rows, part]
            logits = rooms[0].take(x[rows, :, part], None if look else w)
            terms = _terms_of_piece(logits, labels, w, factors, rooms[1], overlap, likelihood)
            if look and not finite(terms.predicted if overlap else terms.surprise.sum()):
                dirty[piece] = True
                logits = rooms[0].take(x[rows, :, part], w)
                terms = _terms_of_piece(logits, labels, w, factors, rooms[1], overlap, likelihood)
            if overlap:
                shared[rows] += terms.intersection
                predicted[number, rows] = terms.predicted
                present[rows] += terms.target
            if likelihood:
                surprise[rows, part] = terms.surprise
            if len(spread):
                spread[rows, part] = terms.spread
        return shared, predicted.sum(0), present, surprise, spread, dirty

    @staticmethod
    def setup_context(
        ctx: "_Context",
        inputs: tuple[Tensor, Tensor, Tensor | None, Tensor | None, bool, bool],
        output: tuple[Tensor, ...],
    ) -> None:
        """Keep the arguments."""
        ctx.save_for_backward(*inputs[:4])
        ctx.dirty = output[5]
        ctx.mark_non_differentiable(output[2], output[5])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: "_Context", *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradient of the logits."""
        x, index, weight, factors = ctx.saved_tensors
        of_shared, of_predicted, _, of_surprise, of_spread, _ = grad_outputs
        if torch.is_grad_enabled():
            gradients = (of_shared, of_predicted, None, of_surprise, of_spread)

            def formula(logits: Tensor) -> ClassTerms:
                return class_terms(logits, index, weight, factors, logits=True)

            return gradient_of(formula, x, gradients), *[None] * 5
        result = torch.empty_like(x)
        rooms = Room(x), Room(x)
        for piece, (_, rows, part) in enumerate(chunks(x)):
            w = None if weight is None else weight[rows, part].to(wide_dtype(x))
            clear = w if not on_cpu(x) or bool(ctx.dirty[piece]) else None
            logits = rooms[0].take(x[rows, :, part], clear)
            p = torch.softmax(logits, dim=1, out=rooms[1].like(logits))
            _write_gradient(
                result[rows, :, part],
                p,
                index[rows, part],
                w,
                rooms[0],
                _Slopes(
                    None if of_shared is None else of_shared[rows],
                    None if of_predicted is None else of_predicted[rows],
                    None if of_surprise is None else of_surprise[rows, part],
                    None if of_spread is None else of_spread[rows, part],
                    factors,
                ),
            )
        return result, *[None] * 5


def _terms_of_piece(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    factors: Tensor | None,
    room: Room,
    overlap: bool,
    likelihood: bool,
) -> ClassTerms:
    """Return the terms of a piece; what is not needed is empty. ``logits`` are overwritten."""
    nothing = logits.new_empty(0)
    surprise = spread = shared = predicted = present = nothing
    p = room.like(logits)
    if likelihood:
        torch.log_softmax(logits, dim=1, out=p)
        at_target = p.gather(1, labels.unsqueeze(1)).squeeze(1)
        surprise = -at_target
        if factors is not None:
            spread = -torch.mul(p, factors.unsqueeze(1), out=logits).sum(1)
        if overlap:
            p.exp_()
            at_target.exp_()
    else:
        torch.softmax(logits, dim=1, out=p)
        at_target = p.gather(1, labels.unsqueeze(1)).squeeze(1)
    if overlap:
        if weight is not None:
            p.mul_(weight.unsqueeze(1))
            at_target.mul_(weight)
        shared = _fast_class_sums(at_target, labels, p.shape[1])
        predicted = p.sum(-1)
        present = _fast_class_sums(weight, labels, p.shape[1])
    return ClassTerms(shared, predicted, present, surprise, spread)


def _fast_class_sums(values: Tensor | None, labels: Tensor, num_classes: int) -> Tensor:
    """Return the sums of ``class_sums``, or the counts if there are no values, without gradient."""
    if not on_cpu(labels):  # counting with weights has no fixed order there
        ones = labels.new_ones((), dtype=torch.float32).expand(labels.shape)
        return class_sums(ones if values is None else values, labels, num_classes)
    rows = [
        torch.bincount(each, None if values is None else values[row].double(), num_classes)
        for row, each in enumerate(labels)
    ]
    return torch.stack(rows)


class _Context(Context, Protocol):
    dirty: Tensor


class _Slopes(NamedTuple):
    """Gradients with respect to the terms of a piece, and the factors of ``spread``."""

    shared: Tensor | None
    predicted: Tensor | None
    surprise: Tensor | None
    spread: Tensor | None
    factors: Tensor | None


def _write_gradient(
    result: Tensor,
    p: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    room: Room,
    slopes: _Slopes,
) -> None:
    """Write the gradient of the logits of a piece; the probabilities are overwritten.

    It is ``p * (own + common)``, with ``own`` of each class and ``common`` of each voxel, and
    ``extra`` at the target.
    """
    at = labels.unsqueeze(1)
    own = None if slopes.predicted is None else slopes.predicted.unsqueeze(-1)
    extra = p.new_zeros(labels.shape)
    if slopes.shared is not None:
        extra = p.gather(1, at).squeeze(1).mul_(slopes.shared.gather(1, labels))
    common = -extra
    if own is not None:
        common -= torch.mul(p, own, out=room.like(p)).sum(1)
    if weight is not None:
        common *= weight
        extra *= weight
    if slopes.surprise is not None:
        surprise = _where_counted(slopes.surprise, weight)
        common += surprise
        extra -= surprise
    spread = None
    if slopes.spread is not None and slopes.factors is not None:
        spread = _where_counted(slopes.spread, weight)
        common += spread * slopes.factors.sum()
    factor = common.unsqueeze(1)
    if own is not None and weight is None:
        factor = torch.add(own, factor, out=room.like(p))
    elif own is not None and weight is not None:
        factor = torch.addcmul(factor, own, weight.unsqueeze(1), out=room.like(p))
    same = result.dtype == p.dtype
    target = torch.mul(p, factor, out=result) if same else p.mul_(factor)
    if spread is not None and slopes.factors is not None:
        target.addcmul_(spread.unsqueeze(1), slopes.factors.unsqueeze(1), value=-1)
    target.scatter_add_(1, at, extra.unsqueeze(1))
    if not same:
        result.copy_(target)


def _where_counted(values: Tensor, weight: Tensor | None) -> Tensor:
    return values if weight is None else torch.where(weight > 0, values, 0.0)
