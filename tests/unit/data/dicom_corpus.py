"""Odd DICOM series, each with what must come out: these voxels at these places, or this error."""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from medkit.data import (
    AmbiguousSeriesError,
    CodecMissingError,
    DataError,
    FormatError,
    GeometryError,
    LimitError,
    TruncatedError,
)
from unit.data import dicom_files as files
from unit.data.dicom_files import (
    compressed,
    enhanced,
    image,
    oriented,
    pixels,
    rescaled,
    save,
    write_series,
)

SAGITTAL = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], float)
CORONAL = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float)
STACK = np.stack([pixels(number) for number in range(4)])[None]
POSITIONS = [(-20, -30.5, 2.5 * number) for number in range(4)]


@dataclass(frozen=True)
class Good:
    """A folder that must be read."""

    name: str
    write: Callable[[Path], object]
    voxels: np.ndarray
    """(C, D, H, W), of the dtype expected."""
    planes: list[Dataset] | None = None
    """Headers that say where the planes are; None for the four of ``series()``."""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bad:
    """A folder that must be refused, with words that the error must contain."""

    name: str
    write: Callable[[Path], object]
    error: type[DataError]
    words: str


def series(count: int = 4, **attributes: object) -> list[Dataset]:
    """Slices 2.5 mm apart; a callable attribute takes the number of the slice."""
    return [
        image(n, **{k: v(n) if callable(v) else v for k, v in attributes.items()})
        for n in range(count)
    ]


def good() -> Iterator[Good]:
    """Yield the folders that must be read."""
    yield from _orders()
    yield from _geometries()
    yield from _values()
    yield from _encodings()
    yield from _frames()


def _case(
    name: str,
    images: list[Dataset],
    voxels: np.ndarray,
    *notices: str,
    dtype: str = "i4",
    planes: list[Dataset] | None = None,
) -> Good:
    return Good(
        name,
        lambda folder: write_series(folder, images),
        voxels.astype(dtype),
        planes or images,
        notices,
    )


def _orders() -> Iterator[Good]:
    yield _case("plain", series(), STACK)
    numbers = [3, 1, 4, 2]
    yield _case("instance numbers shuffled", series(InstanceNumber=lambda n: numbers[n]), STACK)
    missing = series()
    del missing[1].InstanceNumber, missing[2].InstanceNumber
    yield _case("instance numbers missing", missing, STACK)
    stale = {"SpacingBetweenSlices": 5, "SliceLocation": lambda n: -n, "SliceThickness": 9}
    yield _case("stale distances", series(**stale), STACK)
    yield _case("files from head to feet", series()[::-1], STACK, planes=series())

    def among_others(folder: Path) -> None:
        write_series(folder / "deep" / "er", series())
        (folder / "README.txt").write_text("no image")
        (folder / "empty").write_bytes(b"")
        report = image(0, SOPClassUID=files.REPORT, MediaStorageSOPClassUID=files.REPORT)
        for name in ("PixelData", "Rows", "Columns"):
            delattr(report, name)
        save(report, folder / "report.dcm")

    yield Good("among other files", among_others, STACK.astype("i4"))


def _geometries() -> Iterator[Good]:
    for name, rotation in (("sagittal", SAGITTAL), ("coronal", CORONAL)):
        yield _case(name, oriented(rotation), STACK)
    oblique = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    oblique[:, 2] *= np.linalg.det(oblique)
    yield _case("oblique, more than 16 digits", oriented(oblique), STACK)
    angle = np.radians(20)
    tilt = series(
        ImageOrientationPatient=[1, 0, 0, 0, np.cos(angle), -np.sin(angle)],
    )
    yield _case("gantry tilt", tilt, STACK, "tilted")
    jitter = np.random.default_rng(1).uniform(-0.008, 0.008, 4)
    shaky = series(ImagePositionPatient=lambda n: [-20, -30.5, 2.5 * n + jitter[n]])
    yield _case("jitter of 8 micrometres", shaky, STACK)
    yield _case("one slice", series(1), STACK[:, :1])
    yield _case("two slices", series(2), STACK[:, :2])
    yield _case("spacing in one direction", series(PixelSpacing=[3, 0.1]), STACK)
    turned = series(ImageOrientationPatient=lambda n: [1, 3e-5 * n, 0, 0, 1, 0])
    yield _case("directions differ by rounding", turned, STACK)


