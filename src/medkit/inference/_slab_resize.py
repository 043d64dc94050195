"""Linear interpolation of a volume that arrives slab by slab."""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resized(
    slabs: Iterable[tuple[int, Tensor]], depth: int, size: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """Yield slabs of the resized volume as soon as the planes they lie between have come.

    The values are those of linear interpolation of the whole volume with half-pixel centres.

    Args:
        slabs: First plane and scores ``(batch, channel, planes, *rest)``, in order, of a volume
            of ``depth`` planes.
        depth: Planes of the volume.
        size: Spatial size of the result.
    """
    waiting, first, given = None, 0, 0
    below = [_source(plane, depth, size[0]) for plane in range(size[0])]
    for _, scores in slabs:
        planes = _in_plane(scores, size[1:])
        waiting = planes if waiting is None else torch.cat([waiting, planes], dim=2)
        known = first + waiting.shape[2]
        ready = given
        while ready < size[0] and min(math.floor(below[ready]) + 1, depth - 1) < known:
            ready += 1
        if ready > given:
            yield given, _between(waiting, first, below[given:ready], depth)
            given = ready
        if given < size[0]:
            passed = min(math.floor(below[given]), known - 1) - first
            waiting, first = waiting[:, :, passed:], first + passed


def _source(plane: int, depth: int, size: int) -> float:
    """Return where a plane of the result lies between planes of the volume."""
    return min(max((plane + 0.5) * depth / size - 0.5, 0.0), depth - 1.0)


def _between(waiting: Tensor, first: int, places: Sequence[float], depth: int) -> Tensor:
    """Return the planes at the given places, all of them between planes that wait."""
    low = [math.floor(place) for place in places]
    high = [min(k + 1, depth - 1) for k in low]
    share = waiting.new_tensor([place - k for place, k in zip(places, low, strict=True)])
    share = share.reshape(-1, *[1] * (waiting.ndim - 3))
    lower = waiting[:, :, [k - first for k in low]]
    return lower.lerp_(waiting[:, :, [k - first for k in high]], share)


def _in_plane(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Return each plane resized."""
    batch, channels, planes, *rest = scores.shape
    if tuple(rest) == tuple(size):
        return scores
    mode = "bilinear" if len(rest) == 2 else "linear"
    flat = scores.transpose(1, 2).reshape(batch * planes, channels, *rest)
    flat = F.interpolate(flat, size=tuple(size), mode=mode, align_corners=False)
    return flat.reshape(batch, planes, channels, *size).transpose(1, 2)
