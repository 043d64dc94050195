"""What a DICOM file says about its image: pixels, series, and the place and scale of each frame."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from medkit._core.file_errors import FormatError, TruncatedError

from . import _dicom_tags as tags
from ._dicom_elements import Element, Elements
from ._dicom_file import ParsedFile, parse_file
from ._dicom_frames import Frame, read_frames
from ._dicom_syntax import Syntax
from ._limits import Limits

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_WITHOUT_IMAGE = (
    f"{_STORAGE}9.",  # waveforms
    f"{_STORAGE}11.",  # presentation states
    f"{_STORAGE}66",  # raw data, registrations, surfaces
    f"{_STORAGE}67",  # real world values
    f"{_STORAGE}88.",  # reports
    f"{_STORAGE}104.",  # documents
    *(f"{_STORAGE}481.{n}" for n in (3, 4, 5, 6, 7, 8, 9)),  # radiotherapy, but for images and dose
    "1.2.840.10008.1.3.10",  # DICOMDIR
    "1.2.840.10008.5.1.4.34.",
)
SEGMENTATION = f"{_STORAGE}66.4"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_GREYS = ("MONOCHROME1", "MONOCHROME2")
_MOST_FRAMES = 1 << 20
_CODECS = {
    "ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gbk", "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3", "ISO_IR 110": "iso8859-4", "ISO_IR 144": "iso8859-5",
    "ISO_IR 127": "iso8859-6", "ISO_IR 126": "iso8859-7", "ISO_IR 138": "iso8859-8",
    "ISO_IR 148": "iso8859-9", "ISO_IR 13": "shift_jis", "ISO_IR 166": "iso8859-11",
}  # fmt: skip


class PixelLayout(NamedTuple):
    """How the pixels of one frame are stored; equal throughout a series."""

    rows: int
    columns: int
    samples: int
    planar: int
    bits_allocated: int
    bits_stored: int
    kind: Literal["u", "i", "f"]
    photometric: str

    @property
    def nbytes(self) -> int:
        """Bytes of one frame, uncompressed."""
        return self.bits // 8

    @property
    def bits(self) -> int:
        """Bits of one frame, uncompressed; frames of 1-bit pixels may begin inside of a byte."""
        return self.rows * self.columns * self.samples * self.bits_allocated


@dataclass(frozen=True, kw_only=True, slots=True)
class DicomHeader:
    """One file with an image, checked for sense."""

    path: str
    syntax: Syntax
    series_uid: str
    frame_of_reference: str
    description: str
    modality: str
    localizer: bool
    lossy: bool
    padding: int | None
    layout: PixelLayout
    frames: tuple[Frame, ...]
    offset: int
    length: int
    """Where the pixels are; the length is UNDEFINED for compressed ones."""
    swapped: bool
    """8-bit pixels are in big-endian words."""
    deflated_from: int

    @property
    def nbytes(self) -> int:
        """Bytes of all frames, uncompressed and without the padding to an even length."""
        return (self.layout.bits * len(self.frames) + 7) // 8


def read_header(path: str, limits: Limits) -> DicomHeader | None:
    """Read everything but the pixels; None for a file that holds no image, such as a report."""
    parsed = parse_file(path, limits)
    elements = parsed.elements
    sop_class = parsed.sop_class
    if sop_class == SEGMENTATION:
        raise elements.wrong(
            tags.SOP_CLASS, "that of an image", "a segmentation",
            remedy="Read it with medkit.data.read_dicom_seg.",
        )  # fmt: skip
    if elements.pixels is None and sop_class.startswith(_WITHOUT_IMAGE):
        return None
    pixels = pixels_of(parsed)
    layout = _layout(elements, pixels.tag, compressed=parsed.syntax.compressed)
    return make_header(parsed, pixels, layout)


def pixels_of(parsed: ParsedFile) -> Element:
    """Return where the pixels are; raise if there are none."""
    if parsed.elements.pixels is None:
        raise TruncatedError(
            "there",
            path=parsed.path,
            field="PixelData",
            value=f"the end of the file (SOP class {parsed.sop_class[:64] or 'unknown'})",
            remedy="The file is cut short, or holds no image.",
        )
    return parsed.elements.pixels


def make_header(parsed: ParsedFile, pixels: Element, layout: PixelLayout) -> DicomHeader:
    """Return what a file says besides the layout of its pixels."""
    elements = parsed.elements
    if elements.items.get(tags.MODALITY_LUT):
        raise elements.wrong(
            tags.MODALITY_LUT, "absent", "a table of values",
            remedy="Apply the table with pydicom.pixels.apply_modality_lut.",
        )  # fmt: skip
    frames = elements.decimal(tags.FRAMES, 1)
    if not (frames.is_integer() and 1 <= frames <= _MOST_FRAMES):
        raise elements.wrong(tags.FRAMES, f"a whole number in 1..{_MOST_FRAMES}", frames)
    return DicomHeader(
        path=parsed.path,
        syntax=parsed.syntax,
        series_uid=elements.text(tags.SERIES),
        frame_of_reference=elements.text(tags.FRAME_OF_REFERENCE),
        description=_description(elements),
        modality=elements.text(tags.MODALITY),
        localizer="LOCALIZER" in elements.text(tags.IMAGE_TYPE).split("\\"),
        lossy=elements.text(tags.LOSSY) == "01",
        padding=_padding(elements, layout, parsed.syntax.order),
        layout=layout,
        frames=read_frames(elements, int(frames)),
        offset=pixels.start,
        length=pixels.length,
        swapped=parsed.syntax.order == ">" and pixels.vr == b"OW" and layout.bits_allocated == 8,
        deflated_from=parsed.deflated_from,
    )


def plane_size(elements: Elements) -> tuple[int, int]:
    """Return rows and columns."""
    rows, columns = elements.short(tags.ROWS), elements.short(tags.COLUMNS)
    for name, count in ((tags.ROWS, rows), (tags.COLUMNS, columns)):
        if count < 1:
            raise elements.wrong(name, "at least 1", count)
    return rows, columns


def _layout(elements: Elements, tag: int, *, compressed: bool) -> PixelLayout:
    rows, columns = plane_size(elements)
    photometric = elements.text(tags.PHOTOMETRIC)
    samples = elements.short(tags.SAMPLES, 1)
    colours = _COLOURS if compressed else ("RGB",)
    if photometric not in (_GREYS if samples == 1 else colours):
        raise elements.wrong(
            tags.PHOTOMETRIC,
            f"one of {', '.join(_GREYS)}" if samples == 1 else f"one of {', '.join(colours)}",
            f"{photometric[:20]!r} with {samples} samples per pixel",
            remedy="Convert the colours with pydicom first.",
        )
    if samples not in (1, 3):
        raise elements.wrong(tags.SAMPLES, "1 or 3", samples)
    planar = elements.short(tags.PLANAR, 0) if samples == 3 else 0
    if planar not in (0, 1):
        raise elements.wrong(tags.PLANAR, "0 or 1", planar)
    allocated = elements.short(tags.BITS_ALLOCATED)
    wanted = {tags.PIXELS: (8, 16, 32), tags.FLOAT_PIXELS: (32,), tags.DOUBLE_PIXELS: (64,)}[tag]
    if allocated not in wanted:
        raise elements.wrong(
            tags.BITS_ALLOCATED, f"one of {', '.join(map(str, wanted))}", allocated
        )
    stored, kind = allocated, "f"
    if tag == tags.PIXELS:
        stored, kind = _integers(elements, allocated)
    return PixelLayout(rows, columns, samples, planar, allocated, stored, kind, photometric)


def _integers(elements: Elements, allocated: int) -> tuple[int, Literal["u", "i"]]:
    stored = elements.short(tags.BITS_STORED)
    if not 1 <= stored <= allocated:
        raise elements.wrong(tags.BITS_STORED, f"in 1..{allocated} (BitsAllocated)", stored)
    high = elements.short(tags.HIGH_BIT, stored - 1)
    if high != stored - 1:
        raise elements.wrong(tags.HIGH_BIT, f"{stored - 1}, one less than BitsStored", high)
    signed = elements.short(tags.SIGNED)
    if signed not in (0, 1):
        raise elements.wrong(tags.SIGNED, "0 or 1", signed)
    return stored, "i" if signed else "u"


def _padding(elements: Elements, layout: PixelLayout, order: Literal["<", ">"]) -> int | None:
    content = elements.values.get(tags.PADDING, b"")
    if len(content) != 2:
        return None
    byteorder = "little" if order == "<" else "big"
    return int.from_bytes(content, byteorder, signed=layout.kind == "i")


def _description(elements: Elements) -> str:
    """Return the description of the series."""
    return free_text(elements, tags.SERIES_DESCRIPTION, elements.text(tags.CHARACTER_SET))


def free_text(elements: Elements, tag: int, character_set: str) -> str:
    """Return text for people; it decides nothing, so odd bytes are replaced."""
    words = character_set.replace("ISO 2022 IR", "ISO_IR").split("\\")
    codec = _CODECS.get(words[0].strip(), "latin-1")
    content = elements.values.get(tag, b"")
    return content.decode(codec, errors="replace").strip(" \0")


def check_native(header: DicomHeader, size: int, *, verify: bool) -> None:
    """Raise unless uncompressed pixels have the length that their layout asks for."""
    wanted = header.nbytes
    length = header.length
    if length < wanted or header.offset + length > size:
        raise TruncatedError(
            f"{wanted} bytes",
            path=header.path,
            field="PixelData",
            value=min(length, max(0, size - header.offset)),
            remedy="The file is cut short or its header is wrong; copy or download it again.",
        )
    if verify and length != wanted + wanted % 2:
        raise FormatError(
            f"{wanted + wanted % 2} bytes, by rows, columns, frames and bits",
            path=header.path,
            field="PixelData",
            value=length,
            remedy="The sizes in the header may be wrong; verify=False believes them.",
        )
