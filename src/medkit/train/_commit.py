"""Files that appear whole or not at all, and folders likewise."""

import os
import platform
import re
import shutil
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 20
_HOST = platform.node().replace("/", "_")
_SUFFIX = ".tmp"


class Checked:
    """A file being written: counts and sums up the bytes, and keeps the first error of the disk.

    ``torch.save`` hides a full disk behind an error about positions; ``reraise`` brings it back.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size = 0
        self.crc32 = 0
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Write, count and sum up."""
        try:
            self._stream.write(data)
        except OSError as error:
            self.error = self.error or error
            raise
        self.crc32 = zlib.crc32(data, self.crc32)
        self.size += memoryview(data).nbytes
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Hand everything over to the system."""
        self._stream.flush()


@contextmanager
def replacing(path: Path, *, fsync: bool = True) -> Generator[Checked, None, None]:
    """Open a file that takes the place of ``path`` once it is complete and on the disk.

    The bytes go to another name in the same folder, since a rename is atomic only within one file
    system. On any error the old file stays, and nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, of=path.name)
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as stream:
            checked = Checked(stream)
            try:
                yield checked
                stream.flush()
            except Exception as error:
                if checked.error is not None and checked.error is not error:
                    raise checked.error from error
                raise
            if fsync:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if fsync:
        sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file in the place of ``path``."""
    with replacing(path) as stream:
        stream.write(data)


def file_crc32(path: Path) -> tuple[int, int]:
    """Return the size of a file in bytes and the CRC-32 of its content."""
    size = crc = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            crc = zlib.crc32(block, crc)
            size += len(block)
    return size, crc


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """Return the name to write under: beside ``path``, hidden, and this process' own."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}{_SUFFIX}")


def remove_leftovers(folder: Path, *, of: str | None = None) -> None:
    """Delete what processes of this machine that are gone left unfinished, of one name or any."""
    name = ".+" if of is None else re.escape(of)
    pattern = re.compile(rf"\.{name}\.{re.escape(_HOST)}-(\d+){re.escape(_SUFFIX)}")
    for leftover in folder.iterdir():
        match = pattern.fullmatch(leftover.name)
        if match and not _is_running(int(match[1])):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if process == os.getpid() or os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
