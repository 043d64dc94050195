"""Voxels at evenly spaced positions along each axis: the interpolation behind resampling."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Shaped
from torch import Tensor


def resize(
    data: Shaped[Tensor, "channel _d _h _w"],
    size: Sequence[int],
    step: Sequence[float],
    mode: Literal["linear", "nearest"],
) -> Shaped[Tensor, "channel d h w"]:
    """Sample ``size`` voxels per axis, ``step`` old voxels apart, around the same centre.

    Trilinear interpolation is one linear interpolation per axis. Positions outside are moved to
    the edge. float64 stays float64; everything else is interpolated in float32.
    """
    out = data
    if mode == "linear" and data.dtype not in {torch.float32, torch.float64}:
        out = data.to(torch.complex64 if data.is_complex() else torch.float32)
    for axis in range(3):
        count = out.shape[axis + 1]
        middle = (count - 1) / 2 - step[axis] * (size[axis] - 1) / 2
        index = torch.arange(size[axis], dtype=torch.float64, device=data.device)
        position = (index * step[axis] + middle).clamp(0, count - 1)
        if mode == "nearest":
            out = out.index_select(axis + 1, (position + 0.5).floor().long().clamp(max=count - 1))
        else:
            out = _lerp(out, axis + 1, position)
    return out


def _lerp(data: Tensor, axis: int, position: Tensor) -> Tensor:
    low = position.floor().long().clamp(max=max(0, data.shape[axis] - 2))
    high = (low + 1).clamp(max=data.shape[axis] - 1)
    shape = [-1 if i == axis else 1 for i in range(data.ndim)]
    weight = (position - low).to(data.real.dtype).reshape(shape)
    left, right = data.index_select(axis, low), data.index_select(axis, high)
    return torch.lerp(left, right, weight.to(data.dtype))
