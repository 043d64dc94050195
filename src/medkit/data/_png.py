"""PNG pictures: every chunk and checksum looked at, then unpacked by Pillow.

W3C, "Portable Network Graphics (PNG) Specification (Third Edition)", 2025.
"""

import math
import os
import zlib
from collections.abc import Iterator
from io import FileIO
from typing import NamedTuple

import numpy as np

from medkit._core.file_errors import (
    ChecksumError,
    CodecMissingError,
    FormatError,
    TruncatedError,
)

from ._limits import Limits
from ._notice import Notice
from ._orientation import placed
from ._payload import check_payload
from ._pillow import unpack_picture
from ._source import PlainSource
from ._stored import tensor_dtype, to_tensor
from ._volume import Volume

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE = 3
_SCALES = {1: 255, 2: 85, 4: 17}
"""What Pillow multiplies grey of less than 8 bits with."""
_DEFLATE_RATIO = 1032
_LARGEST_SIDE = 2**31
_BLOCK = 1 << 20


class _Picture(NamedTuple):
    """What the chunks say."""

    width: int
    height: int
    depth: int
    colour: int
    stored: int
    """Bytes of compressed pixels."""
    chunks: frozenset[bytes]


def read_png(
    path: str | os.PathLike[str], *, limits: Limits | None = None, verify: bool = True
) -> Volume:
    """Read a PNG picture, of 1 to 16 bits, grey or colour, exactly or not at all.

    Values are as stored: grey gives one channel, grey with alpha two, colours three, with alpha
    four; a palette gives its indices and the notice ``"palette"``, as label maps are meant. Nothing
    is blended with alpha, corrected for gamma or turned; the notices ``"transparent"`` (one colour
    stands for nothing) and ``"turned"`` (EXIF asks for it) say what other programs might do.
    PNG holds no geometry: spacing is 1 mm, with the notice ``"no_orientation"``.

    Needs Pillow (extra ``io``).

    Args:
        path: The file.
        limits: Largest size to accept; None means ``Limits()``. Pillow's own limit is not used.
        verify: Check the CRC-32 of every chunk, and that the file ends after the last.

    Returns:
        The volume (C, 1, H, W): uint8, or int32 where 16 bits are stored.

    Raises:
        CodecMissingError: If colours have 16 bits, which Pillow reduces to 8.
        DataError: If the file does not hold what it declares, or is animated.
        ImportError: If Pillow is not installed.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (5, 4)).save(f"{folder}/a.png")
        ...     read_png(f"{folder}/a.png").shape
        (3, 1, 4, 5)
    """
    source = os.fspath(path)
    with FileIO(source, "r") as file:
        picture = _look_through(file, source, verify=verify)
        _check_size(picture, source, limits or Limits())
        file.seek(0)
        pixels, turned = unpack_picture("PIL.PngImagePlugin", "PngImageFile", file, source)
    samples = _SAMPLES[picture.colour]
    shape = (picture.height, picture.width, samples)
    if pixels.size != math.prod(shape):
        raise _wrong(source, "pixels", f"{shape}", pixels.shape)
    values = np.moveaxis(pixels.reshape(shape), -1, 0)[:, None]
    if picture.depth < 8 and picture.colour != _PALETTE:
        values = values.astype(np.uint8) // (1 if pixels.dtype == bool else _SCALES[picture.depth])
    elif picture.depth == 16:
        values = values.astype(np.uint16)
    v = placed(to_tensor(np.ascontiguousarray(values), source), source, None, None)
    return Volume(v.data, v.affine, source, (*v.warnings, *_notices(picture, turned=turned)))


