"""Tags of TIFF 6.0 and BigTIFF: image file directories, parsed with every size checked.

Adobe, "TIFF Revision 6.0", 1992, section 2; BigTIFF: https://www.awaresystems.be/imaging/tiff/bigtiff.
"""

import os
import struct
from io import FileIO
from typing import Literal, NamedTuple

from medkit._core.file_errors import FormatError, LimitError, TruncatedError

from ._limits import Limits

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
FILL_ORDER, DESCRIPTION, STRIP_OFFSETS, ORIENTATION, SAMPLES = 266, 270, 273, 274, 277
ROWS_PER_STRIP, STRIP_COUNTS, X_RESOLUTION, Y_RESOLUTION, PLANAR = 278, 279, 282, 283, 284
RESOLUTION_UNIT, PREDICTOR, TILE_WIDTH, TILE_LENGTH = 296, 317, 322, 323
TILE_OFFSETS, TILE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBFILE = 324, 325, 338, 339, 254

_KINDS = {
    1: ("B", 1), 2: ("s", 1), 3: ("H", 2), 4: ("I", 4), 5: ("II", 8), 6: ("b", 1), 7: ("s", 1),
    8: ("h", 2), 9: ("i", 4), 10: ("ii", 8), 11: ("f", 4), 12: ("d", 8), 13: ("I", 4),
    16: ("Q", 8), 17: ("q", 8), 18: ("Q", 8),
}  # fmt: skip
_WANTED = {
    WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, DESCRIPTION, STRIP_OFFSETS,
    ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS, X_RESOLUTION, Y_RESOLUTION, PLANAR,
    RESOLUTION_UNIT, PREDICTOR, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS,
    EXTRA_SAMPLES, SAMPLE_FORMAT, SUBFILE,
}  # fmt: skip
_MOST_PAGES = 1 << 17
_TEXT, _BYTES = 2, 7

Number = int | float


