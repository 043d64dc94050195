"""Error of probabilities, weighed by a signed map that no gradient flows to."""

from collections.abc import Callable
from typing import Literal, Protocol, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medkit._core import check

from ._chunks import Context, wide_dtype

_Activation = Literal["softmax", "sigmoid"]


def map_error(
    input: Float[Tensor, "batch channel *spatial"],
    maps: Float[Tensor, "batch _mapped *spatial"],
    *,
    activation: _Activation | None = None,
    valid: Bool[Tensor, "batch 1 *spatial"] | None = None,
) -> Float[Tensor, "batch _mapped"]:
    r"""Sum over voxels of probabilities missing where a map is negative, or there where positive.

    .. math:: e_{bc} = \sum_v \max(-\phi, 0)\,(1 - p) + \max(\phi, 0)\,p

    with the map :math:`\phi` and the probability :math:`p`. Up to a constant it is
    :math:`\sum_v \phi\,p`. Sums accumulate in float32, or in float64 for a float64 input. The
    backward pass keeps the arguments and nothing else.

    Args:
        input: Logits, or probabilities if ``activation`` is None.
        maps: Weights of the last channels of ``input``, as many as it has; float32, or float64
            for a float64 input. 0 where a voxel does not count.
        activation: What makes probabilities of ``input``.
        valid: Where ``input`` may be looked at; None means everywhere.

    Returns:
        One sum for each sample and channel of ``maps``, zero or more.

    Raises:
        ValueError: If ``maps`` have more channels than ``input`` or other spatial axes.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[-2.0, -1.0, 1.0]]])
        >>> map_error(torch.tensor([[[1.0, 0.5, 0.25]]]), maps)
        tensor([[0.7500]])
    """
    if maps.shape[2:] != input.shape[2:] or not maps.shape[1] <= input.shape[1]:
        rule = f"for channels of input {tuple(input.shape)}"
        raise check.fail("maps", rule, f"shape {tuple(maps.shape)}")
    apply = cast("Callable[..., Tensor]", _MapError.apply)  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
    return apply(input, maps, valid, activation)


class _Context(Context, Protocol):
    activation: _Activation | None


class _MapError(torch.autograd.Function):
    r"""The sums; the gradient of a logit is that of :math:`\sum_v \phi\,p`."""

    @staticmethod
    def forward(
        x: Tensor, maps: Tensor, valid: Tensor | None, activation: _Activation | None
    ) -> Tensor:
        """Return the sums."""
        p = _probabilities(x, valid, activation)[:, x.shape[1] - maps.shape[1] :]
        return torch.addcmul(maps.neg().relu_(), maps, p).flatten(2).sum(-1)

    @staticmethod
    def setup_context(
        ctx: _Context,
        inputs: tuple[Tensor, Tensor, Tensor | None, _Activation | None],
        output: Tensor,  # noqa: ARG004  torch's form
    ) -> None:
        """Keep the arguments."""
        x, maps, valid, ctx.activation = inputs
        ctx.save_for_backward(x, maps, valid)

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the input, which can be differentiated again."""
        x, maps, valid = ctx.saved_tensors
        (gradient,) = gradients
        g = maps * gradient.reshape(*gradient.shape, *(1,) * (x.ndim - 2))
        if g.shape[1] < x.shape[1]:
            missing = x.shape[1] - g.shape[1]
            g = torch.cat([g.new_zeros(x.shape[0], missing, *x.shape[2:]), g], 1)
        if ctx.activation is not None:
            p = _probabilities(x, valid, ctx.activation)
            mean = (p * g).sum(1, keepdim=True) if ctx.activation == "softmax" else p * g
            g = p * (g - mean)
        return g.to(x.dtype), None, None, None


def _probabilities(x: Tensor, valid: Tensor | None, activation: _Activation | None) -> Tensor:
    x = x.to(wide_dtype(x))
    x = x if valid is None else torch.where(valid, x, 0.0)
    if activation is None:
        return x
    return x.softmax(1) if activation == "softmax" else x.sigmoid()