def _look_through(file: FileIO, path: str, *, verify: bool) -> _Picture:
    """Return what the chunks of a file say; nothing is unpacked."""
    source = PlainSource(file, path)
    if _take(file, 8, path) != PNG_MAGIC:
        raise _wrong(path, "magic", "\\x89PNG", "other bytes")
    header, stored, names, name = b"", 0, set[bytes](), b""
    while name != b"IEND":
        start = _take(file, 8, path)
        length, name = int.from_bytes(start[:4], "big"), start[4:]
        if file.tell() + length + 4 > source.capacity():
            raise _cut(path)
        if (name == b"IHDR") != (not names) or (name == b"IHDR" and length != 13):
            raise _wrong(path, "first chunk", "IHDR of 13 bytes, and no other", f"{name!r}")
        body = _pass_over(file, length, name, path, verify=verify)
        header = header or body
        stored += length if name == b"IDAT" else 0
        names.add(name)
    if verify:
        source.finish()
    if b"acTL" in names:
        raise _wrong(path, "picture", "one", "an animation")
    return _header(header, stored, frozenset(names), path)


def _header(header: bytes, stored: int, names: frozenset[bytes], path: str) -> _Picture:
    width, height = (int.from_bytes(header[at : at + 4], "big") for at in (0, 4))
    depth, colour, *others = header[8:]
    if not (0 < width < _LARGEST_SIDE and 0 < height < _LARGEST_SIDE):
        raise _wrong(path, "width and height", "positive", (width, height))
    if depth not in _DEPTHS.get(colour, ()) or others[:2] != [0, 0] or others[2] > 1:
        raise _wrong(path, "IHDR", "of a kind that PNG has", tuple(header[8:]))
    return _Picture(width, height, depth, colour, stored, names)


def _pass_over(file: FileIO, length: int, name: bytes, path: str, *, verify: bool) -> bytes:
    """Return the first bytes of a chunk, and raise if its checksum is wrong."""
    crc, first, left = zlib.crc32(name), b"", length
    while left:
        block = _take(file, min(left, _BLOCK), path)
        crc, first, left = zlib.crc32(block, crc), first or block[:13], left - len(block)
    stored = int.from_bytes(_take(file, 4, path), "big")
    if verify and crc != stored:
        raise ChecksumError(
            f"{crc:#x}, computed from the content",
            path=path,
            field=f"CRC-32 of the chunk {name.decode('latin-1')}",
            value=f"{stored:#x}",
            remedy="The file was damaged after it was written; copy or download it again.",
        )
    return first


def _check_size(picture: _Picture, path: str, limits: Limits) -> None:
    samples = _SAMPLES[picture.colour]
    if picture.depth == 16 and samples > 1:
        raise CodecMissingError(
            "at most 8, or 16 of grey alone",
            path=path,
            field="bits of a colour",
            value=16,
            remedy="Convert the file to TIFF.",
        )
    pixels = picture.width * picture.height
    wide = tensor_dtype(np.dtype(f"u{max(1, picture.depth // 8)}")).itemsize
    declared = f"{picture.width} x {picture.height}"
    check_payload(pixels * samples * wide, pixels * samples * wide, path, limits, declared)
    held = picture.stored * _DEFLATE_RATIO
    check_payload(pixels * samples * picture.depth // 8, held, path, limits, declared)


def _notices(picture: _Picture, *, turned: bool) -> Iterator[Notice]:
    if picture.colour == _PALETTE:
        yield Notice("palette", "voxels are indices of a palette, as stored")
    if b"tRNS" in picture.chunks:
        yield Notice("transparent", "some values stand for nothing; they are as stored")
    if turned:
        yield Notice("turned", "EXIF asks for the picture to be turned; it is as stored")


def _take(file: FileIO, count: int, path: str) -> bytes:
    block = file.read(count)
    if len(block) < count:
        raise _cut(path)
    return block


def _cut(path: str) -> TruncatedError:
    return TruncatedError(
        "one that ends in IEND",
        path=path,
        field="file",
        value="its end before",
        remedy="The file is cut short; copy or download it again.",
    )


def _wrong(path: str, field: str, rule: str, found: object) -> FormatError:
    return FormatError(rule, path=path, field=field, value=found)
