"""TFRecord files: records between their lengths and checksums, without TensorFlow.

A record is an unsigned length of 8 bytes, its masked CRC-32C, the content, and the masked CRC-32C
of the content; nothing else is in the file, neither a header nor a count.
TensorFlow, ``tensorflow/core/lib/io/record_writer.h``.
"""

import os
import zlib
from collections.abc import Generator, Iterable, Iterator
from io import FileIO
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from medkit._core import check
from medkit._core.atomic import atomic_file
from medkit._core.file_errors import ChecksumError, LimitError, TruncatedError

from ._crc32c import crc32c
from ._gzip import write_gzip
from ._limits import Limits
from ._source import ByteSource, PlainSource, gzip_source, zlib_source
from ._wrappers import GZIP_MAGIC, is_zlib

HEAD, FOOT = 12, 4
FRAME = HEAD + FOOT
"""Bytes around the content of a record."""

Bytes = npt.NDArray[np.uint8]

_MASK = 0xA282EAD8
_REMEDY = "The file was damaged after it was written; copy or download it again."


def read_tfrecord(
    path: str | os.PathLike[str], *, limits: Limits | None = None, verify: bool = True
) -> Generator[memoryview]:
    """Read the records of a TFRecord file one after the other, plain, GZIP or ZLIB.

    Both checksums of every record are verified, and those of the compression. The format stores
    no count: a file that was cut just between two records is a valid, shorter one.

    For random access and for training use :class:`TFRecordDataset`.

    Args:
        path: The file; its first bytes tell whether and how it is compressed.
        limits: Largest record to accept; None means ``Limits()``.
        verify: Check the checksums. False saves little time, and **a damaged file can then give
            wrong bytes.**

    Returns:
        An iterator over the records, each in memory of its own; the file is open until it ends.

    Raises:
        DataError: If a record is damaged, cut, or larger than the limits; earlier ones have then
            been given.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tfrecord([b"one", b"two"], f"{folder}/a.tfrecord")
        ...     [bytes(record) for record in read_tfrecord(f"{folder}/a.tfrecord")]
        [b'one', b'two']
    """
    limits = limits or Limits()
    name = os.fspath(path)
    with FileIO(name, "r") as file:
        source = record_source(file, name, verify=verify)
        number = 0
        while True:
            record = _next_record(source, f"record {number}", limits, verify=verify)
            if record is None:
                return
            yield record
            number += 1


def write_tfrecord(
    records: Iterable[bytes | bytearray | memoryview],
    path: str | os.PathLike[str],
    *,
    compression: Literal["none", "gzip", "zlib"] = "none",
    compression_level: int = 1,
) -> None:
    """Write a TFRecord file that TensorFlow reads, whole or not at all.

    Plain files are read fastest and are the only ones with random access: prefer them for
    training, and several files of 100 MB to 1 GB each to one large file.

    Args:
        records: Content of the records, in order, e.g. from :func:`build_example`; taken one at a
            time.
        path: Where to; an existing file is replaced at the end.
        compression: ``"none"``, or the whole file as TensorFlow's ``"GZIP"`` or ``"ZLIB"``.
        compression_level: From 0 (stored) to 9 (smallest).

    Raises:
        ValueError: If an option is not one of those above.
        OSError: If the file cannot be written; an older file of that name is then untouched.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tfrecord([b"abc"], f"{folder}/a.tfrecord")
        ...     Path(f"{folder}/a.tfrecord").stat().st_size  # 16 bytes around each record
        19
    """
    check.one_of("compression", compression, ("none", "gzip", "zlib"))
    if not 0 <= check.integer("compression_level", compression_level) <= 9:
        raise check.fail("compression_level", "from 0 to 9", compression_level)
    content = _framed(records)
    with atomic_file(path) as file:
        if compression == "gzip":
            write_gzip(file, content, level=compression_level)
        elif compression == "zlib":
            _write_zlib(file, content, compression_level)
        else:
            for part in content:
                file.write(part)


