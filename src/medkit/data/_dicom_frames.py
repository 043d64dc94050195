"""The place and the scale of each frame of a DICOM file, classic or enhanced.

PS3.3, C.7.6.2 (image plane), C.7.6.16 (functional groups of multi-frame images), C.8.8.3.2 (dose).
"""

from typing import NamedTuple

import numpy as np

from medkit._core.file_errors import FormatError, GeometryError

from . import _dicom_tags as tags
from ._dicom_elements import Elements

_UNIT = 1e-3  # how far lengths and the right angle of the two directions may be off
_DOSE = "RTDOSE"
_LABELS = (
    tags.TEMPORAL_POSITION,
    tags.ECHO_NUMBERS,
    tags.ECHO_TIME,
    tags.B_VALUE,
    tags.ACQUISITION_NUMBER,
    tags.TRIGGER_TIME,
    tags.IMAGE_TYPE,
)
_FRAME_LABELS = (
    (tags.FRAME_CONTENT, tags.TEMPORAL_INDEX),
    (tags.FRAME_CONTENT, tags.STACK),
    (tags.MR_ECHO, tags.EFFECTIVE_ECHO_TIME),
    (tags.MR_DIFFUSION, tags.B_VALUE),
)


class Frame(NamedTuple):
    """One plane of pixels, in the patient system of DICOM (LPS, mm)."""

    number: int
    """Within its file, from 0."""
    position: tuple[float, ...] | None
    """Centre of the first pixel."""
    orientation: tuple[float, ...] | None
    """Direction of a row, then of a column."""
    spacing: tuple[float, ...] | None
    """Distance between rows, then between columns."""
    thickness: float | None
    slope: float
    inter: float
    labels: tuple[tuple[str, str], ...]
    """What can tell frames at one position apart."""


def read_frames(elements: Elements, count: int) -> tuple[Frame, ...]:
    """Return the frames in the order of the file."""
    if elements.items.get(tags.FRAME_GROUPS):
        return _enhanced(elements, count)
    frame = _classic(elements)
    offsets = elements.decimals(tags.FRAME_OFFSETS, None, GeometryError)
    if offsets is not None and count > 1:
        return _dose_frames(elements, frame, offsets, count)
    if count > 1:  # nothing says where they are, or whether they are planes at all
        frame = frame._replace(position=None)
    return tuple(frame._replace(number=number) for number in range(count))


def _classic(elements: Elements) -> Frame:
    slope, inter = _scale(elements)
    if elements.text(tags.MODALITY) == _DOSE and tags.DOSE_SCALING in elements.values:
        slope, inter = elements.decimal(tags.DOSE_SCALING, 1.0), 0.0
    return Frame(
        number=0,
        position=elements.decimals(tags.POSITION, 3, GeometryError),
        orientation=_orientation(elements),
        spacing=_spacing(elements, tags.PIXEL_SPACING)
        or _spacing(elements, tags.IMAGER_PIXEL_SPACING),
        thickness=length_of(elements, tags.SLICE_THICKNESS),
        slope=slope,
        inter=inter,
        labels=tuple((tags.ATTRIBUTES[tag].name, elements.label(tag)) for tag in _LABELS),
    )


def _enhanced(elements: Elements, count: int) -> tuple[Frame, ...]:
    groups = elements.items[tags.FRAME_GROUPS]
    if len(groups) != count:
        raise elements.wrong(
            tags.FRAME_GROUPS, f"one item for each of {count} frames", f"{len(groups)} items"
        )
    return tuple(_enhanced_frame(elements, number) for number in range(count))


def functional_group(elements: Elements, number: int, sequence: int) -> Elements:
    """Return what is said of one frame, or else of all; an empty item if nothing is."""
    for group in (elements.items[tags.FRAME_GROUPS][number], elements.first(tags.SHARED_GROUPS)):
        item = group and group.first(sequence)
        if item:
            return item
    return elements.empty()


def _enhanced_frame(elements: Elements, number: int) -> Frame:
    def find(sequence: int) -> Elements:
        return functional_group(elements, number, sequence)

    measures, transformation = find(tags.PIXEL_MEASURES), find(tags.VALUE_TRANSFORMATION)
    slope, inter = _scale(transformation)
    return Frame(
        number=number,
        position=find(tags.PLANE_POSITION).decimals(tags.POSITION, 3, GeometryError),
        orientation=_orientation(find(tags.PLANE_ORIENTATION)),
        spacing=_spacing(measures, tags.PIXEL_SPACING),
        thickness=length_of(measures, tags.SLICE_THICKNESS),
        slope=slope,
        inter=inter,
        labels=tuple(
            (tags.ATTRIBUTES[tag].name, find(sequence).label(tag))
            for sequence, tag in _FRAME_LABELS
        ),
    )


def _dose_frames(
    elements: Elements, frame: Frame, offsets: tuple[float, ...], count: int
) -> tuple[Frame, ...]:
    """Place the planes of a dose grid: offsets along the normal, from the first or in z."""
    if len(offsets) != count or frame.position is None or frame.orientation is None:
        raise elements.wrong(
            tags.FRAME_OFFSETS, f"{count} numbers, with a position", len(offsets), GeometryError
        )
    row, column = np.reshape(frame.orientation, (2, 3))
    normal, start = np.cross(row, column), np.array(frame.position)
    if offsets[0] and abs(offsets[0] - frame.position[2]) > _UNIT:
        raise elements.wrong(
            tags.FRAME_OFFSETS, "0, or the z of the position, at first", offsets[0], GeometryError
        )
    steps = np.array(offsets) - offsets[0]
    along = np.array([0.0, 0.0, 1.0]) if offsets[0] else normal
    return tuple(
        frame._replace(number=number, position=tuple((start + along * step).tolist()))
        for number, step in enumerate(steps.tolist())
    )


def _orientation(elements: Elements) -> tuple[float, ...] | None:
    values = elements.decimals(tags.ORIENTATION, 6, GeometryError)
    if values is None:
        return None
    row, column = np.reshape(values, (2, 3))
    off = max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column))
    if not off <= _UNIT:
        raise elements.wrong(
            tags.ORIENTATION, "two directions at right angles, of length 1", values, GeometryError
        )
    return values


def _spacing(elements: Elements, tag: int) -> tuple[float, ...] | None:
    values = elements.decimals(tag, 2, GeometryError)
    if values is not None and not min(values) > 0:
        raise elements.wrong(tag, "positive", values, GeometryError)
    return values


def length_of(elements: Elements, tag: int) -> float | None:
    """Return a positive length, None if there is none."""
    value = elements.decimal(tag, 0.0, GeometryError)
    return value if value > 0 else None


def _scale(elements: Elements) -> tuple[float, float]:
    slope = elements.decimal(tags.SLOPE, 1.0, FormatError)
    if slope == 0:
        raise elements.wrong(tags.SLOPE, "other than 0", slope)
    return slope, elements.decimal(tags.INTERCEPT, 0.0, FormatError)
