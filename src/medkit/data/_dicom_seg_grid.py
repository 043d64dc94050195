"""From the positions of the frames of a segmentation to a grid, with planes that have no frame."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medkit._core.file_errors import GeometryError

from ._dicom_plane import (
    Plane,
    arrange,
    fit_line,
    in_plane,
    note_tilt,
    plane_affine,
    tolerance_of,
)
from ._dicom_seg_header import SegHeader
from ._dicom_series import parallel
from ._notice import Notice

_MOST_STEPS = 1 << 20  # between two planes


class SegGrid(NamedTuple):
    """Where the frames are in a volume."""

    depth: int
    places: tuple[int, ...]
    """Plane of each frame."""
    affine: np.ndarray
    """From (d, h, w) to RAS+ mm."""
    notices: tuple[Notice, ...]


def seg_grid(header: SegHeader) -> SegGrid:
    """Sort frames along their normal; raise unless each lies a whole number of steps from the next.

    The step is SpacingBetweenSlices, or else the smallest distance between two planes.
    """
    planes = [Plane(header.image.path, frame) for frame in header.image.frames]
    _check_alike(planes)
    positions = np.array([plane.frame.position for plane in planes], np.float64)
    row, column = np.reshape(planes[0].frame.orientation or (), (2, 3))
    normal = np.cross(row, column)
    order = np.argsort(positions @ normal, kind="stable")
    gaps = np.diff(positions[order] @ normal)
    apart = gaps > tolerance_of(0.0)
    if not apart.any():
        return _one_plane(planes, positions, header.between)
    pitch = header.between or float(gaps[apart].min())
    counts, tolerance = _steps(planes, order, gaps, pitch)
    index = np.empty(len(planes), np.int64)
    index[order] = np.concatenate(([0], np.cumsum(counts)))
    origin, step, away = fit_line(positions, index)
    if away.max() > tolerance:
        raise _off_line(planes[int(np.argmax(away))], float(away.max()), tolerance)
    notices: list[Notice] = []
    spacing = in_plane(planes[0], notices)
    note_tilt(step, normal, notices)
    depth, present = int(index.max()) + 1, len(set(index.tolist()))
    if present < depth:
        notices.append(Notice("absent", f"{depth - present} of {depth} planes have no frame: 0"))
    affine = plane_affine(origin, step, column * spacing[0], row * spacing[1])
    return SegGrid(depth, tuple(index.tolist()), affine, tuple(notices))


def _steps(
    planes: Sequence[Plane], order: np.ndarray, gaps: np.ndarray, pitch: float
) -> tuple[np.ndarray, float]:
    """Return how many steps each plane is above the one below, and how exact that is in mm."""
    tolerance = min(tolerance_of(pitch), pitch / 10)
    steps = np.where(gaps > tolerance_of(0.0), gaps, 0.0) / pitch
    counts = np.rint(steps)
    off = np.where(steps, np.abs(gaps - counts * pitch), 0.0)
    off[(steps > 0) & (counts == 0)] = np.inf
    off[steps > _MOST_STEPS] = np.inf
    worst = int(np.argmax(off))
    if off[worst] > tolerance:
        raise _uneven(planes, order, gaps, worst, pitch)
    return counts.astype(np.int64), tolerance


def _check_alike(planes: Sequence[Plane]) -> None:
    for plane in planes:
        frame = plane.frame
        if frame.position is None or frame.orientation is None:
            raise GeometryError(
                "there for every frame",
                path=plane.path,
                field="ImagePositionPatient and ImageOrientationPatient",
                value=f"none in frame {frame.number + 1}",
                remedy="Whole-slide segmentations are not read; use highdicom.",
            )
        if not parallel(planes[0], plane):
            raise GeometryError(
                "equal for all frames",
                path=plane.path,
                field="ImageOrientationPatient and PixelSpacing",
                value=f"others in frame {frame.number + 1} than in frame 1",
                remedy="Several grids in one file are not read; use highdicom.",
            )


def _one_plane(planes: Sequence[Plane], positions: np.ndarray, between: float | None) -> SegGrid:
    spread = np.linalg.norm(positions - positions[0], axis=1)
    if spread.max() > tolerance_of(0.0):
        raise _off_line(planes[int(np.argmax(spread))], float(spread.max()), tolerance_of(0.0))
    frame = planes[0].frame
    plane = Plane(planes[0].path, frame._replace(thickness=between or frame.thickness))
    arrangement = arrange([plane])
    return SegGrid(1, (0,) * len(planes), arrangement.affine, arrangement.notices)


def _uneven(
    planes: Sequence[Plane], order: np.ndarray, gaps: np.ndarray, worst: int, pitch: float
) -> GeometryError:
    a, b = (planes[int(order[i])].frame.number + 1 for i in (worst, worst + 1))
    return GeometryError(
        f"a whole number of steps of {pitch:.6g} mm apart",
        path=planes[0].path,
        field="ImagePositionPatient of the frames",
        value=f"{gaps[worst]:.6g} mm between frames {a} and {b}",
        remedy="The steps are SpacingBetweenSlices, or else the smallest distance.",
    )


def _off_line(plane: Plane, away: float, tolerance: float) -> GeometryError:
    return GeometryError(
        f"on one line with equal steps, to {tolerance:.3g} mm",
        path=plane.path,
        field="ImagePositionPatient of the frames",
        value=f"frame {plane.frame.number + 1}, {away:.4g} mm away",
    )
