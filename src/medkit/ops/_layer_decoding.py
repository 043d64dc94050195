"""Rows of layer boundaries from probabilities of the layers."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from medkit._core import check

BoundaryMethod = Literal["sum", "posterior", "map"]

_LOG_OF_ZERO = -1e4


class BoundaryPosterior(NamedTuple):
    """Where boundaries are, and how sure that is.

    Attributes:
        mean: Expected row of each boundary in each column.
        std: Standard deviation of that row.
    """

    mean: Float[Tensor, "*batch boundary width"]
    std: Float[Tensor, "*batch boundary width"]


def boundaries_from_probabilities(
    p: Float[Tensor, "*batch channel height width"],
    *,
    method: BoundaryMethod = "sum",
    temperature: float = 1.0,
    log_input: bool = False,
) -> Float[Tensor, "*batch channel-1 width"]:
    r"""Find the rows of the boundaries between layers that lie one below the other.

    With :math:`p_c(y)` the probability that row y of a column is in layer c, boundary k ends the
    layers 0 to k, and is the number of rows above it:

    .. math::
        \text{sum:}\quad & b_k = \sum_y \sum_{c \le k} p_c(y) \\
        \text{posterior:}\quad & b_k = \mathrm{E}[a_k], \qquad
            P(a) \propto \prod_c \prod_{a_{c-1} \le y < a_c} p_c(y)^{1/T}, \quad
            0 \le a_0 \le a_1 \le \ldots \le H \\
        \text{map:}\quad & b = \arg\max_a P(a)

    All three are in order and never missing, for any probabilities. Use "sum" to train and where
    the probabilities are good: it is exact for clean ones, lies between rows and costs a sum. Use
    "posterior" where they are noisy: rows of a wrong layer far from the boundary, or a few percent
    everywhere, hardly move it. Use "map" for the most probable class map in which the layers are
    in order. Both look at all ways to place the boundaries, in a time that grows with rows and
    layers; "sum" and "posterior" have gradients.

    Args:
        p: Probability of each layer, from top to bottom, adding up to one over the channels. A
            probability of zero counts as the smallest normal number of its type.
        method: One of the above.
        temperature: T of "posterior". Above 1 it trusts each row less; networks are wrong in whole
            patches, for which 4 does well. The others do not depend on it.
        log_input: Whether ``p`` holds logarithms of probabilities, as ``log_softmax`` gives; more
            exact for "posterior" and "map" where probabilities are tiny.

    Returns:
        Rows from 0 to the height, whole numbers for "map"; float64 for float64, else float32.

    Raises:
        TypeError: If ``p`` is not floating point.
        ValueError: If it has fewer than two channels or ``temperature`` is not positive.

    Example:
        >>> import torch
        >>> top = torch.tensor([1.0, 1.0, 0.75, 0.0, 0.0])
        >>> p = torch.stack([top, 1 - top])[..., None]
        >>> boundaries_from_probabilities(p)
        tensor([[2.7500]])
        >>> boundaries_from_probabilities(p, method="map")
        tensor([[3.]])

    References:
        Y. He et al., "Fully convolutional boundary regression for retina OCT segmentation", MICCAI,
        2019 (boundaries as expectations, kept in order). L. R. Rabiner, "A tutorial on hidden
        Markov models", Proceedings of the IEEE 77, 1989, equations 19-27 and 32-35 (posterior
        and most probable path, here for a chain that only moves down).
    """
    check.one_of("method", method, ("sum", "posterior", "map"))
    dtype = _checked(p, temperature)
    if method == "sum":
        rows = (p.to(dtype).exp() if log_input else p).sum(-2, dtype=dtype)
        return rows[..., :-1, :].cumsum(-2)
    scores = _scores(p, log_input=log_input)
    if method == "map":
        return _most_probable(scores.detach()).to(dtype)
    weights = _posterior(scores / temperature)
    return torch.stack([_mean(weight) for weight in weights], dim=-2).to(dtype)


def boundary_posterior(
    p: Float[Tensor, "*batch channel height width"],
    *,
    temperature: float = 1.0,
    log_input: bool = False,
) -> BoundaryPosterior:
    r"""Find the rows of the boundaries between layers, and how sure each of them is.

    The mean and the standard deviation of

    .. math::
        P(a) \propto \prod_c \prod_{a_{c-1} \le y < a_c} p_c(y)^{1/T}, \quad
        0 \le a_0 \le a_1 \le \ldots \le H

    over all ways to place the boundaries in order; the mean is that of
    ``boundaries_from_probabilities`` with "posterior". Use it to draw bands about lines and to
    find columns to look at. Rows of one column share their mistakes, so with a temperature of 1 the
    deviation is too small; compare it with errors on validation images.

    Args:
        p: Probability of each layer, from top to bottom, adding up to one over the channels.
        temperature: T. Above 1 it trusts each row less.
        log_input: Whether ``p`` holds logarithms of probabilities.

    Returns:
        Rows, float64 for float64, else float32; both have gradients.

    Raises:
        TypeError: If ``p`` is not floating point.
        ValueError: If it has fewer than two channels or ``temperature`` is not positive.

    Example:
        >>> import torch
        >>> top = torch.tensor([0.99, 0.99, 0.5, 0.01, 0.01])
        >>> result = boundary_posterior(torch.stack([top, 1 - top])[..., None])
        >>> result.mean, result.std
        (tensor([[2.5000]]), tensor([[0.5202]]))

    References:
        L. R. Rabiner, "A tutorial on hidden Markov models", Proceedings of the IEEE 77, 1989,
        equations 19-27, here for a chain that only moves down.
    """
    dtype = _checked(p, temperature)
    weights = _posterior(_scores(p, log_input=log_input) / temperature)
    means = [_mean(weight) for weight in weights]
    rows, least = _row_numbers(weights[0]), torch.finfo(weights[0].dtype).tiny
    deviations = [
        (weight * (rows - mean.unsqueeze(-2)).square()).sum(-2).clamp_min(least).sqrt()
        for weight, mean in zip(weights, means, strict=True)
    ]
    mean, std = (torch.stack(values, dim=-2).to(dtype) for values in (means, deviations))
    return BoundaryPosterior(mean, std)


def _checked(p: Tensor, temperature: float) -> torch.dtype:
    """Return the type of the rows, after checking the arguments."""
    check.positive("temperature", temperature)
    if not p.is_floating_point():
        raise TypeError(f"p must be floating point; got {p.dtype}")
    if p.ndim < 3 or p.shape[-3] < 2:
        rule = "(*batch, channel, height, width) with two channels or more"
        raise check.fail("p", rule, f"shape {tuple(p.shape)}")
    return torch.float64 if p.dtype == torch.float64 else torch.float32


def _scores(p: Tensor, *, log_input: bool) -> Tensor:
    """Return ``(*batch, boundary, height + 1, width)``, what it adds to log P to be at a row.

    Boundary k at row a has the sum over the rows above a of log p_k - log p_{k+1}. Sums over
    hundreds of rows are differences of large numbers, so they are in float64 where there is one.
    """
    wide = torch.float32 if p.device.type == "mps" else torch.float64
    if log_input:
        log_p = p.to(wide).nan_to_num(nan=torch.nan, neginf=_LOG_OF_ZERO)
    else:
        log_p = p.clamp(min=torch.finfo(p.dtype).tiny).to(wide).log()
    steps = log_p[..., :-1, :, :] - log_p[..., 1:, :, :]
    return F.pad(steps.cumsum(-2), (0, 0, 1, 0))


def _posterior(scores: Tensor) -> list[Tensor]:
    """Return the probability of each row for each boundary in turn, by forward-backward."""
    boundaries = scores.unbind(-3)
    above = [boundaries[0]]
    for score in boundaries[1:]:
        above.append(score + above[-1].logcumsumexp(-2))
    below = torch.zeros_like(boundaries[0])
    weights: list[Tensor] = []
    for k in reversed(range(len(boundaries))):
        if k + 1 < len(boundaries):
            below = (boundaries[k + 1] + below).flip(-2).logcumsumexp(-2).flip(-2)
        weights.append(torch.softmax(above[k] + below, dim=-2))
    return weights[::-1]


def _mean(weight: Tensor) -> Tensor:
    return (weight * _row_numbers(weight)).sum(-2)


def _row_numbers(weight: Tensor) -> Tensor:
    return torch.arange(weight.shape[-2], dtype=weight.dtype, device=weight.device)[:, None]


def _most_probable(scores: Tensor) -> Tensor:
    """Return the rows of the most probable placement in order, by dynamic programming."""
    best = scores.select(-3, 0)
    origins: list[Tensor] = []
    for score in scores.unbind(-3)[1:]:
        best, origin = best.cummax(-2)
        origins.append(origin)
        best = score + best
    rows = [best.argmax(-2, keepdim=True)]
    for origin in reversed(origins):
        rows.append(origin.gather(-2, rows[-1]))
    return torch.cat(rows[::-1], dim=-2)
