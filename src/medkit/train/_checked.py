"""A torch file with a checksum over every byte, in the comment a zip file may end with."""

import json
import pickle
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

import torch

from medkit._core import check

from ._commit import Checked

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_END = b"PK\x05\x06"  # a zip file's last record: 22 bytes, the last two the comment's length
_END_SIZE = 22
_MARK = b"medkit-1 "
_CRC_DIGITS = 8
_MAX_COMMENT = 65_535
_BLOCK = 1 << 20


class CheckpointError(RuntimeError):
    """A weight file or checkpoint that is damaged, incomplete or of another model."""


class Content(NamedTuple):
    """What a file holds: the saved object, the JSON beside it, and whether a checksum was right."""

    value: object
    metadata: dict[str, Json]
    verified: bool


def write_checked(
    stream: Checked, value: object, *, metadata: Mapping[str, Json] | None = None
) -> None:
    """Save ``value`` as torch does, and end the file with metadata and checksum."""
    held = _HeldBack(stream)
    torch.save(value, held)  # pyright: ignore[reportArgumentType]  it only writes
    if held.tail[:4] != _END or held.tail[-2:] != b"\0\0":
        raise CheckpointError("torch.save did not end the file as a zip file ends")
    text = _MARK + json.dumps(dict(metadata or {}), allow_nan=False).encode()
    if len(text) + _CRC_DIGITS > _MAX_COMMENT:
        raise check.fail("metadata", f"at most {_MAX_COMMENT} bytes of JSON", f"{len(text)} bytes")
    stream.write(held.tail[:-2] + struct.pack("<H", len(text) + _CRC_DIGITS) + text)
    stream.write(f"{stream.crc32:08x}".encode())


def read_checked(path: Path) -> Content:
    """Check a file's bytes and load what it holds onto the CPU; nothing in it is executed."""
    comment = _comment(path)
    metadata: dict[str, Json] = {}
    if comment:
        if not comment.startswith(_MARK) or comment[-_CRC_DIGITS:] != _crc32(path):
            raise CheckpointError(f"{path} is damaged: its checksum is wrong; use another copy")
        metadata = json.loads(comment[len(_MARK) : -_CRC_DIGITS])
    try:
        value = cast("object", torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no torch file, or holds more than tensors and plain values; "
            f"nothing in it was executed"
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    return Content(value, metadata, bool(comment))


class _HeldBack:
    """Passes on all but the last 22 bytes, which are about to change."""

    def __init__(self, stream: Checked) -> None:
        self._stream = stream
        self.tail = b""

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B")
        if len(view) >= _END_SIZE:
            self._stream.write(self.tail)
            self._stream.write(view[:-_END_SIZE])
            self.tail = bytes(view[-_END_SIZE:])
        else:
            joined = self.tail + bytes(view)
            self._stream.write(joined[:-_END_SIZE])
            self.tail = joined[-_END_SIZE:]
        return len(view)

    def flush(self) -> None:
        self._stream.flush()


def _comment(path: Path) -> bytes:
    """Return the comment of a zip file; torch itself writes none."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - _END_SIZE - _MAX_COMMENT))
        end = stream.read()
    place = end.rfind(_END)
    comment = end[place + _END_SIZE :]
    if place < 0 or end[place + _END_SIZE - 2 : place + _END_SIZE] != struct.pack(
        "<H", len(comment)
    ):
        raise CheckpointError(
            f"{path} is cut short or damaged, or no torch file: it does not end as one does"
        )
    return comment


def _crc32(path: Path) -> bytes:
    """Return the checksum of all bytes but the last eight, as those eight hold it."""
    left = path.stat().st_size - _CRC_DIGITS
    crc = 0
    with path.open("rb") as stream:
        while left > 0 and (block := stream.read(min(_BLOCK, left))):
            crc = zlib.crc32(block, crc)
            left -= len(block)
    return f"{crc:08x}".encode()