def record_source(file: FileIO, path: str, *, verify: bool) -> ByteSource:
    """Return the inflated bytes of a TFRecord file, however it is compressed.

    A valid checksum of the first length is the surest sign of a plain file, so it is tried first.
    """
    head = file.read(HEAD)
    file.seek(0)
    plain = len(head) == HEAD and masked(_array(head[:8])) == int.from_bytes(head[8:], "little")
    if not plain and head[:2] == GZIP_MAGIC:
        return gzip_source(file, path, verify=verify)
    if not plain and is_zlib(head):
        return zlib_source(file, path, verify=verify)
    return PlainSource(file, path)


def masked(data: Bytes) -> int:
    """Return the CRC-32C of ``data``, turned and shifted as TFRecord stores it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def check_record(frame: Bytes, path: str, where: str, *, verify: bool) -> memoryview:
    """Return the content of a whole record, its length and its checksums checked."""
    declared_length(frame[:HEAD], path, where, verify=verify)
    content = frame[HEAD:-FOOT]
    if verify:
        _check_crc("content", content, frame[-FOOT:], path, where)
    return content.data


def declared_length(head: Bytes, path: str, where: str, *, verify: bool) -> int:
    """Return how long the content of a record is, from its first 12 bytes."""
    if len(head) < HEAD:
        raise _cut(path, where, f"{HEAD} bytes of length and checksum", len(head))
    if verify:
        _check_crc("length", head[:8], head[8:], path, where)
    return int.from_bytes(head[:8].tobytes(), "little")


def check_size(length: int, capacity: int, path: str, where: str, limits: Limits) -> None:
    """Raise if a record is longer than what can be there, or than the limits."""
    if length + FOOT > capacity:
        rule = f"at most {max(0, capacity - FOOT)} bytes, all there can be"
        raise _cut(path, where, rule, length)
    if length > limits.max_bytes:
        raise LimitError(
            f"at most {limits.max_bytes} bytes",
            path=path,
            field=f"length of {where}",
            value=length,
            remedy="Pass limits=Limits(max_bytes=...) if you trust the file.",
        )


def _next_record(
    source: ByteSource, where: str, limits: Limits, *, verify: bool
) -> memoryview | None:
    head = np.empty(HEAD, np.uint8)
    got = source.fill(head.data)
    if not got:
        return None
    length = declared_length(head[:got], source.path, where, verify=verify)
    check_size(length, source.capacity(), source.path, where, limits)
    try:
        rest = np.empty(length + FOOT, np.uint8)
    except MemoryError as error:
        raise LimitError(
            "available memory",
            path=source.path,
            field=f"length of {where}",
            value=f"{length} bytes",
            remedy="Read it on a machine with more memory.",
        ) from error
    got = source.fill(rest.data)
    if got < len(rest):
        raise _cut(source.path, where, f"{length} bytes and a checksum", got)
    if verify:
        _check_crc("content", rest[:-FOOT], rest[-FOOT:], source.path, where)
    return rest[:-FOOT].data


def _framed(records: Iterable[bytes | bytearray | memoryview]) -> Iterator[memoryview]:
    for record in records:
        content = memoryview(bytes(record))  # which the caller cannot change while it is written
        length = len(content).to_bytes(8, "little")
        yield memoryview(length + masked(_array(length)).to_bytes(4, "little"))
        yield content
        yield memoryview(masked(_array(content)).to_bytes(4, "little"))


def _write_zlib(file: BinaryIO, content: Iterator[memoryview], level: int) -> None:
    deflate = zlib.compressobj(level)
    for part in content:
        file.write(deflate.compress(part))
    file.write(deflate.flush())


def _check_crc(what: str, data: Bytes, stored: Bytes, path: str, where: str) -> None:
    there, computed = int.from_bytes(stored.tobytes(), "little"), masked(data)
    if there != computed:
        raise ChecksumError(
            f"{computed:#010x}, computed from the bytes",
            path=path,
            field=f"CRC-32C of the {what} of {where}",
            value=f"{there:#010x}",
            remedy=_REMEDY if what == "content" else f"It is no TFRecord file, or: {_REMEDY}",
        )


def _cut(path: str, where: str, rule: str, found: int) -> TruncatedError:
    return TruncatedError(
        rule,
        path=path,
        field=where,
        value=found,
        remedy="The file is cut short; copy or download it again.",
    )


def _array(data: bytes | memoryview) -> Bytes:
    return np.frombuffer(data, np.uint8)
