"""What a DICOM segmentation says about its segments and frames (PS3.3, C.8.20)."""

from typing import NamedTuple

from medkit._core.file_errors import FormatError

from . import _dicom_tags as tags
from ._dicom_elements import Elements
from ._dicom_file import ParsedFile, parse_file
from ._dicom_frames import functional_group, length_of
from ._dicom_header import (
    SEGMENTATION,
    DicomHeader,
    PixelLayout,
    free_text,
    make_header,
    pixels_of,
    plane_size,
)
from ._limits import Limits

_LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"
_BITS = {"BINARY": (1,), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}
_GREY = ("MONOCHROME2",)
_LABELMAP_COLOURS = ("MONOCHROME2", "PALETTE COLOR")


class DicomCode(NamedTuple):
    """A term of a coding scheme.

    Args:
        value: The code, e.g. ``"10200004"``.
        scheme: Designator of the coding scheme, e.g. ``"SCT"`` for SNOMED CT.
        meaning: The same for people, e.g. ``"Liver"``.

    Example:
        >>> DicomCode("10200004", "SCT", "Liver").meaning
        'Liver'
    """

    value: str
    scheme: str
    meaning: str


class DicomSegment(NamedTuple):
    """One segment of a DICOM segmentation.

    Args:
        number: Its number, the value in a label map.
        label: Its name.
        algorithm: ``"MANUAL"``, ``"SEMIAUTOMATIC"`` or ``"AUTOMATIC"``; empty if not stated.
        category: Kind of thing that was segmented, e.g. "Anatomical structure"; None if not stated.
        property: The thing itself, e.g. "Liver"; None if not stated.

    Example:
        >>> DicomSegment(1, "Liver", "MANUAL", None, DicomCode("10200004", "SCT", "Liver")).number
        1
    """

    number: int
    label: str
    algorithm: str
    category: DicomCode | None
    property: DicomCode | None


class SegHeader(NamedTuple):
    """One file with a segmentation, checked for sense."""

    image: DicomHeader
    type: str
    segments: tuple[DicomSegment, ...]
    frame_segments: tuple[int, ...]
    """Number of the segment of each frame; empty for LABELMAP."""
    between: float | None
    """SpacingBetweenSlices in mm."""
    fractional: str
    largest: int
    """What stands for 1 in fractional pixels."""


def read_seg_header(path: str, limits: Limits) -> SegHeader:
    """Read everything but the pixels."""
    parsed = parse_file(path, limits)
    elements = parsed.elements
    if parsed.sop_class not in (SEGMENTATION, _LABELMAP):
        raise elements.wrong(
            tags.SOP_CLASS, "that of a segmentation", parsed.sop_class[:64] or "none",
            remedy="Read images with medkit.data.read_dicom.",
        )  # fmt: skip
    kind = _kind(parsed)
    pixels = pixels_of(parsed)
    if not elements.items.get(tags.FRAME_GROUPS):
        raise elements.wrong(
            tags.FRAME_GROUPS, "there, as it says where each frame is", "none",
            remedy="Tiled whole-slide segmentations are not read; use highdicom.",
        )  # fmt: skip
    image = make_header(parsed, pixels, _layout(parsed, kind))
    segments = _segments(elements, kind)
    between = length_of(functional_group(elements, 0, tags.PIXEL_MEASURES), tags.SPACING_BETWEEN)
    fractional, largest = "", 1
    if kind == "FRACTIONAL":
        fractional = elements.text(tags.FRACTIONAL_TYPE)
        largest = elements.short(tags.LARGEST_FRACTION)
        if not 1 <= largest <= 255:
            raise elements.wrong(tags.LARGEST_FRACTION, "in 1..255", largest)
    numbers = () if kind == "LABELMAP" else _frame_segments(elements, image, segments)
    return SegHeader(image, kind, segments, numbers, between, fractional, largest)


