"""Distances between the surfaces of two masks."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Literal, NamedTuple, Protocol, cast

import numpy as np

from medkit.metrics._surface_elements import cube_codes, element_sizes

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
    def query(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def surface_distances(
    prediction: np.ndarray, target: np.ndarray, spacing: Sequence[float], surface: Surface
) -> SurfaceDistances:
    """Return the distances between the surfaces of two boolean masks that are not empty.

    The nearest element is found in a k-d tree of the surfaces alone, so the time is that of the
    surfaces and not of the volume.

    Args:
        prediction: Predicted mask.
        target: True mask.
        spacing: Edges of a voxel in mm.
        surface: Voxels of the mask with a neighbour outside of it, each counting one, or surfels:
            cubes of eight voxels that the surface passes through, each counting its area.
    """
    box = _box(prediction | target)
    places: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    for mask in (prediction[box], target[box]):
        index, size = _elements(mask, spacing, surface)
        places.append(index * np.asarray(spacing, dtype=float))
        sizes.append(size)
    to_target, to_prediction = _nearest(*places), _nearest(*reversed(places))
    return SurfaceDistances(to_target, to_prediction, *sizes)


def _elements(
    mask: np.ndarray, spacing: Sequence[float], surface: Surface
) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each element of a surface and its size."""
    if surface == "voxel":
        index = np.argwhere(_edge(mask))
        return index, np.ones(len(index))
    codes = cube_codes(mask)
    index = np.argwhere((codes > 0) & (codes < 2 ** (2**mask.ndim) - 1))
    return index, element_sizes(tuple(map(float, spacing)))[codes[tuple(index.T)]]


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


def _nearest(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the distance of each place to the nearest of the others."""
    tree = cast("Callable[[np.ndarray], _Tree]", import_module("scipy.spatial").cKDTree)(others)
    return tree.query(places)[0]


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box that holds a mask."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        inside = np.flatnonzero(np.any(mask, axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)