def _values() -> Iterator[Good]:
    shifted = series(RescaleSlope=1, RescaleIntercept=-1024)
    yield _case("intercept -1024", shifted, STACK - 1024.0)
    twelve = series(BitsStored=12, HighBit=11, RescaleSlope=1, RescaleIntercept=-1024)
    yield _case("12 bits, intercept", twelve, STACK - 1024.0, dtype="i2")
    slopes = [0.5, 1.25, 3, 1e-3]
    pet = series(RescaleSlope=lambda n: slopes[n], RescaleIntercept=0)
    scaled = (STACK.astype("f8") * np.reshape(slopes, (1, 4, 1, 1))).astype("f4")
    yield _case("slope of each slice", pet, scaled, dtype="f4")
    yield _case("slope 3 without intercept", series(RescaleSlope=3), STACK * 3)
    signed = [image(n, (pixels(n) * -3.0).astype("i2")) for n in range(4)]
    yield _case("signed", signed, STACK.astype("i2") * -3, dtype="i2")
    overlay = [image(n, pixels(n) | 0xA000, BitsStored=12, HighBit=11) for n in range(4)]
    yield _case("overlay in unused bits", overlay, STACK, dtype="i2")
    negative = [
        image(n, (pixels(n) * -3.0).astype("i2") & 0x0FFF, BitsStored=12, HighBit=11)
        for n in range(4)
    ]
    yield _case("12 bits signed", negative, STACK.astype("i2") * -3, dtype="i2")
    dark = series(PhotometricInterpretation="MONOCHROME1")
    yield _case("monochrome1", dark, STACK, "monochrome1")
    padded = series(PixelPaddingValue=63536)
    yield _case("padding value", padded, STACK, "padding")
    lossy = series(LossyImageCompression="01")
    yield _case("lossy", lossy, STACK, "lossy")
    small = [image(n, pixels(n, dtype="u1")) for n in range(4)]
    yield _case("8 bits", small, STACK, dtype="u1")
    odd = [image(n, pixels(n, (3, 3), "u1")) for n in range(4)]
    yield _case("odd number of bytes", odd, np.stack([pixels(n, (3, 3)) for n in range(4)])[None],
                dtype="u1")  # fmt: skip
    wide = [image(n, pixels(n, dtype="u4") + 2**31) for n in range(4)]
    yield _case("32 bits", wide, STACK + 2.0**31, dtype="i8")
    colours = [pixels(n, (4, 5, 3), "u1") for n in range(4)]
    rgb = np.moveaxis(np.stack(colours), -1, 0)
    yield _case("rgb", [image(n, c) for n, c in enumerate(colours)], rgb, dtype="u1")
    planar = [image(n, c) for n, c in enumerate(colours)]
    for ds, c in zip(planar, colours, strict=True):
        ds.PlanarConfiguration, ds.PixelData = 1, np.moveaxis(c, -1, 0).tobytes()
    yield _case("rgb, planar", planar, rgb, dtype="u1")
    floats = series(BitsAllocated=32)
    for n, ds in enumerate(floats):
        del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
        ds.FloatPixelData = pixels(n, dtype="f4").tobytes()
    yield _case("float pixels", floats, STACK, dtype="f4")


def _encodings() -> Iterator[Good]:
    for name in ("IMPLICIT", "BIG_ENDIAN", "DEFLATED"):
        yield _case(name.lower(), series(TransferSyntaxUID=getattr(files, name)), STACK)
    bytes_swapped = [
        image(n, pixels(n, dtype="u1"), TransferSyntaxUID=files.BIG_ENDIAN) for n in range(4)
    ]
    for n, ds in enumerate(bytes_swapped):
        ds.PixelData = pixels(n, dtype="u1").tobytes()
        ds.PixelData = np.frombuffer(ds.PixelData, "u2").byteswap().tobytes()
        ds["PixelData"].VR = "OW"
    yield _case("8 bits in big-endian words", bytes_swapped, STACK, dtype="u1")
    large = [image(n, pixels(n, (40, 50))) for n in range(4)]
    voxels = np.stack([pixels(n, (40, 50)) for n in range(4)])[None]
    yield _case("j2k", [compressed(ds, files.J2K) for ds in large], voxels)
    for name in ("RLE", "JPEG_LS"):
        packed = [compressed(ds, getattr(files, name)) for ds in series()]
        yield _case(name.lower(), packed, STACK)
    mixed = series()
    compressed(mixed[2], files.RLE)
    mixed[1].file_meta.TransferSyntaxUID = files.IMPLICIT
    yield _case("syntaxes mixed", mixed, STACK)
    nested = series()
    for ds in nested:
        inner = image(9)
        del inner.file_meta
        ds.ReferencedImageSequence = Items([inner, Dataset()])
        ds["ReferencedImageSequence"].is_undefined_length = True
        for item in ds.ReferencedImageSequence:
            item.is_undefined_length_sequence_item = True
        ds.add_new(0x00091001, "UN", b"anything" * 9000)
        ds.add_new(0x00090010, "LO", "PRIVATE")
    yield _case("sequences of undefined length", nested, STACK)

    def bare(folder: Path) -> None:
        write_series(folder, series())
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes()[132:])

    yield Good("without preamble", bare, STACK.astype("i4"))


