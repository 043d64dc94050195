"""TIFF stacks: pages become planes, read exactly or refused, and written as OME-TIFF."""

import math
import os
import struct
import zlib
from collections.abc import Iterator
from io import FileIO
from typing import BinaryIO

import numpy as np

from medkit._core import check
from medkit._core.atomic import atomic_file
from medkit._core.file_errors import FormatError
from medkit.ops import affine_spacing

from . import _tiff_tags as tags
from ._adapters import plain_array
from ._limits import Limits
from ._notice import Notice
from ._orientation import placed
from ._payload import allocate, check_payload
from ._stored import exact, tensor_dtype, to_tensor
from ._tiff_pixels import Layout, Pieces, page_layout, page_pieces, read_page
from ._tiff_stack import Stack, describe_stack
from ._tiff_tags import TIFF_MAGICS, Page, TiffFile
from ._volume import Volume

_NAMES = {
    "i1": "int8", "i2": "int16", "i4": "int32", "u1": "uint8", "u2": "uint16", "u4": "uint32",
    "f4": "float", "f8": "double", "c8": "complex", "c16": "double-complex",
}  # fmt: skip
_FORMATS = {"u": 1, "i": 2, "f": 3, "c": 6}
_WHITE_IS_ZERO, _RGB, _PALETTE = 0, 2, 3
_KNOWN_COLOURS = (0, 1, 2, 3)
_REDUCED = 1
_BIG = 2**32 - 2**24


