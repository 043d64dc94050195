"""Values of a tensor at the places of a warp.

``grid_sample`` goes through places one by one. Here one index is made for many places, and each of
their neighbours is a gather at a fixed distance from it, which takes half the time on a CPU.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_SLAB = {"cpu": 2**17}  # voxels gone through at a time, for the cache
_LARGE_SLAB = 2**24  # where launches cost more than caches save
_BEFORE, _BEHIND = 1, 2  # voxels around the old grid, so that every neighbour exists


def gathered(
    tensor: Tensor,
    matrix: np.ndarray,
    size: Sequence[int],
    *,
    linear: bool,
    fill: float | None,
    field: Tensor | None = None,
) -> Tensor:
    """Return a tensor at ``matrix`` times every index of a grid, plus a field of displacements.

    Args:
        tensor: (channel, *old), of floating point if ``linear``.
        matrix: From new to old indices.
        size: Of the new grid.
        linear: Whether values are mixed; else the nearest is taken, of two the later.
        fill: What lies around the old grid; None repeats its edge.
        field: (axis, *size) in old voxels, or None.

    Returns:
        (channel, *size).
    """
    around = (_BEFORE, _BEHIND) * len(size)
    padded = F.pad(tensor, around, value=0 if fill is None else fill)
    flat, old = padded.flatten(1), tensor.shape[1:]
    whole = torch.int32 if flat.shape[1] < 2**31 else torch.int64
    strides = [math.prod(padded.shape[axis + 2 :]) for axis in range(len(size))]
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    like = torch.empty(0, dtype=dtype, device=tensor.device)
    slabs: list[Tensor] = []
    for places in _slabs(matrix, size, like, shift=0 if linear else 0.5, field=field):
        index = torch.zeros((), dtype=whole, device=tensor.device)
        shares: list[Tensor] = []
        for place, count, stride in zip(places, old, strides, strict=True):
            place.clamp_(*_ends(count, linear=linear, repeats=fill is None))
            index = place.to(whole).mul_(stride).add_(index)
            if linear:
                shares.append(place.frac_().flatten())
        mixed = [_mixed(channel, index.flatten(), shares, strides) for channel in flat]
        slabs.append(torch.stack(mixed).reshape(-1, *index.shape))
    return torch.cat(slabs, 1)


def _ends(count: int, *, linear: bool, repeats: bool) -> tuple[float, float]:
    """Return the least and the largest place along an axis, from the first voxel of the padding."""
    if not repeats:
        return 0, count + _BEFORE
    return _BEFORE, count + _BEFORE - (1 if linear else 0.5)


def _slabs(
    matrix: np.ndarray,
    size: Sequence[int],
    like: Tensor,
    *,
    shift: float,
    field: Tensor | None,
) -> Iterator[list[Tensor]]:
    """Yield the places of some layers of the new grid, from the first voxel of the padding."""
    dims = len(size)
    index = [torch.arange(count, dtype=torch.float64) for count in size]
    planes: list[Tensor] = []
    layers: list[Tensor] = []
    for *steps, offset in matrix[:-1]:
        plane = torch.zeros(1, dtype=torch.float64)
        for step, along in zip(steps[1:], index[1:], strict=True):
            plane = plane.unsqueeze(-1) + step * along
        planes.append(plane.to(like))
        first = steps[0] * index[0] + (offset + shift + _BEFORE)
        layers.append(first.to(like).reshape(-1, *(1,) * (dims - 1)))
    voxels = _SLAB.get(like.device.type, _LARGE_SLAB)
    thickness = max(1, voxels // max(1, math.prod(size[1:])))
    for start in range(0, size[0], thickness):
        part = slice(start, start + thickness)
        places = [plane + layer[part] for plane, layer in zip(planes, layers, strict=True)]
        if field is not None:
            for place, along in zip(places, field, strict=True):
                place.add_(along[part])
        yield places


def _mixed(
    voxels: Tensor, index: Tensor, shares: Sequence[Tensor], strides: Sequence[int]
) -> Tensor:
    """Return voxels, mixed with their next ones along each axis by a share of these."""
    if not shares:
        return voxels.index_select(0, index)
    near = _mixed(voxels, index, shares[1:], strides[1:])
    far = _mixed(voxels[strides[0] :], index, shares[1:], strides[1:])
    return torch.lerp(near, far, shares[0])
