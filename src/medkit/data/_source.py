"""Bytes of a file, plain or gzip, read once from start to end with every length checked."""

import os
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from io import FileIO
from types import ModuleType
from typing import Protocol

from medkit._core import optional
from medkit.data._errors import ChecksumError, FormatError, TruncatedError

GZIP_MAGIC = b"\x1f\x8b"

_CHUNK = 1 << 17  # compressed bytes per read
_BLOCK = 1 << 20  # inflated bytes per step: they stay in the processor's cache until copied
_DEFLATE_RATIO = 1032  # deflate cannot inflate a byte to more than this


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
    otherwise.
    """

    def __init__(self, file: FileIO, path: str, engine: ModuleType) -> None:
        self.path = path
        self._file = file
        self._engine = engine
        self._member = engine.decompressobj(wbits=31)
        self._pending = b""
        self._head = b""
        self._started = False

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
        while True:
            if self._member.eof and not self._next_member():
                return b""
            if not self._pending:
                self._pending = self._file.read(_CHUNK)
            if not self._pending:
                raise TruncatedError(
                    "complete; got a gzip stream that stops before its checksum",
                    path=self.path,
                    remedy="Copy or download the file again.",
                )
            block = self._decompress(count)
            if block:
                return block

    def _decompress(self, count: int) -> bytes:
        try:
            block = self._member.decompress(self._pending, count)
        except Exception as error:  # zlib.error or isal's error, which share no ancestor
            raise self._corrupt(error) from error
        self._pending = (
            self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        )
        return block

    def _next_member(self) -> bool:
        """Start the member after this one; zero padding after the last member is allowed."""
        while True:
            self._pending = self._pending.lstrip(b"\0") or self._file.read(_CHUNK)
            if not self._pending:
                return False
            if self._pending[0]:
                break
        self._member = self._engine.decompressobj(wbits=31)
        return True

    def _corrupt(self, error: Exception) -> FormatError | ChecksumError:
        reason = str(error).lower()
        remedy = "The file was damaged after it was written; copy or download it again."
        if "checksum" in reason or "data check" in reason or "length check" in reason:
            return ChecksumError(
                "equal to the one computed from the content",
                path=self.path,
                field="gzip CRC-32",
                value=f"a mismatch ({error})",
                remedy=remedy,
            )
        return FormatError(
            "a valid deflate stream",
            path=self.path,
            field="gzip data",
            value=str(error),
            remedy=remedy,
        )


@contextmanager
def open_source(path: str | os.PathLike[str]) -> Generator[ByteSource]:
    """Open a file for reading forwards, through gzip when its first two bytes say so."""
    name = os.fspath(path)
    with FileIO(name, "r") as file:
        magic = file.read(2)
        file.seek(0)
        if magic == GZIP_MAGIC:
            yield GzipSource(file, name, inflate_engine())
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
