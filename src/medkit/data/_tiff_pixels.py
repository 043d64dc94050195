"""Pixels of one TIFF page: strips or tiles, unpacked with their sizes known beforehand.

Adobe, "TIFF Revision 6.0", 1992, sections 3, 9 and 13 to 15; Photoshop TIFF Technical Notes, 2002
(deflate), and Technical Note 3, 2005 (predictor of floating-point numbers).
"""

import zlib
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import numpy as np

from medkit._core import optional
from medkit._core.file_errors import ChecksumError, CodecMissingError, FormatError, TruncatedError

from . import _tiff_tags as tags
from ._tiff_tags import Page

_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 8, 32946, 32773
_RATIOS = {_NONE: 1, _LZW: 2731, _DEFLATE: 1032, _OLD_DEFLATE: 1032, _PACKBITS: 64}
"""The most bytes that one byte of each compression can stand for."""
_NAMED = {2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "JPEG", 7: "JPEG", 33003: "JPEG 2000",
          33005: "JPEG 2000", 34712: "JPEG 2000", 34925: "LZMA", 50000: "Zstandard",
          50001: "WebP", 50002: "JPEG XL"}  # fmt: skip
_COMPLEX = 6
_LARGEST_SIDE = 2**31


class Layout(NamedTuple):
    """What the pages of one stack have in common."""

    shape: tuple[int, int, int]
    """Samples, rows, columns."""
    dtype: np.dtype[np.generic]
    bits: int
    """Bits per sample; 1 for a bilevel page, whose dtype is bool."""
    compression: int


class Pieces(NamedTuple):
    """Strips or tiles: where each is and which box of the page it covers."""

    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    size: tuple[int, int]
    """Rows and columns of a full piece."""
    grid: tuple[int, int, int]
    """Planes, and pieces along rows and columns."""
    samples: int
    """Samples that stand side by side in a piece."""
    whole: bool
    """Whether pieces at the edge are stored in full, as tiles are."""


def page_layout(page: Page) -> Layout:
    """Return size and type of the pixels of a page."""
    shape = (
        page.whole(tags.SAMPLES, 1), page.whole(tags.LENGTH), page.whole(tags.WIDTH)
    )  # fmt: skip
    if not all(0 < n < _LARGEST_SIDE for n in shape) or shape[0] > 2**16:
        raise page.wrong(tags.LENGTH, "a page with pixels", shape)
    bits = set(page.wholes(tags.BITS, (1,)))
    formats = set(page.wholes(tags.SAMPLE_FORMAT, (1,))) or {1}
    if len(bits) != 1 or len(formats) != 1:
        raise page.wrong(tags.BITS, "the same for all samples", sorted(bits))
    width, form = bits.pop(), formats.pop()
    compression = page.whole(tags.COMPRESSION, _NONE)
    if page.whole(tags.FILL_ORDER, 1) != 1:
        raise page.wrong(tags.FILL_ORDER, "1", 2)
    if width == 1 and form == 1 and shape[0] == 1:
        return Layout(shape, np.dtype(bool), 1, compression)
    kind = {1: "u", 2: "i", 3: "f", 4: "u", _COMPLEX: "c"}.get(form, "x")
    try:
        dtype = np.dtype(f"{kind}{width // 8}").newbyteorder(page.file.order)
    except TypeError:
        dtype = np.dtype("O")
    if width % 8 or dtype.kind not in "uifc" or dtype.itemsize > 16 or dtype.name == "float128":
        found = f"{width} bits of format {form}"
        raise page.wrong(tags.BITS, "of a type of numbers of whole bytes, or 1 bit", found)
    return Layout(shape, dtype, width, compression)


