"""JPEG pictures: every marker looked at up to the end of the image, then unpacked by Pillow.

ITU-T T.81, "Digital compression and coding of continuous-tone still images", 1992, annex B.
"""

import math
import os
from io import FileIO
from typing import NamedTuple

import numpy as np

from medkit._core.file_errors import CodecMissingError, FormatError, LimitError, TruncatedError

from ._limits import Limits
from ._notice import Notice
from ._orientation import placed
from ._payload import check_payload
from ._pillow import unpack_picture
from ._stored import to_tensor
from ._volume import Volume

JPEG_MAGIC = b"\xff\xd8\xff"

_FRAMES = {0xC0, 0xC1, 0xC2}
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
_ALONE = {0x01, *range(0xD0, 0xD8)}
_SCAN, _END = 0xDA, 0xD9
_PIXELS_PER_BYTE = 64 * 4 * 16
"""A block of 64 pixels takes two bits at least, and colours may stand for 16 times as many."""


class _Frame(NamedTuple):
    bits: int
    height: int
    width: int
    samples: int
    end: int


def read_jpeg(
    path: str | os.PathLike[str], *, limits: Limits | None = None, verify: bool = True
) -> Volume:
    """Read a JPEG picture of 8 bits, grey or colour, whole or not at all.

    Grey gives one channel, colours the three of RGB. The picture is not turned as EXIF may ask for
    (notice ``"turned"``), so that it lies on labels that were drawn on it as stored. The format is
    lossy, and decoders differ by one grey level here and there: the notice ``"lossy"`` says so. It
    holds no checksum and no geometry: **a changed byte can go unnoticed**, spacing is 1 mm, with
    the notice ``"no_orientation"``.

    Needs Pillow (extra ``io``).

    Args:
        path: The file.
        limits: Largest size to accept; None means ``Limits()``. Pillow's own limit is not used.
        verify: Check that the file ends after the picture. That it does not end before is checked
            in any case.

    Returns:
        The volume (C, 1, H, W), uint8.

    Raises:
        CodecMissingError: If it is lossless, arithmetic or of 12 bits.
        DataError: If the file does not hold what it declares, or has four colours.
        ImportError: If Pillow is not installed.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (5, 4)).save(f"{folder}/a.jpg")
        ...     read_jpeg(f"{folder}/a.jpg").shape
        (1, 1, 4, 5)
    """
    source, limits = os.fspath(path), limits or Limits()
    with FileIO(source, "r") as file:
        content = _content(file, source, limits)
        frame = _look_through(content, source)
        if verify and frame.end < len(content):
            raise _wrong(source, "the end of the picture", "the end of the file", "more behind it")
        nbytes = frame.height * frame.width * frame.samples
        held = len(content) * _PIXELS_PER_BYTE * frame.samples
        check_payload(nbytes, held, source, limits, f"{frame.width} x {frame.height}")
        file.seek(0)
        pixels, turned = unpack_picture("PIL.JpegImagePlugin", "JpegImageFile", file, source)
    shape = (frame.height, frame.width, frame.samples)
    if pixels.size != math.prod(shape):
        raise _wrong(source, "pixels", f"{shape}", pixels.shape)
    values = np.ascontiguousarray(np.moveaxis(pixels.reshape(shape), -1, 0)[:, None])
    v = placed(to_tensor(values, source), source, None, None)
    notices = [Notice("lossy", "the picture was compressed with loss")]
    if turned:
        notices.append(Notice("turned", "EXIF asks for the picture to be turned; it is as stored"))
    return Volume(v.data, v.affine, source, (*v.warnings, *notices))


def _content(file: FileIO, path: str, limits: Limits) -> bytes:
    size = os.fstat(file.fileno()).st_size
    if size > limits.max_bytes:
        raise LimitError(f"at most {limits.max_bytes} bytes", path=path, field="file", value=size)
    content = file.readall()
    if not content.startswith(JPEG_MAGIC):
        raise _wrong(path, "magic", "\\xff\\xd8\\xff", content[:3])
    return content


def _look_through(content: bytes, path: str) -> _Frame:
    """Return what the markers say, up to the one that ends the picture."""
    at, frame, scans = 2, None, 0
    while True:
        marker, at = _marker(content, at, path)
        if marker == _END:
            break
        if marker in _ALONE:
            continue
        length = int.from_bytes(content[at : at + 2], "big")
        if length < 2 or at + length > len(content):
            raise _cut(path)
        if marker in _FRAMES or marker in _OTHER_FRAMES:
            frame = _frame(marker, content[at + 2 : at + length], frame, path)
        at += length
        if marker == _SCAN:
            scans += 1
            at = _after_scan(content, at, path)
    if frame is None or not scans:
        raise _wrong(path, "picture", "there", "none")
    return frame._replace(end=at)


def _marker(content: bytes, at: int, path: str) -> tuple[int, int]:
    """Return the marker at a place, and where its content begins."""
    if content[at : at + 1] not in (b"\xff", b""):
        raise _wrong(path, f"byte {at}", "a marker", f"{content[at]:#04x}")
    while content[at + 1 : at + 2] == b"\xff":  # fill bytes
        at += 1
    if at + 2 > len(content):
        raise _cut(path)
    return content[at + 1], at + 2


def _frame(marker: int, body: bytes, before: _Frame | None, path: str) -> _Frame:
    if before is not None or len(body) < 6:
        raise _wrong(path, "frame header", "there once", "another")
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    frame = _Frame(body[0], height, width, body[5], 0)
    if marker in _OTHER_FRAMES or frame.bits != 8:
        raise CodecMissingError(
            "baseline or progressive of 8 bits",
            path=path,
            field="compression",
            value=f"process {marker:#x} of {frame.bits} bits",
        )
    if frame.samples not in (1, 3) or not (height and width):
        found = f"{frame.samples} colours of {width} x {height}"
        raise _wrong(path, "picture", "of 1 or 3 colours with pixels", found)
    return frame


def _after_scan(content: bytes, at: int, path: str) -> int:
    """Return where the next marker stands behind coded pixels."""
    while True:
        at = content.find(b"\xff", at)
        if at < 0 or at + 1 >= len(content):
            raise _cut(path)
        follower = content[at + 1]
        if follower and follower != 0xFF and not 0xD0 <= follower <= 0xD7:
            return at
        at += 1 if follower == 0xFF else 2


def _cut(path: str) -> TruncatedError:
    return TruncatedError(
        "one that holds the end of its picture",
        path=path,
        field="file",
        value="its end before",
        remedy="The file is cut short; copy or download it again.",
    )


def _wrong(path: str, field: str, rule: str, found: object) -> FormatError:
    return FormatError(rule, path=path, field=field, value=found)
