"""A weight file of Keras: HDF5, or a ``.keras`` archive with HDF5 in it."""

import io
import os
import struct
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from medkit._core.hdf5 import Hdf5File, open_hdf5
from medkit.data import FormatError

_MEMBER = "model.weights.h5"
_ZIP = b"PK"
_JSON = b"{"
_UNSHARD = "Load it with Keras and save the weights without max_shard_size"
_LENGTHS = 26  # bytes of a member before the lengths of its name and of what follows
_BLOCK = 1 << 20


@contextmanager
def open_keras_file(path: str | os.PathLike[str]) -> Generator[Hdf5File]:
    """Open the HDF5 file that holds the weights; its first bytes say where that is."""
    with Path(path).open("rb") as stream:
        start = stream.read(2)
    if start[:1] == _JSON:
        value = "JSON, as Keras writes to name the shards of a model"
        rule = "the one file of all weights"
        raise FormatError(rule, path=os.fspath(path), field="file", value=value, remedy=_UNSHARD)
    if start != _ZIP:
        with open_hdf5(path) as file:
            yield file
        return
    name = os.fspath(path)
    with Path(path).open("rb") as stream:
        window = _member(stream, name)
        with open_hdf5(window, path=f"{name}:{_MEMBER}") as file:
            yield file


class _Window(io.RawIOBase):
    """A part of a file as a file of its own, so that nothing is unpacked."""

    def __init__(self, stream: io.BufferedReader, start: int, size: int) -> None:
        super().__init__()
        self._stream = stream
        self._start = start
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a place in the part."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, origin + offset)
        return self._place

    def tell(self) -> int:
        """Return the place in the part."""
        return self._place

    def readinto(self, buffer: object, /) -> int:
        """Fill the buffer as far as the part goes."""
        view = memoryview(cast("bytearray", buffer)).cast("B")  # h5py has a kind of its own
        count = max(0, min(len(view), self._size - self._place))
        self._stream.seek(self._start + self._place)
        data = self._stream.read(count)
        view[: len(data)] = data
        self._place += len(data)
        return len(data)


def _member(stream: io.BufferedReader, path: str) -> _Window:
    """Return the weights inside an archive, after checking their checksum."""
    try:
        with zipfile.ZipFile(stream) as archive:
            info = archive.getinfo(_MEMBER)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise FormatError(
                    "stored without compression, as Keras does",
                    path=path,
                    field=_MEMBER,
                    value=f"{info.compress_size} bytes for {info.file_size}",
                    remedy=f"Unzip the archive and load {_MEMBER} itself.",
                )
            with archive.open(info) as member:
                while member.read(_BLOCK):
                    pass
    except KeyError as error:
        value = "an archive without it"
        raise FormatError("in the archive", path=path, field=_MEMBER, value=value) from error
    except (zipfile.BadZipFile, RuntimeError, EOFError) as error:
        value = f"damage ({error})"
        raise FormatError("a whole archive", path=path, field="file", value=value) from error
    stream.seek(info.header_offset + _LENGTHS)
    lengths = struct.unpack("<HH", stream.read(4))
    return _Window(stream, info.header_offset + _LENGTHS + 4 + sum(lengths), info.file_size)
