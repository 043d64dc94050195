"""From the positions of planes to their order and an affine; gaps and doubles are named."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medkit._core.file_errors import GeometryError
from medkit.ops import ras_to_lps

from ._dicom_frames import Frame
from ._notice import NO_ORIENTATION, Notice

_SMALLEST_TOLERANCE = 0.01  # mm
_TOLERANCE = 0.01  # of the distance between planes
_TILT = 1e-3  # sine of the angle to the normal above which a grid is sheared


class Plane(NamedTuple):
    """A frame and the file it is in."""

    path: str
    frame: Frame

    def __str__(self) -> str:
        name = Path(self.path).name
        return f"{name} (frame {self.frame.number + 1})" if self.frame.number else name


class Arrangement(NamedTuple):
    """Planes in the order of a volume, and its affine."""

    planes: tuple[Plane, ...]
    affine: np.ndarray
    """From (d, h, w) to RAS+ mm."""
    notices: tuple[Notice, ...]


def arrange(planes: Sequence[Plane]) -> Arrangement:
    """Sort planes of one orientation along their normal; raise unless they are evenly spaced.

    Positions decide; instance numbers, slice locations and stated distances do not. A step between
    planes that is not along the normal (a tilted gantry) gives a sheared affine.
    """
    first = planes[0].frame
    notices: list[Notice] = []
    if len(planes) == 1 and (first.position is None or first.orientation is None):
        return _without_place(planes[0])
    places: list[tuple[float, ...]] = []
    directions: list[tuple[float, ...]] = []
    for plane in planes:
        if plane.frame.position is None or plane.frame.orientation is None:
            raise GeometryError(
                "there for every plane",
                path=plane.path,
                field="ImagePositionPatient and ImageOrientationPatient",
                value=f"none in {plane}",
                remedy="Without them the order and the distance of the planes are unknown.",
            )
        places.append(plane.frame.position)
        directions.append(plane.frame.orientation)
    row, column = np.array(directions, np.float64).mean(axis=0).reshape(2, 3)
    spacing = in_plane(planes[0], notices)
    normal = np.cross(row, column)
    positions = np.array(places, np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    ordered = tuple(planes[int(i)] for i in order)
    origin, step = _line(ordered, positions[order], normal, notices)
    affine = plane_affine(origin, step, column * spacing[0], row * spacing[1])
    return Arrangement(ordered, affine, tuple(notices))


def plane_affine(
    origin: np.ndarray, step: np.ndarray, down: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Return the matrix to RAS+ from the first voxel and the steps along d, h and w, in LPS."""
    lps = np.eye(4)
    lps[:3] = np.stack((step, down, right, origin), axis=1)
    return ras_to_lps(lps)


def fit_line(positions: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return place 0, the step, and how far off each position is, on the line of least squares."""
    middle, centre = numbers.mean(), positions.mean(axis=0)
    steps = numbers - middle
    step = steps @ (positions - centre) / (steps @ steps)
    off = np.linalg.norm(positions - centre - steps[:, None] * step, axis=1)
    return centre - middle * step, step, off


def tolerance_of(gap: float) -> float:
    """Return how far in mm planes at this distance may be off their place."""
    return max(_SMALLEST_TOLERANCE, _TOLERANCE * gap)


def note_tilt(step: np.ndarray, normal: np.ndarray, notices: list[Notice]) -> None:
    """Add a notice if the step between planes is not along their normal."""
    across = step - (step @ normal) * normal
    sine = float(np.linalg.norm(across) / np.linalg.norm(step))
    if sine > _TILT:
        angle = np.degrees(np.arcsin(min(1.0, sine)))
        notices.append(Notice("tilted", f"planes are tilted by {angle:.3g} degrees: sheared grid"))


def _line(
    planes: tuple[Plane, ...], positions: np.ndarray, normal: np.ndarray, notices: list[Notice]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first position and the step of the line that the positions lie on."""
    if len(planes) == 1:
        return positions[0], normal * thickness_of(planes[0], notices)
    heights = positions @ normal
    gaps = np.diff(heights)
    usual = int(np.argsort(gaps)[(len(gaps) - 1) // 2])  # the lower median: gaps are larger
    middle = float(gaps[usual])
    tolerance = tolerance_of(middle)
    _check_doubles(planes, gaps)
    origin, step, off = fit_line(positions, np.arange(len(planes)))
    if off.max() > tolerance:
        raise _uneven(planes, np.diff(positions, axis=0), gaps, usual, tolerance)
    note_tilt(step, normal, notices)
    return origin, step


def _check_doubles(planes: tuple[Plane, ...], gaps: np.ndarray) -> None:
    double = int(np.argmin(gaps))
    if gaps[double] < _SMALLEST_TOLERANCE:
        raise GeometryError(
            "different for every plane",
            path=planes[0].path,
            field="ImagePositionPatient",
            value=f"one position for {planes[double]} and {planes[double + 1]} "
            f"({_count(int((gaps < _SMALLEST_TOLERANCE).sum()), 'pair')} in {len(planes)} planes)",
            remedy="Pass the files of one image: see scan(folder).",
        )


def _uneven(
    planes: tuple[Plane, ...],
    steps: np.ndarray,
    gaps: np.ndarray,
    usual: int,
    tolerance: float,
) -> GeometryError:
    """Say where the planes leave the grid: a gap, an uneven step, or one out of line."""
    middle = float(gaps[usual])
    off = np.linalg.norm(steps - np.median(steps, axis=0), axis=1)
    uneven = bool((np.abs(gaps - middle) > tolerance).any())
    worst = int(np.argmax(np.abs(gaps - middle) if uneven else off))
    missing = round(float(gaps[worst]) / middle) - 1
    where = f"{planes[worst]} and {planes[worst + 1]}"
    found = f"{gaps[worst]:.4g} mm between {where}, {middle:.4g} mm elsewhere"
    if uneven and missing > 0 and abs(gaps[worst] - (missing + 1) * middle) <= tolerance:
        found += f": {_count(missing, 'slice')} missing"
    if not uneven:
        found = f"a sidewards step of {off[worst]:.4g} mm between {where}"
    return GeometryError(
        f"on one line with equal steps, to {tolerance:.3g} mm",
        path=planes[0].path,
        field="ImagePositionPatient of the planes",
        value=found,
        remedy="Find the missing files, or pass the files of an evenly spaced part.",
    )


def in_plane(plane: Plane, notices: list[Notice]) -> tuple[float, float]:
    """Return the distance between rows and between columns."""
    if plane.frame.spacing is None:
        notices.append(Notice("no_spacing", "PixelSpacing is missing: 1 mm used"))
        return 1.0, 1.0
    rows, columns = plane.frame.spacing
    return rows, columns


def thickness_of(plane: Plane, notices: list[Notice]) -> float:
    """Return the thickness of a single slice."""
    if plane.frame.thickness is None:
        notices.append(
            Notice("no_thickness", "SliceThickness of a single slice is missing: 1 used")
        )
        return 1.0
    return plane.frame.thickness


def _without_place(plane: Plane) -> Arrangement:
    """Return an image that is not placed in the body, such as a radiograph: spacing only."""
    notices = [Notice(NO_ORIENTATION, "the file gives no position or no orientation of the image")]
    rows, columns = in_plane(plane, notices)
    affine = np.diag([thickness_of(plane, notices), rows, columns, 1.0])
    return Arrangement((plane,), affine, tuple(notices))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"
