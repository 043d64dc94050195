"""Distances between the surfaces of two masks."""

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Literal, NamedTuple, Protocol, cast

import numpy as np

from ._surface_elements import cube_codes, element_sizes

Surface = Literal["voxel", "surfel"]
SURFACES = ("voxel", "surfel")


class SurfaceDistances(NamedTuple):
    """Distances in mm from every element of each surface to the nearest of the other.

    Attributes:
        to_target: From each element of the predicted surface.
        to_prediction: From each element of the true surface.
        predicted_sizes: Share of the predicted surface in each of its elements.
        target_sizes: Share of the true surface in each of its elements.
    """

    to_target: np.ndarray
    to_prediction: np.ndarray
    predicted_sizes: np.ndarray
    target_sizes: np.ndarray


class _Tree(Protocol):
    def query(
        self, x: np.ndarray, *, distance_upper_bound: float
    ) -> tuple[np.ndarray, np.ndarray]: ...


def surface_distances(
    prediction: np.ndarray,
    target: np.ndarray,
    spacing: Sequence[float],
    surface: Surface,
    *,
    limit: float = math.inf,
) -> SurfaceDistances:
    """Return the distances between the surfaces of two boolean masks that are not empty.

    The nearest element is found in a k-d tree of the surfaces alone, so the time is that of the
    surfaces and not of the volume; nothing lies outside of the arrays, which are best cropped.

    Args:
        prediction: Predicted mask.
        target: True mask.
        spacing: Edges of a voxel in mm.
        surface: Voxels of the mask with a neighbour outside of it, each counting one, or surfels:
            cubes of eight voxels that the surface passes through, each counting its area.
        limit: Distance in mm beyond which a distance may be returned as infinite.
    """
    flat: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    for mask in (prediction, target):
        index, size = _elements(mask, spacing, surface)
        flat.append(index)
        sizes.append(size)
    shape = [n + (surface == "surfel") for n in target.shape]
    axes = (np.unravel_index(index, shape) for index in flat)
    places = [np.stack(each, axis=-1) * np.asarray(spacing, dtype=float) for each in axes]
    to_target = _nearest(places[0], places[1], limit)
    to_prediction = _nearest(places[1], places[0], limit)
    return SurfaceDistances(to_target, to_prediction, *sizes)


def _elements(
    mask: np.ndarray, spacing: Sequence[float], surface: Surface
) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat index of each element of a surface and its size."""
    if surface == "voxel":
        index = np.flatnonzero(_edge(mask))
        return index, np.ones(len(index))
    codes = cube_codes(mask).ravel()
    full = 2 ** (2**mask.ndim) - 1
    index = np.flatnonzero((codes > 0) & (codes < full))
    return index, element_sizes(tuple(map(float, spacing)))[codes[index]]


def _edge(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of a mask with a neighbour across a face outside of it or of the image."""
    inner = np.pad(mask, 1)
    deep = mask.copy()
    for axis in range(mask.ndim):
        for side in (0, 2):
            part = [slice(1, -1)] * mask.ndim
            part[axis] = slice(side, side + mask.shape[axis])
            deep &= inner[tuple(part)]
    return mask & ~deep


def _nearest(places: np.ndarray, others: np.ndarray, limit: float) -> np.ndarray:
    """Return the distance of each place to the nearest of the others, infinite beyond a limit."""
    grow = cast("Callable[..., _Tree]", import_module("scipy.spatial").cKDTree)
    tree = grow(others, balanced_tree=False, compact_nodes=False)
    # the tree excludes the bound itself
    return tree.query(places, distance_upper_bound=limit * (1 + 1e-6) + 1e-6)[0]
