"""Soft morphology in plain loops over voxels, in float64, without torch.

A level is an array of positions: each voxel says which voxel of the image it is a copy of.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np

Index = tuple[int, ...]


def erode(x: np.ndarray, level: np.ndarray, inside: np.ndarray) -> np.ndarray:
    return _pick(x, level, inside, reach=lambda step: sum(map(abs, step)) <= 1, largest=False)


def dilate(x: np.ndarray, level: np.ndarray, inside: np.ndarray) -> np.ndarray:
    return _pick(x, level, inside, reach=lambda _: True, largest=True)


def _pick(x, level, inside, *, reach, largest) -> np.ndarray:
    """Return for each voxel the smallest or largest neighbour; ties in the order of memory."""
    flat = x.ravel()
    steps = [step for step in product((-1, 0, 1), repeat=x.ndim) if reach(step)]
    result = level.copy()
    for voxel in np.ndindex(x.shape):
        if inside[voxel]:
            found = [level[u] for u in _neighbours(voxel, steps, x.shape) if inside[u]]
            ordered = sorted(found, key=lambda i: (flat[i], i))
            result[voxel] = ordered[-1] if largest else ordered[0]
    return result


def _neighbours(voxel: Index, steps: list[Index], shape: Index) -> Iterator[Index]:
    for step in steps:
        u = tuple(v + d for v, d in zip(voxel, step, strict=True))
        if all(0 <= i < n for i, n in zip(u, shape, strict=True)):
            yield u


def skeleton(
    x: np.ndarray,
    iterations: int,
    gradient: np.ndarray | None = None,
    inside: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the soft skeleton of one image, and the gradient that ``gradient`` gives the image."""
    x = x.astype(np.float64)
    inside = np.ones(x.shape, bool) if inside is None else inside
    gradient = np.zeros(x.shape) if gradient is None else gradient
    level = np.arange(x.size).reshape(x.shape)
    flat = x.ravel()
    s = np.zeros(x.shape)
    tape = []
    for _ in range(iterations + 1):
        eroded = erode(x, level, inside)
        opened = dilate(x, eroded, inside)
        d, before, s = np.zeros(x.shape), s, s.copy()
        for v in np.ndindex(x.shape):
            if inside[v]:
                d[v] = max(flat[level[v]] - flat[opened[v]], 0.0)
                s[v] += max(d[v] - before[v] * d[v], 0.0)
        tape.append((level, opened, d, before))
        level = eroded
    g_s, g_x = gradient.astype(np.float64).copy(), np.zeros(x.size)
    for level, opened, d, before in reversed(tape):
        for v in np.ndindex(x.shape):
            if d[v] - before[v] * d[v] > 0:
                g_d = g_s[v] * (1 - before[v])
                g_x[level[v]] += g_d
                g_x[opened[v]] -= g_d
                g_s[v] *= 1 - d[v]
    return s, g_x.reshape(x.shape)