def _frames() -> Iterator[Good]:
    shuffled = [2, 0, 3, 1]
    ds = enhanced([POSITIONS[i] for i in shuffled], STACK[0, shuffled])
    yield _case("enhanced, frames shuffled", [ds], STACK, planes=series())
    slopes = [1, 2, 0.5, 4]

    def scale(number: int, item: Dataset) -> None:
        item.PixelValueTransformationSequence = rescaled(slopes[number], -7)

    ds = enhanced(POSITIONS, STACK[0], edit=scale)
    scaled = STACK.astype("f8") * np.reshape(slopes, (1, 4, 1, 1)) - 7
    yield _case("enhanced, slope of each frame", [ds], scaled, dtype="f4", planes=series())
    ds = compressed(enhanced(POSITIONS, STACK[0]), files.RLE)
    yield _case("enhanced, RLE", [ds], STACK, planes=series())
    ds = enhanced(POSITIONS, STACK[0], TransferSyntaxUID=files.IMPLICIT)
    yield _case("enhanced, implicit", [ds], STACK, planes=series())
    dose = image(
        0,
        STACK[0],
        Modality="RTDOSE",
        NumberOfFrames=4,
        GridFrameOffsetVector=[0, 2.5, 5, 7.5],
        DoseGridScaling=0.125,
    )
    yield _case("dose grid", [dose], STACK * 0.125, dtype="f4", planes=series())


def bad() -> Iterator[Bad]:
    """Yield the folders that must be refused."""
    yield from _bad_series()
    yield from _bad_headers()
    yield from _bad_files()


def _refused(name: str, images: list[Dataset], error: type[DataError], words: str) -> Bad:
    return Bad(name, lambda folder: write_series(folder, images), error, words)


