"""Bytes of a file, plain or gzip, read once from start to end with every length checked."""

import os
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from io import FileIO
from types import ModuleType
from typing import Protocol, runtime_checkable

from medkit._core import optional
from medkit.data._errors import ChecksumError, FormatError, TruncatedError

GZIP_MAGIC = b"\x1f\x8b"

_CHUNK = 1 << 17  # compressed bytes per read
_BLOCK = 1 << 20  # inflated bytes per step: they stay in the processor's cache until copied
_DEFLATE_RATIO = 1032  # deflate cannot inflate a byte to more than this

_DEFLATE = 8
_HEADER_CRC, _EXTRA, _NAME, _COMMENT, _RESERVED = 2, 4, 8, 16, 0xE0


@runtime_checkable
class ByteSource(Protocol):
    """A file that is read forwards."""

    path: str

    def capacity(self) -> int:
        """Upper bound of the number of bytes the file can hold; no reading needed."""
        ...

    def peek(self, count: int) -> bytes:
        """Return up to ``count`` bytes from the start, to be read again; call it first."""
        ...

    def fill(self, view: memoryview) -> int:
        """Fill ``view`` and return how many bytes there were."""
        ...

    def finish(self) -> None:
        """Raise unless the file ends here and its checksums hold."""
        ...


