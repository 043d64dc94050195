"""Weights of interpolation along one axis: linear, cubic spline, Gaussian smoothing."""

import math
from typing import Literal

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

Mode = Literal["linear", "nearest", "cubic"]

MODES = ("linear", "nearest", "cubic")

_FWHM = math.sqrt(8 * math.log(2))  # full width at half maximum of a Gaussian, in deviations
_WIDTH = 4.0  # deviations from the middle of a Gaussian to where it is cut off


def taps(
    position: Float64[Tensor, "*place"], count: int, mode: Mode
) -> tuple[Int64[Tensor, "tap *place"], Float64[Tensor, "tap *place"]]:
    """Return which samples of an axis make the value at each position, and their weights.

    Positions lie within the axis. Cubic weights are those of the coefficients of the spline.
    """
    if mode == "nearest":
        index = (position + 0.5).floor().clamp(max=count - 1)
        return index.long().unsqueeze(0), torch.ones_like(position).unsqueeze(0)
    low = position.floor().clamp(max=max(0, count - 2))
    t = position - low
    if mode == "linear":
        index = torch.stack([low, (low + 1).clamp(max=count - 1)]).long()
        return index, torch.stack([1 - t, t])
    weights = [(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3]
    steps = torch.arange(-1, 3, device=position.device).reshape(-1, *(1,) * position.ndim)
    return _mirrored(low.long() + steps, count), torch.stack(weights) / 6


def sampling_matrix(
    position: Float64[Tensor, "size"], count: int, mode: Mode
) -> Float64[Tensor, "size count"]:
    """Return the weight of each sample of an axis in the value at each position."""
    index, weight = taps(position, count, mode)
    matrix = position.new_zeros(len(position), count).scatter_add_(1, index.T, weight.T)
    return matrix @ spline_matrix(count, position.device) if mode == "cubic" else matrix


def spline_matrix(count: int, device: torch.device) -> Float64[Tensor, "count count"]:
    """Return what makes coefficients of a cubic spline from its values, mirrored at the ends."""
    if count == 1:
        return torch.ones(1, 1, dtype=torch.float64, device=device)
    own = torch.arange(count, device=device)
    values = torch.zeros(count, count, dtype=torch.float64, device=device)
    for step, weight in ((-1, 1 / 6), (0, 4 / 6), (1, 1 / 6)):
        index = _mirrored(own + step, count).unsqueeze(1)
        values.scatter_add_(1, index, torch.full_like(values[:, :1], weight))
    return values.inverse()


def smoothing_matrix(
    count: int, step: float, device: torch.device
) -> Float64[Tensor, "count count"]:
    """Return the Gaussian that turns samples one apart into samples ``step`` apart.

    A voxel is taken for a Gaussian as wide, at half its height, as the voxels are apart. The edge
    value is repeated.
    """
    if step <= 1:
        return torch.eye(count, dtype=torch.float64, device=device)
    deviation = math.sqrt(step**2 - 1) / _FWHM
    radius = math.ceil(_WIDTH * deviation)
    steps = torch.arange(-radius, radius + 1, device=device)
    weight = torch.exp(-0.5 * (steps.double() / deviation) ** 2)
    index = (torch.arange(count, device=device).unsqueeze(1) + steps).clamp(0, count - 1)
    matrix = torch.zeros(count, count, dtype=torch.float64, device=device)
    return matrix.scatter_add_(1, index, (weight / weight.sum()).expand(count, -1))


def along_axis(input: Tensor, axis: int, matrix: Float64[Tensor, "size count"]) -> Tensor:
    """Return the product of a matrix with every line along an axis."""
    return (input.movedim(axis, -1) @ matrix.to(input.dtype).T).movedim(-1, axis)


def _mirrored(index: Tensor, count: int) -> Tensor:
    """Return indices folded back at the outermost samples."""
    period = max(1, 2 * (count - 1))
    folded = index % period
    return torch.minimum(folded, period - folded)
