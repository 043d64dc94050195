"""Overlap and likelihood of softmax probabilities against a map of classes."""

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor

from medkit.ops._chunks import Context, chunks, counted, gradient_of, num_chunks, wide_dtype


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


def _fast_class_sums(values: Tensor | None, index: Tensor, num_classes: int) -> Tensor:
    """Return the sums of ``class_sums``, or the counts if there are no values, without gradient."""
    if index.device.type != "cpu":  # counting with weights is not deterministic there
        ones = index.new_ones((), dtype=torch.float32).expand(index.shape)
        return class_sums(ones if values is None else values, index, num_classes)
    rows = [
        torch.bincount(
            labels, None if values is None else values[row].double(), minlength=num_classes
        )
        for row, labels in enumerate(index)
    ]
    return torch.stack(rows) if rows else index.new_zeros(0, num_classes)


def scan_classes(
    x: Tensor, index: Tensor, weight: Tensor | None, factors: Tensor | None
) -> ClassTerms:
    """Return ``class_terms`` of logits without autograd's copies."""
    apply = cast("Callable[..., tuple[Tensor, ...]]", _SoftmaxScan.apply)  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
    return ClassTerms(*apply(x, index, weight, factors))


class _SoftmaxScan(torch.autograd.Function):
    r"""``class_terms`` of logits in one pass each way; keeps nothing but its arguments.

    With :math:`g_c` the gradient of the sums with respect to a probability, that of a logit is
    :math:`p_c\,(g_c - \sum_j p_j g_j)`; surprise adds :math:`p_c - [c = t]` and spread
    :math:`p_c \sum_j k_j - k_c`, each times its own gradient.
    """

    @staticmethod
    def forward(
        x: Tensor, index: Tensor, weight: Tensor | None, factors: Tensor | None
    ) -> ClassTerms:
        """Return the terms."""
        dtype = wide_dtype(x)
        batch, channels, voxels = x.shape
        surprise = x.new_empty(batch, voxels, dtype=dtype)
        spread = x.new_empty(0 if factors is None else batch, voxels, dtype=dtype)
        predicted = x.new_zeros(num_chunks(x), batch, channels, dtype=dtype)
        for number, rows, part in chunks(x):
            w = None if weight is None else weight[rows, part].to(dtype)
            piece = counted(x[rows, :, part], w, dtype)
            below_top = piece - piece.amax(1, keepdim=True)
            at_target = below_top.gather(1, index[rows, part].unsqueeze(1)).squeeze(1)
            mean = None if factors is None else (below_top * factors.unsqueeze(1)).sum(1)
            odds = below_top.exp_()
            total = odds.sum(1)
            share = total.reciprocal() if w is None else w / total
            predicted[number, rows] = odds.mul_(share.unsqueeze(1)).sum(-1)
            log_total = total.log_()
            torch.sub(log_total, at_target, out=surprise[rows, part])
            if factors is not None and mean is not None:
                spread[rows, part] = log_total * factors.sum() - mean
        w = None if weight is None else weight.to(dtype)
        shared = (-surprise).exp_()
        shared = shared if w is None else shared.mul_(w)
        return ClassTerms(
            _fast_class_sums(shared, index, channels).to(dtype),
            predicted.sum(0),
            _fast_class_sums(w, index, channels).to(dtype),
            surprise,
            spread,
        )

    @staticmethod
    def setup_context(
        ctx: Context, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, ...]
    ) -> None:
        """Keep the arguments, and the surprise, which the caller holds anyway."""
        ctx.save_for_backward(*inputs, output[3])
        ctx.mark_non_differentiable(output[2])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Context, *grad_outputs: Tensor | None
    ) -> tuple[Tensor | None, None, None, None]:
        """Return the gradient of the logits."""
        x, index, weight, factors, surprise = ctx.saved_tensors
        if torch.is_grad_enabled():
            gradients = (*grad_outputs[:2], None, *grad_outputs[3:])

            def formula(logits: Tensor) -> ClassTerms:
                return class_terms(logits, index, weight, factors, logits=True)

            return gradient_of(formula, x, gradients), None, None, None
        of_shared, of_predicted, _, of_surprise, of_spread = grad_outputs
        result = torch.empty_like(x)
        for _, rows, part in chunks(x):
            piece = _Piece(
                x[rows, :, part],
                index[rows, part],
                None if weight is None else weight[rows, part],
                surprise[rows, part],
            )
            result[rows, :, part] = _logit_gradient(
                piece,
                factors,
                None if of_shared is None else of_shared[rows],
                None if of_predicted is None else of_predicted[rows],
                None if of_surprise is None else of_surprise[rows, part],
                None if of_spread is None else of_spread[rows, part],
            )
        return result, None, None, None


class _Piece(NamedTuple):
    x: Tensor
    labels: Tensor
    weight: Tensor | None
    surprise: Tensor


def _logit_gradient(
    piece: _Piece,
    factors: Tensor | None,
    of_shared: Tensor | None,
    of_predicted: Tensor | None,
    of_surprise: Tensor | None,
    of_spread: Tensor | None,
) -> Tensor:
    """Return the gradient of the logits of one piece, in the wide type."""
    dtype = wide_dtype(piece.x)
    w = None if piece.weight is None else piece.weight.to(dtype)
    p = torch.softmax(counted(piece.x, w, dtype), dim=1)
    common = torch.zeros_like(piece.surprise)
    extra = torch.zeros_like(piece.surprise)
    if of_predicted is not None:
        common = common - (p * of_predicted.unsqueeze(-1)).sum(1)
    if of_shared is not None:
        extra = (-piece.surprise).exp() * of_shared.gather(1, piece.labels)
        common = common - extra
    if w is not None:
        common, extra = common * w, extra * w
    if of_surprise is not None:
        of_surprise = of_surprise if w is None else torch.where(w > 0, of_surprise, 0.0)
        common, extra = common + of_surprise, extra - of_surprise
    if of_spread is not None and factors is not None:
        of_spread = of_spread if w is None else torch.where(w > 0, of_spread, 0.0)
        common = common + of_spread * factors.sum()
    slope = common.unsqueeze(1)
    if of_predicted is not None:
        own = of_predicted.unsqueeze(-1)
        slope = slope + (own if w is None else own * w.unsqueeze(1))
    p.mul_(slope)
    if of_spread is not None and factors is not None:
        p.sub_(of_spread.unsqueeze(1) * factors.unsqueeze(1))
    return p.scatter_add_(1, piece.labels.unsqueeze(1), extra.unsqueeze(1))