@runtime_checkable
class Inflater(Protocol):
    """What ``zlib.decompressobj`` returns, here and in isal."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: memoryview, max_length: int, /) -> bytes: ...


class PlainSource:
    """An uncompressed file."""

    def __init__(self, file: FileIO, path: str) -> None:
        self.path = path
        self._file = file

    def capacity(self) -> int:
        """Size of the file."""
        return os.fstat(self._file.fileno()).st_size

    def peek(self, count: int) -> bytes:
        """Return up to ``count`` first bytes and go back to the start."""
        head = bytearray(count)
        got = self.fill(memoryview(head))
        self._file.seek(0)
        return bytes(head[:got])

    def fill(self, view: memoryview) -> int:
        """Fill ``view`` as far as the file goes."""
        done = 0
        while done < len(view):
            got = self._file.readinto(view[done:])
            if not got:
                break
            done += got
        return done

    def finish(self) -> None:
        """Raise if bytes are left."""
        left = self.capacity() - self._file.tell()
        if left:
            raise _left_over(self.path, f"{left} bytes")


class GzipSource:
    """A gzip file of one or several members; CRC-32 and length of every member are checked.

    Inflates with ``isal`` when it is installed, about twice as fast, and with the standard library
    otherwise. Wrapper and checksums are handled here, so both give the same results and errors.
    """

    def __init__(self, file: FileIO, path: str, *, engine: ModuleType, verify: bool) -> None:
        self.path = path
        self._file = file
        self._engine = engine
        self._verify = verify
        self._member: Inflater | None = None
        self._crc = self._size = 0
        self._input = memoryview(b"")  # compressed bytes that were read and not yet used
        self._head = b""  # inflated bytes that were looked at and not yet given
        self._begin_member()

    def capacity(self) -> int:
        """Size of the file times the largest ratio of the deflate format."""
        return os.fstat(self._file.fileno()).st_size * _DEFLATE_RATIO

    def peek(self, count: int) -> bytes:
        """Return up to ``count`` first inflated bytes; they are kept for ``fill``."""
        head = bytearray(count)
        got = self.fill(memoryview(head))
        self._head = bytes(head[:got])
        return self._head

    def fill(self, view: memoryview) -> int:
        """Fill ``view`` as far as the members go."""
        done = min(len(self._head), len(view))
        view[:done] = self._head[:done]
        self._head = self._head[done:]
        while done < len(view):
            block = self._inflate(min(_BLOCK, len(view) - done))
            if not block:
                break
            view[done : done + len(block)] = block
            done += len(block)
        return done

    def finish(self) -> None:
        """Raise unless the last member ends here, complete and with the right CRC."""
        if self._head or self._inflate(1):
            raise _left_over(self.path, "more")

    def _inflate(self, count: int) -> bytes:
        """Return 1 to ``count`` inflated bytes, or none at the end of the last member."""
        while self._member is not None:
            self._refill(1)
            try:
                block = self._member.decompress(self._input, count)
            except Exception as error:  # zlib.error or isal's, which share no other ancestor
                raise self._corrupt("a valid deflate stream", error) from error
            self._crc = self._engine.crc32(block, self._crc)
            self._size += len(block)
            if self._member.eof:
                self._input = memoryview(self._member.unused_data)
                self._end_member()
            else:
                self._input = memoryview(self._member.unconsumed_tail)
            if block:
                return block
        return b""

    def _begin_member(self) -> None:
        """Read the wrapper of a member (RFC 1952, section 2.3) and start to inflate it."""
        magic, method, flags = self._take(2), self._take(1)[0], self._take(1)[0]
        if magic != GZIP_MAGIC or method != _DEFLATE or flags & _RESERVED:
            found = f"{magic.hex()}, method {method}, flags {flags:#04x}"
            raise self._corrupt("a gzip header of method 8", found)
        self._take(6)
        if flags & _EXTRA:
            self._take(int.from_bytes(self._take(2), "little"))
        for text in (_NAME, _COMMENT):
            if flags & text:
                self._skip_text()
        if flags & _HEADER_CRC:
            self._take(2)
        self._member = self._engine.decompressobj(wbits=-15)
        self._crc = self._size = 0

    def _end_member(self) -> None:
        """Check what a member says about itself and go on to the next, if there is one."""
        crc, size = self._take(4), self._take(4)
        if self._verify:
            self._check("CRC-32", int.from_bytes(crc, "little"), self._crc)
            self._check("length", int.from_bytes(size, "little"), self._size % 2**32)
        self._member = None
        self._input = memoryview(bytes(self._input).lstrip(b"\0"))  # padding after the last member
        while not self._input:
            more = self._file.read(_CHUNK)
            if not more:
                return
            self._input = memoryview(more.lstrip(b"\0"))
        self._begin_member()

    def _check(self, name: str, stored: int, computed: int) -> None:
        if stored != computed:
            raise ChecksumError(
                f"{computed:#x}, computed from the content",
                path=self.path,
                field=f"gzip {name}",
                value=f"{stored:#x}",
                remedy="The file was damaged after it was written; copy or download it again.",
            )

    def _take(self, count: int) -> bytes:
        """Return just ``count`` compressed bytes."""
        self._refill(count)
        taken, self._input = bytes(self._input[:count]), self._input[count:]
        return taken

    def _skip_text(self) -> None:
        """Skip a text that ends with a zero byte, whatever its length."""
        end = -1
        while end < 0:
            self._refill(1)
            end = bytes(self._input).find(b"\0")
            self._input = self._input[end + 1 :] if end >= 0 else self._input[:0]

    def _refill(self, count: int) -> None:
        """Have at least ``count`` compressed bytes at hand."""
        while len(self._input) < count:
            more = self._file.read(_CHUNK)
            if not more:
                raise TruncatedError(
                    "complete",
                    path=self.path,
                    field="gzip stream",
                    value="the end of the file before the end of the stream",
                    remedy="The file is cut short; copy or download it again.",
                )
            self._input = memoryview(bytes(self._input) + more)

    def _corrupt(self, rule: str, found: object) -> FormatError:
        remedy = "The file was damaged after it was written; copy or download it again."
        return FormatError(rule, path=self.path, field="gzip stream", value=found, remedy=remedy)


@contextmanager
def open_source(path: str | os.PathLike[str], *, verify: bool = True) -> Generator[ByteSource]:
    """Open a file for reading forwards, through gzip when its first two bytes say so.

    ``verify=False`` lets a wrong CRC or length of a gzip member pass.
    """
    name = os.fspath(path)
    with FileIO(name, "r") as file:
        magic = file.read(2)
        file.seek(0)
        if magic == GZIP_MAGIC:
            yield GzipSource(file, name, engine=inflate_engine(), verify=verify)
        else:
            yield PlainSource(file, name)


def inflate_engine() -> ModuleType:
    """Return ``isal.isal_zlib`` when it can be used, else the standard library's ``zlib``."""
    if optional.is_available("isal.isal_zlib"):
        return optional.require("isal.isal_zlib", extra="fast")
    return zlib


def _left_over(path: str, what: str) -> FormatError:
    return FormatError(
        "the end of the file",
        path=path,
        field="the last voxel",
        value=f"{what} after it",
        remedy="The header's dim or datatype may be wrong; verify=False reads what it declares.",
    )
