"""The surface of a mask as marching cubes draws it: how much of it lies in each cube of voxels.

A cube spans eight neighbouring voxels (a square four). Where some of them belong to the mask and
some do not, the surface cuts the edges between them in the middle. On a face with two opposite
corners the rarer kind of corner of the cube is cut off alone, and a polygon that is not flat is
split into the fan of triangles of largest area in a cube of unit edges. These rules give the areas
of the ``surface-distance`` package of DeepMind for every cube and any spacing.
"""

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

Corner = tuple[int, ...]
Edge = tuple[Corner, Corner]
Polygon = list[Edge]


@lru_cache(maxsize=16)
def element_sizes(spacing: tuple[float, ...]) -> np.ndarray:
    """Return the area in mm^2 (length in mm in 2D) of the surface in each of 256 (16) cubes.

    Args:
        spacing: Edges of a voxel in mm, three or two.
    """
    draw = _polygons if len(spacing) == 3 else _segments
    scale = np.array(spacing)
    codes = range(2 ** (2 ** len(spacing)))
    return np.array([sum(_size(each, scale) for each in draw(code)) for code in codes])


def cube_codes(mask: np.ndarray) -> np.ndarray:
    """Return which corners of each cube belong to a mask, the first one in the highest bit.

    Args:
        mask: Boolean; outside of it lies nothing. The result is one longer along each axis.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    corners = _corners(mask.ndim)
    codes = np.zeros([n + 1 for n in mask.shape], dtype=np.uint8)
    for corner in corners:
        part = tuple(slice(c, c + n) for c, n in zip(corner, codes.shape, strict=True))
        codes = codes << 1 | padded[part]
    return codes


def _corners(dims: int) -> list[Corner]:
    return list(itertools.product((0, 1), repeat=dims))


def _inside(code: int, dims: int) -> dict[Corner, bool]:
    corners = _corners(dims)
    return {c: bool(code >> (len(corners) - 1 - i) & 1) for i, c in enumerate(corners)}


def _size(polygon: Polygon, scale: np.ndarray) -> float:
    """Return the length of a segment, or the area of a polygon split into triangles."""
    if len(polygon) == 2:
        first, second = (_middle(edge) * scale for edge in polygon)
        return float(np.linalg.norm(second - first))
    count = range(len(polygon))
    fans = [[*polygon[k:], *polygon[:k]] for k in count]
    widest = max(fans, key=lambda fan: round(_fan_area(fan, np.ones(3)), 6))
    return _fan_area(widest, scale)


def _fan_area(fan: Polygon, scale: np.ndarray) -> float:
    apex, *rim = (_middle(edge) * scale for edge in fan)
    pairs = itertools.pairwise(rim)
    return sum(float(np.linalg.norm(np.cross(a - apex, b - apex))) / 2 for a, b in pairs)


def _middle(edge: Edge) -> np.ndarray:
    return np.add(*edge) / 2


def _segments(code: int) -> list[Polygon]:
    """Return the lines that cut a square."""
    return _lines(_corners(2), _inside(code, 2), alone=True)


def _polygons(code: int) -> list[Polygon]:
    """Return the closed lines that cut the faces of a cube."""
    inside = _inside(code, 3)
    alone = sum(inside.values()) <= 4
    lines: list[Polygon] = []
    for axis, side in itertools.product(range(3), (0, 1)):
        face = [corner for corner in _corners(3) if corner[axis] == side]
        lines += _lines(face, inside, alone=alone)
    return _closed(lines)


def _lines(face: Sequence[Corner], inside: dict[Corner, bool], *, alone: bool) -> list[Polygon]:
    """Return the lines that cut a face; if there are two, around each corner that is ``alone``."""
    pairs = itertools.combinations(face, 2)
    edges = [p for p in pairs if sum(a != b for a, b in zip(*p, strict=True)) == 1]
    cut = [edge for edge in edges if inside[edge[0]] != inside[edge[1]]]
    if len(cut) < 4:
        return [cut] if cut else []
    return [[e for e in cut if corner in e] for corner in face if inside[corner] == alone]


def _closed(lines: list[Polygon]) -> list[Polygon]:
    """Return polygons made of lines that share their ends."""
    ends: dict[Edge, list[Edge]] = {}
    for first, second in lines:
        ends.setdefault(first, []).append(second)
        ends.setdefault(second, []).append(first)
    polygons: list[Polygon] = []
    while ends:
        polygon = [next(iter(ends))]
        while following := [edge for edge in ends.get(polygon[-1], ()) if edge not in polygon]:
            polygon.append(following[0])
        for edge in polygon:
            del ends[edge]
        polygons.append(polygon)
    return polygons