class TiffFile:
    """A file whose directories are read one by one.

    Attributes:
        path: The file.
        size: Bytes of the file.
        order: ``"<"`` or ``">"``.
    """

    def __init__(self, file: FileIO, path: str, limits: Limits) -> None:
        self.path = path
        self.size: int = os.fstat(file.fileno()).st_size
        self._file = file
        self._left = limits.max_header_bytes
        head = self.at(0, 8)
        if head[:4] not in TIFF_MAGICS:
            raise self.wrong("magic", "II*, MM* or those of BigTIFF", head[:4])
        self.order: Literal["<", ">"] = "<" if head[:2] == b"II" else ">"
        self._big: bool = 43 in (head[2], head[3])
        self._offset = "Q" if self._big else "I"
        if self._big:
            head = self.at(0, 16)
            if self._unpack("HH", head[4:8]) != (8, 0):
                raise self.wrong("size of offsets", "8", head[4:8])
        self._first: int = int(self._unpack(self._offset, head[8:] if self._big else head[4:])[0])

    def pages(self) -> list["Page"]:
        """Return every directory of the file, in its order."""
        pages: list[Page] = []
        seen: set[int] = set()
        offset = self._first
        while offset:
            if offset in seen or len(pages) == _MOST_PAGES:
                rule = f"a chain of at most {_MOST_PAGES} pages without a loop"
                raise self.wrong("pages", rule, f"page {len(pages)} at byte {offset} again")
            seen.add(offset)
            page, offset = self._page(offset, len(pages))
            pages.append(page)
        if not pages:
            raise self.wrong("pages", "at least one", "none")
        return pages

    def at(self, offset: int, count: int) -> bytes:
        """Return bytes of the file, all of them there."""
        if offset + count > self.size:
            raise TruncatedError(
                f"at least {offset + count} bytes",
                path=self.path,
                field="file",
                value=self.size,
                remedy="The file is cut short; copy or download it again.",
            )
        self._file.seek(offset)
        parts: list[bytes] = []
        while count:
            part = self._file.read(count)
            if not part:
                raise TruncatedError("whole", path=self.path, field="file", value="its end")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def wrong(self, field: str, rule: str, found: object) -> FormatError:
        """Return the error for something that breaks a rule."""
        return FormatError(rule, path=self.path, field=field, value=found)

    def _page(self, offset: int, number: int) -> tuple["Page", int]:
        """Return a directory, and where the next is."""
        width, entry = (8, 20) if self._big else (2, 12)
        count = int(self._unpack("Q" if self._big else "H", self.at(offset, width))[0])
        self._spend(count * entry)
        body = self.at(offset + width, count * entry)
        rest = self.at(offset + width + count * entry, struct.calcsize("=" + self._offset))
        values: dict[int, tuple[Number, ...] | bytes] = {}
        for at in range(0, len(body), entry):
            tag, kind = self._unpack("HH", body[at : at + 4])
            if tag not in _WANTED:
                continue
            if int(tag) in values:
                raise self.wrong(f"tag {tag} of page {number}", "there once", "it twice")
            values[int(tag)] = self._value(body[at + 4 : at + entry], int(kind), int(tag), number)
        return Page(self, number, offset, values), int(self._unpack(self._offset, rest)[0])

    def _value(self, field: bytes, kind: int, tag: int, number: int) -> tuple[Number, ...] | bytes:
        if kind not in _KINDS:
            raise self.wrong(f"type of tag {tag} of page {number}", "a type of TIFF", kind)
        code, size = _KINDS[kind]
        half = len(field) // 2
        count = int(self._unpack(self._offset, field[:half])[0])
        self._spend(count * size)
        raw = field[half:]
        if count * size > half:
            raw = self.at(int(self._unpack(self._offset, raw)[0]), count * size)
        raw = raw[: count * size]
        if kind in (_TEXT, _BYTES):
            return raw
        return self._unpack(f"{count * len(code)}{code[0]}", raw)

    def _unpack(self, code: str, raw: bytes) -> tuple[Number, ...]:
        return struct.unpack(self.order + code, raw)

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise LimitError(
                "within limits.max_header_bytes",
                path=self.path,
                field="tags",
                value="more",
                remedy="Pass limits=Limits(max_header_bytes=...) if you trust the file.",
            )


class Page(NamedTuple):
    """One directory: the values of its tags, checked when they are asked for."""

    file: TiffFile
    number: int
    offset: int
    """Where the directory begins."""
    values: dict[int, tuple[Number, ...] | bytes]

    def whole(self, tag: int, default: int | None = None) -> int:
        """Return a value that is one whole number."""
        numbers = self.wholes(tag, None if default is None else (default,))
        if len(numbers) != 1:
            raise self.wrong(tag, "one number", f"{len(numbers)} of them")
        return numbers[0]

    def wholes(self, tag: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Return a value that is made of whole numbers, none of them negative."""
        value = self.values.get(tag, default)
        if value is None:
            raise self.wrong(tag, "there", "nothing")
        if isinstance(value, bytes) or not all(isinstance(n, int) and n >= 0 for n in value):
            raise self.wrong(tag, "whole numbers", str(value)[:80])
        return tuple(int(n) for n in value)

    def ratio(self, tag: int) -> float | None:
        """Return a value that is one fraction, None where it is missing or says nothing."""
        value = self.values.get(tag)
        if value is None or isinstance(value, bytes) or len(value) != 2 or not min(value) > 0:
            return None
        return value[0] / value[1]

    def text(self, tag: int) -> str:
        """Return a text up to its first zero byte."""
        value = self.values.get(tag, b"")
        return (
            value.partition(b"\0")[0].decode("utf-8", "replace") if isinstance(value, bytes) else ""
        )

    def wrong(self, tag: int, rule: str, found: object) -> FormatError:
        """Return the error for a tag that breaks a rule."""
        return self.file.wrong(f"tag {tag} of page {self.number}", rule, found)
