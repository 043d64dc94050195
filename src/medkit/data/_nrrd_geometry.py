"""Where the voxels of an NRRD file are: spaces, directions and units to an affine in RAS+ mm."""

from typing import NamedTuple

import numpy as np

from medkit._core.file_errors import GeometryError

from ._notice import NO_ORIENTATION, Notice
from ._nrrd_header import NrrdHeader

_ABBREVIATIONS = {
    "ras": "right-anterior-superior",
    "las": "left-anterior-superior",
    "lps": "left-posterior-superior",
}
_SIGNS = {
    "right": (0, 1), "left": (0, -1), "anterior": (1, 1), "posterior": (1, -1),
    "superior": (2, 1), "inferior": (2, -1),
}  # fmt: skip
_NAMELESS = {"scanner-xyz", "3d-right-handed", "3d-left-handed", "xyz"}
_MM = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "µm": 0.001, "": 1.0}
_SPATIAL_KINDS = {"domain", "space", "???", "none"}
_THICKNESS = Notice("no_thickness", "a plane states no thickness: 1 mm")


class NrrdPlace(NamedTuple):
    """Which axis holds the channels, and where the others lie."""

    channel_axis: int | None
    """Counted from the fastest."""
    affine: np.ndarray
    """From (w, h, d) to RAS+ mm."""
    notices: tuple[Notice, ...]


def nrrd_place(header: NrrdHeader, axes: int) -> NrrdPlace:
    """Return the place of the voxels; a file that says nothing about it gets a notice."""
    world = _world(header)
    length = 3 if world is not None else header.whole("space dimension", 3, 1, 3)
    vectors = header.vectors("space directions", axes, length)
    channel = _channel_axis(header, axes, vectors)
    scale = _millimetres(header)
    affine, notices = np.eye(4), ()
    if world is None or vectors is None:
        spacing = _spacings(header, axes, channel, vectors, scale)
        affine[range(3), range(3)] = spacing
        return NrrdPlace(channel, affine, (_unknown(),))
    columns = [vector for vector in vectors if vector is not None]
    if len(columns) == 2:
        columns.append(_normal(header, *columns) / scale)
        notices = (_THICKNESS,)
    origin = header.vectors("space origin", 1, 3)
    where = origin[0] if origin is not None and origin[0] is not None else np.zeros(3)
    affine[:3] = world @ np.column_stack([*columns, where]) * scale
    return NrrdPlace(channel, affine, notices)


def _world(header: NrrdHeader) -> np.ndarray | None:
    """Return the matrix from the space of the file to RAS, or None where it has no name."""
    name = header.text("space", "").lower()
    name = _ABBREVIATIONS.get(name, name)
    if not name or name in _NAMELESS:
        return None
    world = np.zeros((3, 3))
    for column, word in enumerate(name.split("-")):
        if word not in _SIGNS or column > 2:
            raise header.wrong("space", "three directions such as left-posterior-superior", name)
        row, sign = _SIGNS[word]
        world[row, column] = sign
    if abs(np.linalg.det(world)) != 1:
        raise header.wrong("space", "three directions such as left-posterior-superior", name)
    return world


def _channel_axis(
    header: NrrdHeader, axes: int, vectors: list[np.ndarray | None] | None
) -> int | None:
    """Return the one axis that is not of space, if there is one."""
    if vectors is not None:
        others = [axis for axis, vector in enumerate(vectors) if vector is None]
    else:
        kinds = header.words("kinds", axes) or ["domain"] * axes
        others = [axis for axis, kind in enumerate(kinds) if kind.lower() not in _SPATIAL_KINDS]
    spatial = axes - len(others)
    if len(others) > 1 or spatial not in (2, 3):
        found = f"{spatial} of space and {len(others)} others"
        raise header.wrong("axes", "2 or 3 of space and one of channels at most", found)
    return others[0] if others else None


def _spacings(
    header: NrrdHeader,
    axes: int,
    channel: int | None,
    vectors: list[np.ndarray | None] | None,
    scale: float,
) -> list[float]:
    """Return the mm between voxels along w, h and d."""
    words = header.words("spacings", axes)
    if vectors is not None:
        values = [float(np.linalg.norm(vector)) for vector in vectors if vector is not None]
    elif words is not None:
        kept = [word for axis, word in enumerate(words) if axis != channel]
        try:
            values = [1.0 if word.lower() == "nan" else float(word) for word in kept]
        except ValueError as error:
            raise header.wrong("spacings", "numbers", " ".join(words)[:80]) from error
    else:
        return [1.0, 1.0, 1.0]
    values = [abs(value) * scale for value in values]
    if not all(0 < value < np.inf for value in values):
        raise GeometryError("positive", path=header.path, field="spacings", value=values)
    return [*values, 1.0][:3]


def _millimetres(header: NrrdHeader) -> float:
    """Return the factor from the unit of the space to mm."""
    units = {unit.strip('"').lower() for unit in header.text("space units", "").split()}
    if len(units) > 1 or not units <= set(_MM):
        known = ", ".join(unit for unit in _MM if unit)
        raise header.wrong("space units", f"one of {known}", sorted(units))
    return _MM[units.pop()] if units else 1.0


def _normal(header: NrrdHeader, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    normal = np.cross(first, second)
    length = float(np.linalg.norm(normal))
    if not length:
        raise GeometryError(
            "invertible", path=header.path, field="space directions", value="parallel vectors"
        )
    return normal / length


def _unknown() -> Notice:
    return Notice(NO_ORIENTATION, "the file names no space: axes and origin are unknown")
