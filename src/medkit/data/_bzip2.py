"""Bytes of a bzip2 file, read forwards; the library checks the checksum of each block."""

import bz2
import os
from io import FileIO

from medkit._core.file_errors import FormatError, TruncatedError

_BLOCK = 1 << 17
_RATIO = 1_200_000
"""A block of 900 000 bytes, each of which may stand for 52, takes 40 bytes at least."""


class Bzip2Source:
    """One or several bzip2 streams, one behind the other."""

    def __init__(self, file: FileIO, path: str) -> None:
        self.path = path
        self._file = file
        self._stream = bz2.BZ2Decompressor()
        self._left = b""

    def capacity(self) -> int:
        """Size of the file times the largest ratio of the format."""
        return os.fstat(self._file.fileno()).st_size * _RATIO

    def peek(self, count: int) -> bytes:
        """Return nothing: voxels have no magic."""
        del count
        return b""

    def fill(self, view: memoryview) -> int:
        """Fill ``view`` as far as the streams go."""
        done = 0
        while done < len(view):
            block = self._unpack(len(view) - done)
            if not block:
                break
            view[done : done + len(block)] = block
            done += len(block)
        return done

    def finish(self) -> None:
        """Raise unless the last stream ends here."""
        if self._unpack(1):
            raise FormatError(
                "the end of the file", path=self.path, field="the last voxel", value="more after it"
            )

    def _unpack(self, count: int) -> bytes:
        """Return 1 to ``count`` bytes, or none at the end of the last stream."""
        while True:
            if self._stream.eof:
                self._left = self._stream.unused_data or self._file.read(_BLOCK)
                if not self._left:
                    return b""
                self._stream = bz2.BZ2Decompressor()
            elif self._stream.needs_input and not self._left:
                self._left = self._file.read(_BLOCK)
                if not self._left:
                    raise TruncatedError(
                        "complete",
                        path=self.path,
                        field="bzip2 stream",
                        value="the end of the file before the end of the stream",
                        remedy="The file is cut short; copy or download it again.",
                    )
            block = self._decompress(min(count, 1 << 20))
            if block:
                return block

    def _decompress(self, count: int) -> bytes:
        try:
            block = self._stream.decompress(self._left, count)
        except OSError as error:
            raise FormatError(
                "a valid bzip2 stream",
                path=self.path,
                field="bzip2 stream",
                value=error,
                remedy="The file was damaged after it was written; copy or download it again.",
            ) from error
        self._left = b""
        return block
