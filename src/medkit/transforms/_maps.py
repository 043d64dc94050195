"""The warps that spatial transforms are made of."""

from collections.abc import Sequence

import numpy as np

from ._warp import Warp


def crop_map(old: Sequence[int], start: Sequence[int], size: Sequence[int]) -> Warp:
    """Return the box that begins at ``start``, inside the grid or not."""
    matrix = np.eye(len(old) + 1)
    matrix[:-1, -1] = start
    return Warp(matrix, tuple(old), tuple(size))


def flip_map(old: Sequence[int], axes: Sequence[int]) -> Warp:
    """Return the grid with some axes reversed."""
    matrix = np.eye(len(old) + 1)
    for axis in axes:
        matrix[axis, axis] = -1
        matrix[axis, -1] = old[axis] - 1
    return Warp(matrix, tuple(old), tuple(old))


def turn_map(old: Sequence[int], times: int, axes: Sequence[int]) -> Warp:
    """Return the grid turned by quarters, as ``numpy.rot90``."""
    warp = flip_map(old, ())
    a, b = axes
    for _ in range(times % 4):
        size = list(warp.size)
        matrix = np.eye(len(old) + 1)
        matrix[[a, b]] = 0
        matrix[a, b] = 1
        matrix[b, a] = -1
        matrix[b, -1] = size[b] - 1
        size[a], size[b] = size[b], size[a]
        warp = warp.then(Warp(matrix, warp.size, tuple(size)))
    return warp


def permute_map(old: Sequence[int], axes: Sequence[int]) -> Warp:
    """Return the grid with its axes in another order."""
    matrix = np.eye(len(old) + 1)[:, [*axes, len(old)]]
    return Warp(matrix, tuple(old), tuple(old[axis] for axis in axes))


def scale_map(old: Sequence[int], size: Sequence[int], step: Sequence[float]) -> Warp:
    """Return a grid about the same centre whose voxels are ``step`` old ones apart."""
    return centred_map(np.diag(np.asarray(step, dtype=np.float64)), old, size)


def centred_map(turn: np.ndarray, old: Sequence[int], size: Sequence[int]) -> Warp:
    """Return a grid about the same centre, turned, scaled or sheared by a matrix."""
    matrix = np.eye(len(old) + 1)
    matrix[:-1, :-1] = turn
    centre, new_centre = (np.array(old) - 1) / 2, (np.array(size) - 1) / 2
    matrix[:-1, -1] = centre - turn @ new_centre
    return Warp(matrix, tuple(old), tuple(size))
