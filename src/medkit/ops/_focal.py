"""The focal factor, which takes weight from what is predicted well already."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from ._chunks import Context, chunks, gradient_of, on_cpu


def focal(surprise: Tensor, gamma: float) -> Tensor:
    r"""Return :math:`(1 - e^{-s})^\gamma s` of a surprise :math:`s = -\log p`, differentiable.

    Args:
        surprise: Minus the log probability of the truth.
        gamma: Exponent, zero or more.
    """
    return _doubt(surprise) ** gamma * surprise


def focal_slope(surprise: Tensor, gamma: float) -> Tensor:
    """Return the derivative of ``focal`` by the surprise, finite for any exponent.

    Args:
        surprise: Minus the log probability of the truth.
        gamma: Exponent, zero or more.
    """
    doubt = _doubt(surprise)
    return doubt**gamma * (1 + gamma * (1 - doubt) * surprise / doubt)


def _doubt(surprise: Tensor) -> Tensor:
    """Return one minus the probability of the truth, a little above zero."""
    return (-torch.expm1(-surprise)).clamp(min=torch.finfo(surprise.dtype).tiny)


class Outcomes(NamedTuple):
    """Factors of a structure and of what is outside it, ``(channel, 1)`` or one for all."""

    there: Tensor | float
    not_there: Tensor | float

    def scale(self, values: Tensor, target: Tensor) -> Tensor:
        """Return values, in place, times the factor of each voxel of a target of zeros and ones."""
        if not isinstance(self.there, Tensor) or not isinstance(self.not_there, Tensor):
            return values  # both are one
        return values.mul_(torch.addcmul(self.not_there, target, self.there - self.not_there))


def sigmoid_focal(
    x: Tensor, target: Tensor, gamma: float, factors: Outcomes, room: tuple[Tensor, Tensor]
) -> Tensor:
    """Return the focal cross entropy of decisions, without gradient, from few passes.

    Args:
        x: Logits.
        target: Truth in [0, 1], in the type of ``x``.
        gamma: Exponent, zero or more.
        factors: Of both outcomes.
        room: Two tensors like ``x`` to work in; the result may be one of them.
    """
    if _is_hard(target, room[0]):
        wrong = torch.addcmul(x, x, target, value=-2, out=room[0])  # the logit of being wrong
        surprise = _softplus(wrong, room[1])
        return factors.scale(surprise.mul_(wrong.sigmoid_().pow_(gamma)), target)
    missed = _softplus(-x, room[0]).mul_(torch.sigmoid(-x).pow_(gamma)).mul_(target * factors.there)
    invented = _softplus(x, room[1]).mul_(torch.sigmoid(x).pow_(gamma))
    return missed.addcmul_(invented, (1 - target) * factors.not_there)


def sigmoid_focal_slope(
    x: Tensor, target: Tensor, gamma: float, factors: Outcomes, room: tuple[Tensor, Tensor]
) -> Tensor:
    r"""Return the derivative of ``sigmoid_focal`` by the logits.

    Args:
        x: Logits.
        target: Truth in [0, 1], in the type of ``x``.
        gamma: Exponent, zero or more.
        factors: Of both outcomes.
        room: Two tensors like ``x`` to work in; the result may be one of them.
    """
    if _is_hard(target, room[0]):
        wrong = torch.addcmul(x, x, target, value=-2, out=room[0])
        slope = factors.scale(_slope(wrong, gamma, room[1]), target)
        return slope.addcmul_(slope, target, value=-2)
    missed = _slope(-x, gamma, room[0]).mul_(target * factors.there)
    invented = _slope(torch.clone(x), gamma, room[1])
    return invented.mul_((1 - target) * factors.not_there).sub_(missed)


def _slope(wrong: Tensor, gamma: float, room: Tensor) -> Tensor:
    r"""Return the derivative by the logit of being wrong, which is overwritten.

    It is :math:`q^\gamma (q + \gamma (1 - q) s)`, :math:`q` being the probability of it.
    """
    s = _softplus(wrong, room)
    q = wrong.sigmoid_()
    return s.addcmul_(s, q, value=-1).mul_(gamma).add_(q).mul_(q.pow_(gamma))


def _softplus(x: Tensor, room: Tensor) -> Tensor:
    return torch.logaddexp(x, x.new_zeros(()), out=room)


def _is_hard(target: Tensor, room: Tensor) -> bool:
    """Return whether a target holds zeros and ones alone, where looking costs little."""
    if not on_cpu(target) or not target.numel():
        return False
    low, high = torch.addcmul(target, target, target, value=-1, out=room).aminmax()
    return bool((low == 0) & (high == 0))


def scan_focal(surprise: Tensor, gamma: float) -> Tensor:
    """Return ``focal`` without autograd's copies.

    Args:
        surprise: Minus the log probability of the truth.
        gamma: Exponent, zero or more.
    """
    apply = cast("Callable[..., Tensor]", _Focal.apply)  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
    return apply(surprise, gamma)


class _Focal(torch.autograd.Function):
    """``focal``; keeps nothing but its argument."""

    @staticmethod
    def forward(surprise: Tensor, gamma: float) -> Tensor:
        """Return the modulated surprise."""
        return _in_pieces(partial(focal, gamma=gamma), surprise)

    @staticmethod
    def setup_context(ctx: "_Context", inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Keep the argument."""
        del output
        ctx.save_for_backward(inputs[0])
        ctx.gamma = inputs[1]

    @staticmethod
    def backward(ctx: "_Context", *grad_outputs: Tensor) -> tuple[Tensor | None, None]:
        """Return the gradient of the surprise."""
        (surprise,), gamma = ctx.saved_tensors, ctx.gamma
        if torch.is_grad_enabled():
            return gradient_of(lambda s: (focal(s, gamma),), surprise, grad_outputs), None

        def slope(s: Tensor, gradient: Tensor) -> Tensor:
            return gradient * focal_slope(s, gamma)

        return _in_pieces(slope, surprise, grad_outputs[0]), None


def _in_pieces(function: Callable[..., Tensor], *maps: Tensor) -> Tensor:
    """Return a function of each voxel of ``(batch, voxel)`` maps without temporaries of their size.

    The first of them is contiguous.
    """
    if not on_cpu(maps[0]):
        return function(*maps)
    result = torch.empty_like(maps[0])
    for _, rows, part in chunks(maps[0].unsqueeze(1)):
        result[rows, part] = function(*(each[rows, part] for each in maps))
    return result


class _Context(Context, Protocol):
    gamma: float
