"""Compressed bytes of a file, taken forwards, with one wording for what is wrong with them."""

import os
from io import FileIO

from medkit._core.file_errors import ChecksumError, FormatError, TruncatedError

_CHUNK = 1 << 17  # bytes per read
_REMEDY = "The file was damaged after it was written; copy or download it again."


class CompressedBytes:
    """What is left of a compressed file."""

    def __init__(self, file: FileIO, path: str, kind: str) -> None:
        self.path = path
        self.kind = kind
        self.left = memoryview(b"")  # bytes that were read and not yet used
        self._file = file

    def size(self) -> int:
        """Size of the whole file."""
        return os.fstat(self._file.fileno()).st_size

    def take(self, count: int) -> bytes:
        """Return just ``count`` bytes."""
        self.refill(count)
        taken, self.left = bytes(self.left[:count]), self.left[count:]
        return taken

    def skip_text(self) -> None:
        """Skip a text that ends with a zero byte, whatever its length."""
        end = -1
        while end < 0:
            self.refill(1)
            end = bytes(self.left).find(b"\0")
            self.left = self.left[end + 1 :] if end >= 0 else self.left[:0]

    def skip_zeros(self) -> bool:
        """Skip padding and return whether anything comes after it."""
        self.left = memoryview(bytes(self.left).lstrip(b"\0"))
        while not self.left:
            more = self._file.read(_CHUNK)
            if not more:
                return False
            self.left = memoryview(more.lstrip(b"\0"))
        return True

    def refill(self, count: int) -> None:
        """Have at least ``count`` bytes at hand."""
        while len(self.left) < count:
            if not self.read_more():
                raise self.cut()

    def read_more(self) -> bool:
        """Read on and return whether there was anything."""
        more = self._file.read(_CHUNK)
        self.left = memoryview(bytes(self.left) + more)
        return bool(more)

    def cut(self) -> TruncatedError:
        """Return the error for a file that ends too early."""
        return TruncatedError(
            "complete",
            path=self.path,
            field=f"{self.kind} stream",
            value="the end of the file before the end of the stream",
            remedy="The file is cut short; copy or download it again.",
        )

    def check(self, name: str, stored: int, computed: int) -> None:
        """Raise if a checksum or length is not what it says."""
        if stored != computed:
            raise ChecksumError(
                f"{computed:#x}, computed from the content",
                path=self.path,
                field=f"{self.kind} {name}",
                value=f"{stored:#x}",
                remedy=_REMEDY,
            )

    def corrupt(self, rule: str, found: object) -> FormatError:
        """Return the error for bytes that break the rules of the stream."""
        return FormatError(
            rule, path=self.path, field=f"{self.kind} stream", value=found, remedy=_REMEDY
        )