def is_tiff(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of TIFF or BigTIFF."""
    return head.startswith(TIFF_MAGICS)


def read_tiff(
    path: str | os.PathLike[str], *, limits: Limits | None = None, verify: bool = True
) -> Volume:
    """Read a TIFF stack (.tif, .tiff, OME-TIFF, BigTIFF), exactly or not at all.

    Pages are the planes along d; samples of a page, and channels that ImageJ or OME-XML states, are
    the channels. The spacing is what ImageJ or OME-XML states in a unit of length, or pixels per
    centimetre; pixels per inch are how large to print and are ignored. TIFF holds no orientation:
    the volume carries the notice ``"no_orientation"``. Values are as stored: indices of a palette,
    inverted grey and turned pages are told by the notices ``"palette"``, ``"white_is_zero"`` and
    ``"turned"``. Pages marked as reduced copies are passed over (``"reduced_pages"``).

    Compressions are none, deflate, PackBits and, with the extra ``io``, LZW.

    Args:
        path: The file.
        limits: Largest size to accept; None means ``Limits()``.
        verify: The checksum of deflate, the only one of the format, is checked in any case.

    Returns:
        The volume, of the stored dtype; uint16 becomes int32, uint32 and uint64 become int64, one
        bit bool.

    Raises:
        CodecMissingError: If the pixels are compressed in another way.
        DataError: If the file does not hold what it declares, or its pages differ in size or type.
        ImportError: If LZW needs Pillow and it is not installed.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> v = Volume(torch.zeros(1, 2, 3, 4, dtype=torch.uint8), np.diag([3.0, 2.0, 1.0, 1.0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tiff(v, f"{folder}/a.tif")
        ...     read_tiff(f"{folder}/a.tif")
        Volume(1x2x3x4 uint8, 3x2x1 mm, SAR, ...a.tif)

    References:
        Adobe, "TIFF Revision 6.0", 1992.
    """
    del verify  # zlib checks every Adler-32
    limits, source = limits or Limits(), os.fspath(path)
    with FileIO(source, "r") as file:
        tiff = TiffFile(file, source, limits)
        every = tiff.pages()
        pages = [page for page in every if not page.whole(tags.SUBFILE, 0) & _REDUCED]
        if not pages:
            raise tiff.wrong("pages", "at least one in full size", "reduced copies alone")
        stack = describe_stack(pages)
        layout = page_layout(pages[0])
        array = _read_stack(tiff, pages, stack, layout, limits)
    data = to_tensor(array, source)
    spacing = None if stack.spacing is None else np.array(stack.spacing)
    v = placed(data, source, None, spacing)
    notices = (*v.warnings, *_notices(pages[0], len(every) - len(pages)))
    return Volume(v.data, v.affine, source, notices)


def write_tiff(volume: Volume, path: str | os.PathLike[str], *, compress: bool = True) -> None:
    """Write an OME-TIFF stack that tifffile, ImageJ and QuPath read, whole or not at all.

    One page for each plane, all planes of a channel after each other, the spacing in OME-XML. TIFF
    holds no orientation: **the place in the patient is lost.** Use NIfTI to keep it.

    Args:
        volume: What to write; bool is stored as uint8, float16 and bfloat16 as float32.
        path: Where to; an existing file is replaced at the end.
        compress: Deflate the pages, which puts a checksum on them.

    Raises:
        TypeError: If ``volume`` is not one.
        ValueError: If the voxels are int64, which OME-TIFF has no name for.
        OSError: If the file cannot be written; an older file of that name is then untouched.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> label = Volume(torch.ones(1, 4, 5, 6, dtype=torch.uint8), np.eye(4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tiff(label, f"{folder}/label.tif")
        ...     read_tiff(f"{folder}/label.tif").shape
        (1, 4, 5, 6)
    """
    check.kind("volume", volume, Volume, "a Volume")
    array = exact(plain_array(volume.data), None, volume)
    if array.dtype.str[1:] not in _NAMES:
        rule = f"one of {', '.join(_NAMES.values())} for .tif, e.g. data.to(torch.uint8)"
        raise check.fail("data", rule, str(array.dtype))
    pages = array.reshape(-1, *array.shape[2:])
    with atomic_file(path) as file:
        _write(file, pages, _ome_xml(volume, array.dtype), compress=compress)


def _read_stack(
    tiff: TiffFile, pages: list[Page], stack: Stack, layout: Layout, limits: Limits
) -> np.ndarray:
    """Return all pages as (C, D, H, W), their sizes checked before they are allocated."""
    count = stack.channels * stack.planes
    shape = (count, *layout.shape)
    wide = math.prod(shape) * tensor_dtype(layout.dtype).itemsize
    check_payload(wide, wide, tiff.path, limits, f"{count} pages of {layout.shape}")
    if stack.one_page:
        planes = _behind(tiff, pages[0], layout, count)
    else:
        every = [(page, _same_pieces(page, layout)) for page in pages]
        starts = [start for _, pieces in every for start in pieces.offsets]
        if len(set(starts)) < len(starts):  # tags have no checksum: one of them is wrong
            raise tiff.wrong("strips", "each in bytes of their own", "two in the same")
        raw = allocate(math.prod(shape) * layout.dtype.itemsize, tiff.path)
        planes = raw.view(layout.dtype.newbyteorder("=")).reshape(shape)
        for plane, (page, pieces) in zip(planes, every, strict=True):
            plane[...] = read_page(page, layout, pieces)
    outer = {"C": stack.channels, "D": stack.planes}
    planes = planes.reshape(*(outer.get(a, 1) for a in stack.order), *layout.shape)
    if stack.order == "D":
        planes = planes[None]
    elif stack.order == "DC":
        planes = planes.swapaxes(0, 1)
    c, d, samples, h, w = planes.shape
    return np.ascontiguousarray(planes.swapaxes(1, 2).reshape(c * samples, d, h, w))


def _behind(tiff: TiffFile, page: Page, layout: Layout, count: int) -> np.ndarray:
    """Return pages that ImageJ stores behind the first, without directories of their own."""
    pieces = page_pieces(page, layout)
    nbytes = math.prod(layout.shape) * layout.dtype.itemsize
    if page.whole(tags.COMPRESSION, 1) != 1 or layout.bits == 1 or pieces.grid[0] > 1:
        raise tiff.wrong("pages of ImageJ", "uncompressed behind the first", "another storage")
    if sum(pieces.counts) not in (nbytes, nbytes * count):
        raise tiff.wrong("pages of ImageJ", f"{nbytes} bytes each", sum(pieces.counts))
    start, end = pieces.offsets[0], pieces.offsets[0] + nbytes * count
    if start <= page.offset < end:
        raise tiff.wrong("pages of ImageJ", f"{nbytes * count} bytes of pixels", "tags among them")
    raw = tiff.at(start, end - start)
    planes = np.frombuffer(raw, layout.dtype).reshape(count, *layout.shape[1:], layout.shape[0])
    return np.moveaxis(planes, -1, 1)


def _same_pieces(page: Page, layout: Layout) -> Pieces:
    """Return the strips of a page; one that differs from the first is no part of a volume."""
    own = page_layout(page)
    if own != layout:
        raise FormatError(
            f"{layout.shape} {layout.dtype}, compression {layout.compression}, as page 0",
            path=page.file.path,
            field=f"page {page.number}",
            value=f"{own.shape} {own.dtype}, compression {own.compression}",
            remedy="A volume needs pages of one size and type; save its pages alone.",
        )
    return page_pieces(page, layout)


def _notices(page: Page, reduced: int) -> Iterator[Notice]:
    colour = page.whole(tags.PHOTOMETRIC, 1)
    if colour not in _KNOWN_COLOURS:
        raise page.wrong(tags.PHOTOMETRIC, "grey, RGB or a palette", colour)
    if colour == _WHITE_IS_ZERO:
        yield Notice("white_is_zero", "low values are bright; the voxels are as stored")
    if colour == _PALETTE:
        yield Notice("palette", "voxels are indices of a palette, as stored")
    if page.whole(tags.ORIENTATION, 1) != 1:
        yield Notice("turned", "a tag says that the pages are to be turned; they are as stored")
    if reduced:
        yield Notice("reduced_pages", f"{reduced} reduced copies were passed over")


def _ome_xml(volume: Volume, dtype: np.dtype[np.generic]) -> bytes:
    c, d, h, w = volume.shape
    z, y, x = affine_spacing(volume.affine)
    channels = "".join(f'<Channel ID="Channel:0:{n}" SamplesPerPixel="1"/>' for n in range(c))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="{_NAMES[dtype.str[1:]]}" '
        f'SizeX="{w}" SizeY="{h}" SizeZ="{d}" SizeC="{c}" SizeT="1" BigEndian="false" '
        f'PhysicalSizeX="{x!r}" PhysicalSizeXUnit="mm" PhysicalSizeY="{y!r}" '
        f'PhysicalSizeYUnit="mm" PhysicalSizeZ="{z!r}" PhysicalSizeZUnit="mm">'
        f"{channels}<TiffData/></Pixels></Image></OME>"
    ).encode() + b"\0"


def _write(file: BinaryIO, pages: np.ndarray, text: bytes, *, compress: bool) -> None:
    """Write the pixels of all pages, then their directories."""
    big = pages.nbytes + 300 * len(pages) + len(text) > _BIG
    code, size = ("Q", 8) if big else ("I", 4)
    file.write((b"II+\0\x08\0\0\0" if big else b"II*\0") + bytes(size))
    places: list[tuple[int, int]] = []
    for page in pages:
        start, content = file.tell(), page.tobytes()
        file.write(zlib.compress(content, 1) if compress else content)
        places.append((start, file.tell() - start))
    text_at = file.tell()
    file.write(text + bytes(len(text) % 2))
    first = file.tell()
    for number, place in enumerate(places):
        described = (text_at, len(text)) if number == 0 else None
        entries = _entries(pages[number], place, described, compress)
        file.write(struct.pack("<Q" if big else "<H", len(entries)))
        for tag, kind, count, value in entries:
            file.write(struct.pack(f"<HH{code}{code}", tag, kind, count, value))
        following = 0 if number + 1 == len(pages) else file.tell() + size
        file.write(struct.pack(f"<{code}", following))
    file.seek(8 if big else 4)
    file.write(struct.pack(f"<{code}", first))


def _entries(
    page: np.ndarray, place: tuple[int, int], text: tuple[int, int] | None, compress: bool
) -> list[tuple[int, int, int, int]]:
    """Return the tags of a page: number, type, count and value or place."""
    rows, columns = page.shape
    long, short, ascii_text = 4, 3, 2
    described = [] if text is None else [(tags.DESCRIPTION, ascii_text, text[1], text[0])]
    return [
        (tags.WIDTH, long, 1, columns),
        (tags.LENGTH, long, 1, rows),
        (tags.BITS, short, 1, page.dtype.itemsize * 8),
        (tags.COMPRESSION, short, 1, 8 if compress else 1),
        (tags.PHOTOMETRIC, short, 1, 1),
        *described,
        (tags.STRIP_OFFSETS, 16 if place[0] > _BIG else long, 1, place[0]),
        (tags.SAMPLES, short, 1, 1),
        (tags.ROWS_PER_STRIP, long, 1, rows),
        (tags.STRIP_COUNTS, 16 if place[1] > _BIG else long, 1, place[1]),
        (tags.SAMPLE_FORMAT, short, 1, _FORMATS[page.dtype.kind]),
    ]
