"""Bytes of a file, plain or gzip, read once from start to end with every length checked."""

import os
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from io import FileIO
from types import ModuleType
from typing import Protocol, runtime_checkable

from medkit._core import optional
from medkit._core.file_errors import FormatError

from ._compressed import CompressedBytes
from ._wrappers import GZIP_MAGIC, GzipWrapper, Wrapper, ZlibWrapper

_BLOCK = 1 << 20  # inflated bytes per step: they stay in the processor's cache until copied
_DEFLATE_RATIO = 1032  # deflate cannot inflate a byte to more than this


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


class InflatedSource:
    """A compressed file; its checksums are checked as they are reached.

    Inflates with ``isal`` when it is installed, about twice as fast, and with the standard library
    otherwise. Wrapper and checksums are handled here, so both give the same results and errors.
    """

    def __init__(self, data: CompressedBytes, wrapper: Wrapper, engine: ModuleType) -> None:
        self.path = data.path
        self._data = data
        self._wrapper = wrapper
        self._engine = engine
        self._inflater: Inflater | None = None
        self._head = b""  # inflated bytes that were looked at and not yet given
        self._begin()

    def capacity(self) -> int:
        """Size of the file times the largest ratio of the deflate format."""
        return self._data.size() * _DEFLATE_RATIO

    def peek(self, count: int) -> bytes:
        """Return up to ``count`` first inflated bytes; they are kept for ``fill``."""
        head = bytearray(count)
        got = self.fill(memoryview(head))
        self._head = bytes(head[:got])
        return self._head

    def fill(self, view: memoryview) -> int:
        """Fill ``view`` as far as the streams go."""
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
        """Raise unless the last stream ends here, complete and with the right checksum."""
        if self._head or self._inflate(1):
            raise _left_over(self.path, "more")

    def _begin(self) -> None:
        self._wrapper.begin()
        self._inflater = self._engine.decompressobj(wbits=-15)

    def _inflate(self, count: int) -> bytes:
        """Return 1 to ``count`` inflated bytes, or none at the end of the last stream."""
        while self._inflater is not None:
            more = bool(self._data.left) or self._data.read_more()
            try:  # even without input: isal keeps some inside
                block = self._inflater.decompress(self._data.left, count)
            except Exception as error:  # zlib.error or isal's, which share no other ancestor
                raise self._data.corrupt("a valid deflate stream", error) from error
            self._wrapper.update(block)
            if self._inflater.eof:
                self._data.left = memoryview(self._inflater.unused_data)
                self._inflater = None
                if self._wrapper.end():
                    self._begin()
            else:
                self._data.left = memoryview(self._inflater.unconsumed_tail)
                if not (more or block):
                    raise self._data.cut()
            if block:
                return block
        return b""


def gzip_source(file: FileIO, path: str, *, verify: bool) -> InflatedSource:
    """Read a gzip file of one or several members."""
    data, engine = CompressedBytes(file, path, "gzip"), inflate_engine()
    return InflatedSource(data, GzipWrapper(data, engine, verify=verify), engine)


def zlib_source(file: FileIO, path: str, *, verify: bool) -> InflatedSource:
    """Read a zlib file."""
    data, engine = CompressedBytes(file, path, "zlib"), inflate_engine()
    return InflatedSource(data, ZlibWrapper(data, verify=verify), engine)


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
            yield gzip_source(file, name, verify=verify)
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
        remedy="The sizes or the type in the header may be wrong; verify=False believes them.",
    )
