"""Slow changes of brightness, as receive coils of MR scanners make them."""

from collections.abc import Sequence
from itertools import product

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check

from ._intensity import as_float


def num_bias_coefficients(order: int, *, spatial_dims: int) -> int:
    """Number of coefficients of a polynomial in the spatial axes.

    Args:
        order: Highest sum of powers.
        spatial_dims: Number of axes.

    Returns:
        The number of terms.

    Example:
        >>> num_bias_coefficients(3, spatial_dims=3)
        20
    """
    return len(_powers(order, spatial_dims))


def apply_bias_field(
    image: Shaped[Tensor, "channel *spatial"], *, coefficients: Sequence[float], order: int = 3
) -> Float[Tensor, "channel *spatial"]:
    r"""Image times :math:`\exp \sum_p c_p \prod_i t_i^{p_i}`, the same field for all channels.

    The coordinates :math:`t_i` go from -1 to 1 along each axis, and the powers :math:`p` through
    all with a sum of at most ``order``, the last axis fastest.

    Args:
        image: Of any type.
        coefficients: One for each :math:`p`, :func:`num_bias_coefficients` of them.
        order: Highest sum of powers.

    Returns:
        The image in float32, or float64 if it was.

    Raises:
        ValueError: If the number of coefficients does not fit.

    Example:
        >>> import torch
        >>> apply_bias_field(torch.ones(1, 3), coefficients=[0.0, 1.0], order=1)
        tensor([[0.3679, 1.0000, 2.7183]])

    References:
        K. Van Leemput et al., "Automated model-based bias field correction of MR images of the
        brain", IEEE Transactions on Medical Imaging, 1999, equation 3.
    """
    values = as_float(image)
    dims = image.ndim - 1
    powers = _powers(check.integer("order", order, minimum=0), dims)
    if len(coefficients) != len(powers):
        rule = f"{len(powers)}, one for each term"
        raise check.fail("number of coefficients", rule, len(coefficients))
    tensor = torch.zeros((order + 1,) * dims, dtype=torch.float64)
    for power, coefficient in zip(powers, coefficients, strict=True):
        tensor[power] = coefficient
    exponent = tensor.to(values)
    for size in image.shape[1:]:
        line = torch.linspace(-1, 1, size, dtype=values.dtype, device=values.device)
        basis = line.unsqueeze(1) ** torch.arange(order + 1, device=values.device)
        exponent = torch.einsum("i...,ni->...n", exponent, basis)
    return values * exponent.exp_()


def _powers(order: int, dims: int) -> list[tuple[int, ...]]:
    return [power for power in product(range(order + 1), repeat=dims) if sum(power) <= order]
