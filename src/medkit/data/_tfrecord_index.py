"""Where the records of a plain TFRecord file begin: found once, kept beside it, never believed."""

import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medkit._core.atomic import atomic_file
from medkit._core.file_errors import FormatError

from ._crc32c import crc32c
from ._file_state import changed, file_state
from ._limits import Limits
from ._source import PlainSource
from ._tfrecord import (
    FRAME,
    HEAD,
    check_record,
    check_size,
    declared_length,
    record_source,
)

INDEX_SUFFIX = ".index"

_MAGIC = b"tfrindex"
_HEADER = struct.Struct("<8sqqq")  # magic, size and time of the data file, number of records
_CRC_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class TFRecordIndex:
    """Offsets of the records of one file, with the size and time of the file they belong to."""

    path: str
    size: int
    mtime_ns: int
    offsets: npt.NDArray[np.int64]
    """Where each record begins, and at last the end of the file."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, number: int, *, verify: bool) -> memoryview:
        """Return the content of one record; nothing is kept open, so any process may call it."""
        start, stop = (int(offset) for offset in self.offsets[number : number + 2])
        where = f"record {number}"
        with FileIO(self.path, "r") as file:
            if file_state(file.fileno()) != (self.size, self.mtime_ns):
                raise changed(self.path)
            frame = np.empty(stop - start, np.uint8)
            file.seek(start)
            got = PlainSource(file, self.path).fill(frame.data)
        if got < len(frame):
            raise changed(self.path, "a smaller size")
        length = declared_length(frame[:HEAD], self.path, where, verify=verify)
        if length + FRAME != len(frame):
            raise changed(self.path, f"a length of {length} where it was {len(frame) - FRAME}")
        return check_record(frame, self.path, where, verify=verify)


def open_index(
    path: str | os.PathLike[str], *, limits: Limits, verify: bool, store: bool
) -> TFRecordIndex:
    """Return the index of a file: the stored one if it is of this very file, else a new one.

    A new one takes one small read per record; ``store`` keeps it beside the file.
    """
    name = os.fspath(path)
    with FileIO(name, "r") as file:
        state = file_state(file.fileno())
        index = _load(name, *state)
        if index is None:
            source = record_source(file, name, verify=verify)
            if not isinstance(source, PlainSource):
                raise FormatError(
                    "uncompressed for random access",
                    path=name,
                    field="TFRecord file",
                    value="a compressed one",
                    remedy="Rewrite it: write_tfrecord(read_tfrecord(path), new_path).",
                )
            index = _scan(file, name, *state, limits=limits, verify=verify)
            if store:
                _store(index)
    if len(index):  # a stored index was perhaps built under other limits
        longest = int(np.argmax(np.diff(index.offsets)))
        start, stop = index.offsets[longest : longest + 2].tolist()
        check_size(stop - start - FRAME, stop - start, name, f"record {longest}", limits)
    return index


def _scan(
    file: FileIO, path: str, size: int, mtime_ns: int, *, limits: Limits, verify: bool
) -> TFRecordIndex:
    """Hop from length to length through the file."""
    offsets = [0]
    at = 0
    source, head = PlainSource(file, path), np.empty(HEAD, np.uint8)
    while at < size:
        where = f"record {len(offsets) - 1}"
        file.seek(at)
        got = source.fill(head.data)
        length = declared_length(head[:got], path, where, verify=verify)
        check_size(length, size - at - HEAD, path, where, limits)
        at += length + FRAME
        offsets.append(at)
    return TFRecordIndex(
        path=path, size=size, mtime_ns=mtime_ns, offsets=np.array(offsets, np.int64)
    )


def _load(path: str, size: int, mtime_ns: int) -> TFRecordIndex | None:
    """Return the stored index if it is whole and of a file of just this size and time."""
    try:
        content = Path(path + INDEX_SUFFIX).read_bytes()
    except OSError:
        return None
    body = content[:-_CRC_BYTES]
    if len(body) < _HEADER.size or (len(body) - _HEADER.size) % 8:
        return None
    *found, count = _HEADER.unpack_from(body)
    offsets = np.frombuffer(body, "<i8", offset=_HEADER.size).astype(np.int64)
    crc = crc32c(np.frombuffer(body, np.uint8)).to_bytes(_CRC_BYTES, "little")
    if found != [_MAGIC, size, mtime_ns] or len(offsets) != count + 1:
        return None
    if crc != content[-_CRC_BYTES:] or offsets[0] or offsets[-1] != size:
        return None
    if np.any(np.diff(offsets) < FRAME):
        return None
    return TFRecordIndex(path=path, size=size, mtime_ns=mtime_ns, offsets=offsets)


def _store(index: TFRecordIndex) -> None:
    """Keep the index beside the file; a folder that cannot be written to is no error."""
    head = _HEADER.pack(_MAGIC, index.size, index.mtime_ns, len(index))
    body = head + index.offsets.astype("<i8").tobytes()
    crc = crc32c(np.frombuffer(body, np.uint8)).to_bytes(_CRC_BYTES, "little")
    with suppress(PermissionError), atomic_file(index.path + INDEX_SUFFIX) as file:
        file.write(body + crc)