def _bad_series() -> Iterator[Bad]:
    six = series(6)
    yield _refused("missing slice", [*six[:2], *six[3:]], GeometryError, ": 1 slice missing")
    yield _refused("missing slices", [*six[:3], six[5]], GeometryError, ": 2 slices missing")
    twice = [*series(), image(2, SOPInstanceUID="1.2.9")]
    yield _refused("doubled position", twice, GeometryError, "one position for ")
    other = series(3, SeriesInstanceUID="1.2.77", SeriesDescription="Abdomen")
    yield _refused(
        "two series", [*series(), *other], AmbiguousSeriesError, "1.2.77 CT Abdomen 3 x 4 x 5"
    )
    scout = image(
        9,
        ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImagePositionPatient=[-20, 0, 300],
    )
    yield _refused(
        "scout in the series", [*series(), scout], AmbiguousSeriesError, "(localizer) 1 x 4 x 5"
    )
    flat = image(9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    yield _refused("parallel scout", [*series(), flat], AmbiguousSeriesError, "(localizer)")
    times = [
        image(n, TemporalPositionIdentifier=t, SOPInstanceUID=f"1.2.{t}.{n}")
        for t in (1, 2)
        for n in range(4)
    ]
    yield _refused(
        "time points", times, AmbiguousSeriesError, "Thorax TemporalPositionIdentifier=2 4 x 4 x 5"
    )
    echoes = [image(n, EchoTime=t, InversionTime=4) for t in (2.3, 4.6) for n in range(4)]
    yield _refused("echoes", echoes, AmbiguousSeriesError, "EchoTime=4.6")
    z = [0, 2.5, 5.5, 8, 11]
    uneven = series(5, ImagePositionPatient=lambda n: [-20, -30.5, z[n]])
    yield _refused("variable spacing", uneven, GeometryError, "equal steps, to 0.025 mm")
    stray = series(5, ImagePositionPatient=lambda n: [-20 + 4 * (n == 2), -30.5, 2.5 * n])
    yield _refused("stray slice", stray, GeometryError, "a sidewards step of 4 mm")
    rows = [*series(3), image(3, pixels(3, (6, 5)))]
    yield _refused("rows differ", rows, AmbiguousSeriesError, "1 x 6 x 5")
    spacing = [*series(3), image(3, PixelSpacing=[0.8, 0.5])]
    yield _refused("pixel spacings differ", spacing, AmbiguousSeriesError, "2: ")
    signs = [*series(3), image(3, PixelRepresentation=1)]
    yield _refused("signs differ", signs, AmbiguousSeriesError, "2: ")
    frames = [*series(3), image(3, FrameOfReferenceUID="1.2.99")]
    yield _refused("frames of reference differ", frames, AmbiguousSeriesError, "2: ")
    nowhere = series(ImagePositionPatient=None)
    yield _refused("no positions", nowhere, GeometryError, "there for every plane")
    loop = image(0, STACK[0], NumberOfFrames=4)
    yield _refused("frames without positions", [loop], GeometryError, "there for every plane")


def _bad_headers() -> Iterator[Bad]:
    def one(name: str, error: type[DataError], words: str, /, **attributes: object) -> Bad:
        return _refused(name, series(3, **attributes), error, words)

    yield one("palette", FormatError, "PhotometricInterpretation must be one of MONO",
              PhotometricInterpretation="PALETTE COLOR")  # fmt: skip
    yield one("2 samples", FormatError, "SamplesPerPixel", SamplesPerPixel=2,
              PhotometricInterpretation="RGB")  # fmt: skip
    yield one("slope 0", FormatError, "RescaleSlope must be other than 0", RescaleSlope=0)
    yield one("no rows", FormatError, "Rows must be a 16-bit number; got 0 bytes", Rows=None)
    yield one("0 columns", FormatError, "Columns must be at least 1", Columns=0)
    yield one("17 bits stored", FormatError, "BitsStored must be in 1..16", BitsStored=17)
    yield one("high bit", FormatError, "HighBit must be 15", HighBit=11)
    yield one("1 bit", FormatError, "BitsAllocated must be one of 8, 16, 32", BitsAllocated=1)
    yield one("pixel representation", FormatError, "0 or 1", PixelRepresentation=2)
    yield one("more rows than pixels", TruncatedError, "PixelData must be 80 bytes; got 40",
              Rows=8)  # fmt: skip
    yield one("fewer rows than pixels", FormatError, "verify=False", Rows=2)
    yield one("65535 rows and columns", LimitError, "3 planes of 65535 x 65535",
              Rows=65535, Columns=65535)  # fmt: skip
    yield one("two positions", GeometryError, "ImagePositionPatient must be 3 numbers",
              ImagePositionPatient=[1, 2, 3, 1, 2, 3])  # fmt: skip
    yield one("directions of length 2", GeometryError, "at right angles, of length 1",
              ImageOrientationPatient=[2, 0, 0, 0, 2, 0])  # fmt: skip
    yield one("parallel directions", GeometryError, "at right angles, of length 1",
              ImageOrientationPatient=[1, 0, 0, 1, 0, 0])  # fmt: skip
    yield one("spacing 0", GeometryError, "PixelSpacing must be positive", PixelSpacing=[1, 0])
    yield one("negative spacing", GeometryError, "PixelSpacing must be positive",
              PixelSpacing=[-1, 1])  # fmt: skip
    yield one("segmentation", FormatError, "read_dicom_seg",
              SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")  # fmt: skip
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [2, 0, 16], b"\0\0\1\0"
    yield one("table of values", FormatError, "apply_modality_lut",
              ModalityLUTSequence=Items([table]))  # fmt: skip
    ds = enhanced(POSITIONS[:3], STACK[0, :3], NumberOfFrames=4)
    yield _refused("frames and groups differ", [ds], FormatError, "one item for each of 4 frames")
    times = enhanced(
        POSITIONS[:2] * 2,
        STACK[0],
        edit=lambda n, item: setattr(item.FrameContentSequence[0], "TemporalPositionIndex", n // 2),
    )
    yield _refused(
        "enhanced time points", [times], AmbiguousSeriesError, "TemporalPositionIndex=1 2 x 4 x 5"
    )


def _bad_files() -> Iterator[Bad]:
    def edited(edit: Callable[[bytes], bytes], **attributes: object) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            write_series(folder, series(**attributes))
            path = folder / "001.dcm"
            path.write_bytes(edit(path.read_bytes()))

        return write

    def put(old: bytes, new: bytes) -> Callable[[Path], None]:
        return edited(lambda content: content.replace(old, new))

    yield Bad("empty folder", lambda folder: folder.mkdir(), FormatError, "got none")
    yield Bad("pixels cut", edited(lambda c: c[:-1]), TruncatedError, "PixelData must be 40 bytes")
    yield Bad("header cut", edited(lambda c: c[:400]), TruncatedError, "cut short")
    yield Bad("meta cut", edited(lambda c: c[:140]), TruncatedError, "cut short")
    start = bytes.fromhex("e07f1000")
    yield Bad("no pixels", edited(lambda c: c[: c.index(start)]), TruncatedError, "PixelData must")
    yield Bad("nan in position", put(b"-30.5", b"nan  "), GeometryError, "finite decimal numbers")
    yield Bad("inf in position", put(b"-30.5", b"1e999"), GeometryError, "finite decimal numbers")
    yield Bad("comma in spacing", put(b"0.75", b"0,75"), GeometryError, "PixelSpacing must be")
    rows = struct.pack("<HH2sH", 0x28, 0x10, b"US", 2)
    yield Bad("VR of rows", put(rows, rows.replace(b"US", b"SS")), FormatError, "VR of Rows")
    yield Bad("VR unknown", put(rows, rows.replace(b"US", b"Us")), FormatError, "VR of Rows")
    low = struct.pack("<HH", 0x08, 0x10)
    yield Bad("tags fall", put(rows[:4], low), FormatError, "tag must be above")
    yield Bad("RLE cut", _packed(files.RLE, lambda c: c[:-20]), TruncatedError, "PixelData must be")
    yield Bad("RLE damaged", _packed(files.RLE, _break), FormatError, "must be valid RLE")
    yield Bad(
        "J2K cut",
        _packed(files.J2K, lambda c: c[:-20] + bytes(12) + c[-8:]),
        TruncatedError,
        "ends in FFD9",
    )
    yield Bad("RLE bomb", _packed(files.RLE, _inflate_rows), LimitError, "bytes of RLE can hold")
    lossless = b"1.2.840.10008.1.2.4.70"
    swap = lambda c: c.replace(files.J2K.encode(), lossless)  # noqa: E731
    yield Bad("JPEG lossless", _packed(files.J2K, swap), CodecMissingError, "python-gdcm")
    native = lambda c: c.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")  # noqa: E731
    yield Bad("RLE without fragments", edited(native), FormatError, "of undefined length")
    unknown = lambda c: c.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")  # noqa: E731
    yield Bad("unknown syntax", edited(unknown), FormatError, "must be one that medkit knows")
    none = put(b"\2\0\x10\0UI", b"\2\0\x11\0UI")
    yield Bad("no syntax", none, FormatError, "got none")
    yield Bad("20000 nested sequences", _nested, LimitError, "at most 64 sequences inside")
    yield Bad("deflate bomb", _bomb, TruncatedError, "complete to byte 2147")


def _packed(syntax: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir()
        path = save(compressed(image(0, pixels(0, (40, 50))), syntax), folder / "0.dcm")
        path.write_bytes(edit(path.read_bytes()))

    return write


def _break(content: bytes) -> bytes:
    return content[:-60] + bytes(44) + content[-16:]


def _inflate_rows(content: bytes) -> bytes:
    head = struct.pack("<HH2sH", 0x28, 0x10, b"US", 2)
    head_columns = struct.pack("<HH2sH", 0x28, 0x11, b"US", 2)
    for tag in (head, head_columns):
        at = content.index(tag) + 8
        content = content[:at] + struct.pack("<H", 30000) + content[at + 2 :]
    return content


def _nested(folder: Path) -> None:
    folder.mkdir()
    path = save(image(0), folder / "0.dcm")
    content = path.read_bytes()
    level = struct.pack("<HH2sHL", 0x08, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    level += struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    at = content.index(struct.pack("<HH2s", 0x18, 0x50, b"DS"))
    path.write_bytes(content[:at] + level * 20000 + content[at:])


def _bomb(folder: Path) -> None:
    folder.mkdir()
    path = save(image(0, TransferSyntaxUID=files.EXPLICIT), folder / "0.dcm")
    content = path.read_bytes().replace(
        struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + files.EXPLICIT.encode() + b"\0",
        struct.pack("<HH2sH", 2, 0x10, b"UI", 22) + files.DEFLATED.encode(),
    )
    at = content.index(files.DEFLATED.encode()) + 22
    while content[at : at + 2] == b"\2\0":
        at += 8 + int.from_bytes(content[at + 6 : at + 8], "little")
    head = struct.pack("<HH2sHL", 0x09, 0x1001, b"UN", 0, 2**31)
    engine = zlib.compressobj(9, wbits=-15)
    packed = engine.compress(head) + b"".join(engine.compress(bytes(2**20)) for _ in range(64))
    path.write_bytes(content[:at] + packed + engine.flush())
