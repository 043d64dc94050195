"""What gzip and zlib put around a deflate stream: headers before it, checksums after it."""

import zlib
from types import ModuleType
from typing import Protocol, runtime_checkable

from ._compressed import CompressedBytes

GZIP_MAGIC = b"\x1f\x8b"

_DEFLATE = 8
_HEADER_CRC, _EXTRA, _NAME, _COMMENT, _RESERVED = 2, 4, 8, 16, 0xE0
_PRESET_DICTIONARY = 0x20


@runtime_checkable
class Wrapper(Protocol):
    """Reads what stands around the deflate streams of a file."""

    def begin(self) -> None:
        """Read what comes before a deflate stream."""
        ...

    def update(self, block: bytes) -> None:
        """Take inflated bytes into the checksum."""
        ...

    def end(self) -> bool:
        """Check what comes after the stream and return whether another one begins."""
        ...


class GzipWrapper:
    """Members of RFC 1952, each with the CRC-32 and the length of its content."""

    def __init__(self, data: CompressedBytes, engine: ModuleType, *, verify: bool) -> None:
        self._data = data
        self._engine = engine
        self._verify = verify
        self._crc = self._size = 0

    def begin(self) -> None:
        """Read the header of a member (section 2.3)."""
        data = self._data
        magic, method, flags = data.take(2), data.take(1)[0], data.take(1)[0]
        if magic != GZIP_MAGIC or method != _DEFLATE or flags & _RESERVED:
            found = f"{magic.hex()}, method {method}, flags {flags:#04x}"
            raise data.corrupt("a gzip header of method 8", found)
        data.take(6)
        if flags & _EXTRA:
            data.take(int.from_bytes(data.take(2), "little"))
        for text in (_NAME, _COMMENT):
            if flags & text:
                data.skip_text()
        if flags & _HEADER_CRC:
            data.take(2)
        self._crc = self._size = 0

    def update(self, block: bytes) -> None:
        """Count the bytes too."""
        self._crc = self._engine.crc32(block, self._crc)
        self._size += len(block)

    def end(self) -> bool:
        """Check CRC-32 and length; zeros may follow the last member."""
        crc, size = self._data.take(4), self._data.take(4)
        if self._verify:
            self._data.check("CRC-32", int.from_bytes(crc, "little"), self._crc)
            self._data.check("length", int.from_bytes(size, "little"), self._size % 2**32)
        return self._data.skip_zeros()


class ZlibWrapper:
    """The one stream of RFC 1950, with the Adler-32 of its content."""

    def __init__(self, data: CompressedBytes, *, verify: bool) -> None:
        self._data = data
        self._verify = verify
        self._adler = 1

    def begin(self) -> None:
        """Read the two bytes of the header (section 2.2)."""
        head = self._data.take(2)
        if not is_zlib(head):
            raise self._data.corrupt("a zlib header of method 8", head.hex())

    def update(self, block: bytes) -> None:
        """Only the checksum is stored, no length."""
        self._adler = zlib.adler32(block, self._adler)

    def end(self) -> bool:
        """Check the Adler-32; only zeros may follow it."""
        adler = self._data.take(4)
        if self._verify:
            self._data.check("Adler-32", int.from_bytes(adler, "big"), self._adler)
            if self._data.skip_zeros():
                raise self._data.corrupt("at its end", "more bytes after the stream")
        return False


def is_zlib(head: bytes) -> bool:
    """Return whether two bytes can be the header of a zlib stream without a dictionary."""
    return (
        len(head) >= 2
        and head[0] & 15 == _DEFLATE
        and head[0] >> 4 <= 7
        and not head[1] & _PRESET_DICTIONARY
        and (head[0] * 256 + head[1]) % 31 == 0
    )
