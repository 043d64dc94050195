"""Smallest and largest value among a voxel's neighbours, and the voxel they come from.

Tensors here are ``(row, *spatial)``, contiguous, and results go into buffers: the passes are so
short that allocating their results would take most of the time.
"""

import torch
from torch import Tensor

_LOW_BITS = 0xFFFFFFFF


def erode_into(result: Tensor, x: Tensor) -> None:
    """Write the minimum over each voxel and its neighbours along each axis (7 voxels in 3D)."""
    result.copy_(x)
    for axis in range(1, x.ndim):
        behind, ahead = _shifted(x, axis)
        first, last = _shifted(result, axis)
        last.clamp_max_(behind)
        first.clamp_max_(ahead)


def dilate_with(x: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return the maximum over the cube of 3 voxels around each, in one of two buffers."""
    for axis in range(1, x.ndim):
        behind, ahead = _shifted(x, axis)
        one.copy_(x)
        first, last = _shifted(one, axis)
        last.clamp_min_(behind)
        first.clamp_min_(ahead)
        x, one, other = one, other, one
    return x


def _shifted(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return all but the last and all but the first voxels along an axis."""
    length = x.shape[axis] - 1
    return x.narrow(axis, 0, length), x.narrow(axis, 1, length)


def voxel_keys(x: Tensor) -> Tensor:
    """Return distinct int64 numbers in the order of the values, ties in the order of memory.

    A minimum or a maximum over voxels is a copy of one of them, and that of their keys is the key
    of that one: its position stands in the low 32 bits.
    """
    if x.dtype == torch.float64:
        order = x.flatten().argsort(stable=True)
        high = torch.empty_like(order).scatter_(0, order, torch.arange(x.numel(), device=x.device))
        high = high.view(x.shape)
    else:
        bits = x.float().view(torch.int32)
        high = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64)  # orders negative floats too
    keys = high.bitwise_left_shift_(32).flatten()
    return keys.bitwise_or_(torch.arange(x.numel(), device=x.device)).view(x.shape)


def extremes(dtype: torch.dtype) -> tuple[float, float] | tuple[int, int]:
    """Return a value below and one above all others, which, as keys, have a position too."""
    if dtype.is_floating_point:
        return -torch.inf, torch.inf
    bounds = torch.iinfo(dtype)
    return bounds.min, bounds.max & ~_LOW_BITS if dtype == torch.int64 else bounds.max


def to_positions_(keys: Tensor) -> Tensor:
    """Turn keys in place into positions in memory of their voxels."""
    return keys.bitwise_and_(_LOW_BITS)
