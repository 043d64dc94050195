"""The focal factor, which takes weight from what is predicted well already."""

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor

from medkit.ops._chunks import Context, gradient_of


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
        return focal(surprise, gamma)

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
        return grad_outputs[0] * focal_slope(surprise, gamma), None


class _Context(Context, Protocol):
    gamma: float