def _kind(parsed: ParsedFile) -> str:
    kind = parsed.elements.text(tags.SEGMENTATION_TYPE)
    wanted = ("LABELMAP",) if parsed.sop_class == _LABELMAP else ("BINARY", "FRACTIONAL")
    if kind not in wanted:
        raise parsed.elements.wrong(
            tags.SEGMENTATION_TYPE, f"one of {', '.join(wanted)}", repr(kind[:20])
        )
    binary_as_is = not parsed.syntax.compressed and parsed.syntax.order == "<"
    if kind == "BINARY" and not binary_as_is:
        raise parsed.elements.wrong(
            tags.SEGMENTATION_TYPE, "other than BINARY with this transfer syntax",
            parsed.syntax.name, remedy="Convert the file to explicit little endian.",
        )  # fmt: skip
    return kind


def _layout(parsed: ParsedFile, kind: str) -> PixelLayout:
    elements = parsed.elements
    rows, columns = plane_size(elements)
    photometric = elements.text(tags.PHOTOMETRIC)
    colours = _LABELMAP_COLOURS if kind == "LABELMAP" else _GREY
    if photometric not in colours:
        raise elements.wrong(tags.PHOTOMETRIC, " or ".join(colours), repr(photometric[:20]))
    bits = elements.short(tags.BITS_ALLOCATED)
    for tag, wanted in (
        (tags.SAMPLES, (1,)),
        (tags.BITS_ALLOCATED, _BITS[kind]),
        (tags.BITS_STORED, (bits,)),
        (tags.HIGH_BIT, (bits - 1,)),
        (tags.SIGNED, (0,)),
    ):
        value = elements.short(tag)
        if value not in wanted:
            names = " or ".join(map(str, wanted))
            raise elements.wrong(tag, f"{names} in a {kind} segmentation", value)
    return PixelLayout(rows, columns, 1, 0, bits, bits, "u", photometric)


def _segments(elements: Elements, kind: str) -> tuple[DicomSegment, ...]:
    characters = elements.text(tags.CHARACTER_SET)
    segments = tuple(_segment(one, characters) for one in elements.items.get(tags.SEGMENTS, ()))
    numbers = [segment.number for segment in segments]
    if not numbers:
        raise elements.wrong(tags.SEGMENTS, "there", "none")
    if len(set(numbers)) < len(numbers):
        raise elements.wrong(tags.SEGMENT_NUMBER, "different for every segment", numbers[:20])
    if kind != "LABELMAP" and min(numbers) < 1:
        raise elements.wrong(tags.SEGMENT_NUMBER, f"at least 1 in a {kind} segmentation", 0)
    return segments


def _segment(item: Elements, characters: str) -> DicomSegment:
    return DicomSegment(
        number=item.short(tags.SEGMENT_NUMBER),
        label=free_text(item, tags.SEGMENT_LABEL, characters),
        algorithm=item.text(tags.ALGORITHM_TYPE),
        category=_code(item.first(tags.SEGMENT_CATEGORY), characters),
        property=_code(item.first(tags.SEGMENT_PROPERTY), characters),
    )


def _code(item: Elements | None, characters: str) -> DicomCode | None:
    if item is None:
        return None
    return DicomCode(
        value=item.text(tags.CODE_VALUE) or item.text(tags.LONG_CODE_VALUE),
        scheme=item.text(tags.CODING_SCHEME),
        meaning=free_text(item, tags.CODE_MEANING, characters),
    )


def _frame_segments(
    elements: Elements, image: DicomHeader, segments: tuple[DicomSegment, ...]
) -> tuple[int, ...]:
    known = {segment.number for segment in segments}
    found: list[int] = []
    for frame in image.frames:
        group = functional_group(elements, frame.number, tags.SEGMENT_OF_FRAME)
        if not group.values:
            raise FormatError(
                "there for every frame",
                path=image.path,
                field="SegmentIdentificationSequence",
                value=f"none for frame {frame.number + 1}",
            )
        number = group.short(tags.REFERENCED_SEGMENT)
        if number not in known:
            raise elements.wrong(
                tags.REFERENCED_SEGMENT,
                "the number of a segment",
                f"{number} in frame {frame.number + 1}",
            )
        found.append(number)
    return tuple(found)