def page_pieces(page: Page, layout: Layout) -> Pieces:
    """Return the strips or tiles of a page, each inside the file."""
    samples, rows, columns = layout.shape
    planar = page.whole(tags.PLANAR, 1)
    if planar not in (1, 2):
        raise page.wrong(tags.PLANAR, "1 or 2", planar)
    planes, together = (1, samples) if planar == 1 else (samples, 1)
    tiled = tags.TILE_OFFSETS in page.values
    if tiled:
        size = page.whole(tags.TILE_LENGTH), page.whole(tags.TILE_WIDTH)
        offsets, counts = page.wholes(tags.TILE_OFFSETS), page.wholes(tags.TILE_COUNTS)
    else:
        size = min(rows, page.whole(tags.ROWS_PER_STRIP, rows)), columns
        offsets, counts = page.wholes(tags.STRIP_OFFSETS), page.wholes(tags.STRIP_COUNTS)
    if not all(0 < n < _LARGEST_SIDE for n in size):
        raise page.wrong(tags.TILE_LENGTH, "strips or tiles with pixels", size)
    grid = planes, -(-rows // size[0]), -(-columns // size[1])
    wanted = grid[0] * grid[1] * grid[2]
    if not len(offsets) == len(counts) == wanted:
        found = f"{len(offsets)} places and {len(counts)} sizes"
        raise page.wrong(tags.STRIP_OFFSETS, f"{wanted} strips or tiles", found)
    pieces = Pieces(offsets, counts, size, grid, together, tiled)
    _check_pieces(page, layout, pieces)
    return pieces


def read_page(page: Page, layout: Layout, pieces: Pieces) -> np.ndarray:
    """Return the pixels of a page: (samples, rows, columns)."""
    unpack = _unpacker(page)
    out = np.empty(layout.shape, layout.dtype.newbyteorder("="))
    planes, down, across = pieces.grid
    for number, (offset, count) in enumerate(zip(pieces.offsets, pieces.counts, strict=True)):
        plane, place = divmod(number, down * across)
        row, column = (n * size for n, size in zip(divmod(place, across), pieces.size, strict=True))
        height = min(pieces.size[0], layout.shape[1] - row)
        width = min(pieces.size[1], layout.shape[2] - column)
        stored = pieces.size if pieces.whole else (height, width)
        raw = unpack(page.file.at(offset, count), _stored_bytes(layout, stored, pieces.samples))
        block = _numbers(page, layout, raw, (*stored, pieces.samples))[:height, :width]
        samples = slice(plane, plane + 1) if planes > 1 else slice(None)
        out[samples, row : row + height, column : column + width] = np.moveaxis(block, -1, 0)
    return out


def _check_pieces(page: Page, layout: Layout, pieces: Pieces) -> None:
    """Raise if pieces are outside of the file, or too small for what they must unpack to."""
    compression = layout.compression
    if compression not in _RATIOS:
        raise CodecMissingError(
            "none, LZW, deflate or PackBits",
            path=page.file.path,
            field=f"compression of page {page.number}",
            value=_NAMED.get(compression, compression),
            remedy="Save the file again in one of them.",
        )
    end = max(map(sum, zip(pieces.offsets, pieces.counts, strict=True)))
    held = sum(pieces.counts) * _RATIOS[compression]
    rows, columns = layout.shape[1:]
    nbytes = layout.shape[0] * rows * columns * layout.bits // 8
    if end > page.file.size or held < nbytes:
        raise TruncatedError(
            f"at most {min(held, page.file.size)} bytes, all that the file can hold",
            path=page.file.path,
            field=f"pixels of page {page.number}",
            value=max(end, nbytes),
            remedy="The file is cut short or its tags are wrong.",
        )
    area = pieces.size[0] * pieces.size[1]
    if pieces.whole and area > max(2**20, 4 * rows * columns):
        raise page.wrong(tags.TILE_LENGTH, "tiles of the size of the page", pieces.size)


def _stored_bytes(layout: Layout, size: tuple[int, int], samples: int) -> int:
    return size[0] * -(-size[1] * samples * layout.bits // 8)


def _numbers(page: Page, layout: Layout, raw: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Return unpacked bytes as pixels (rows, columns, samples)."""
    rows, columns, _ = shape
    predictor = page.whole(tags.PREDICTOR, 1)
    if layout.bits == 1:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8).reshape(rows, -1), axis=1)
        values = bits[:, :columns].astype(bool)[..., None]
    elif predictor == 3 and layout.dtype.kind == "f":
        values = _undo_float_predictor(raw, layout, shape)
    else:
        values = np.frombuffer(raw, layout.dtype).reshape(shape)
    if predictor == 2 and layout.dtype.kind in "iu":
        native = layout.dtype.newbyteorder("=")
        with np.errstate(over="ignore"):
            return np.cumsum(values.astype(native), axis=1, dtype=native)
    if predictor != 1 and not (predictor == 3 and layout.dtype.kind == "f"):
        raise page.wrong(tags.PREDICTOR, "1, 2 for whole numbers or 3 for fractions", predictor)
    return values


def _undo_float_predictor(raw: bytes, layout: Layout, shape: tuple[int, int, int]) -> np.ndarray:
    """Add up the bytes of each row, which stand apart by their significance."""
    rows, columns, samples = shape
    size = layout.dtype.itemsize
    flat = np.frombuffer(raw, np.uint8).reshape(rows, columns * size, samples)
    summed = np.cumsum(flat, axis=1, dtype=np.uint8).reshape(rows, size, columns * samples)
    together = np.ascontiguousarray(summed.transpose(0, 2, 1))
    return together.view(layout.dtype.newbyteorder(">")).reshape(shape)


def _unpacker(page: Page) -> Callable[[bytes, int], bytes]:
    """Return what unpacks a piece to just a number of bytes, or raises."""
    path, number = page.file.path, page.number
    compression = page.whole(tags.COMPRESSION, _NONE)
    unpack = {_NONE: _as_it_is, _LZW: _lzw, _PACKBITS: _packbits}.get(compression, _inflate)

    def checked(piece: bytes, count: int) -> bytes:
        field = f"pixels of page {number}"
        try:
            raw = unpack(piece, count)
        except (zlib.error, OSError, ValueError) as error:
            kind = ChecksumError if "incorrect data check" in str(error) else FormatError
            raise kind("whole", path=path, field=field, value=f"damage ({error})") from error
        if len(raw) < count:
            raise TruncatedError(f"{count} bytes", path=path, field=field, value=len(raw))
        return raw

    return checked


def _as_it_is(piece: bytes, count: int) -> bytes:
    if len(piece) > count + count % 2:  # a byte more makes it even
        raise ValueError(f"{len(piece)} bytes for {count}")
    return piece[:count]


def _inflate(piece: bytes, count: int) -> bytes:
    stream = zlib.decompressobj()
    raw = stream.decompress(piece, count)
    if not stream.eof:  # the checksum is behind the last byte
        if stream.decompress(stream.unconsumed_tail, 1):
            raise ValueError("more than declared")
        if not stream.eof:
            raise ValueError("the end before the end of the stream")
    if stream.unused_data.strip(b"\0"):
        raise ValueError("more behind the stream")
    return raw


def _packbits(piece: bytes, count: int) -> bytes:
    parts: list[bytes] = []
    at, made = 0, 0
    while made < count and at < len(piece):
        head = piece[at]
        if head < 128:
            parts.append(piece[at + 1 : at + 2 + head])
            at += 2 + head
        elif head > 128:
            parts.append(piece[at + 1 : at + 2] * (257 - head))
            at += 2
        else:
            at += 1
            continue
        made += len(parts[-1])
    if made > count:
        raise ValueError("more than declared")
    return b"".join(parts)


def _lzw(piece: bytes, count: int) -> bytes:
    """Decode LZW with the TIFF decoder of Pillow, wrapped as a picture of one strip."""
    plugin = optional.require("PIL.TiffImagePlugin", extra="io")
    width = next(w for w in range(min(count, 2**15), 0, -1) if count % w == 0)
    fields = {
        tags.WIDTH: width, tags.LENGTH: count // width, tags.BITS: 8, tags.COMPRESSION: _LZW,
        tags.PHOTOMETRIC: 1, tags.STRIP_OFFSETS: 8 + 2 + 9 * 12 + 4, tags.SAMPLES: 1,
        tags.ROWS_PER_STRIP: count // width, tags.STRIP_COUNTS: len(piece),
    }  # fmt: skip
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
        for tag, value in fields.items()
    )
    head = b"II*\0\x08\0\0\0" + len(fields).to_bytes(2, "little") + entries + bytes(4)
    with plugin.TiffImageFile(BytesIO(head + piece)) as picture:
        return picture.tobytes()
