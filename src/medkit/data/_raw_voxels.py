"""Voxels behind a text header, in this file or another: raw, compressed or written as text."""

import math
import os
from collections.abc import Sequence
from io import FileIO
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from medkit._core.chunk_map import ChunkMap, one_chunk
from medkit._core.file_errors import FormatError, TruncatedError

from ._bzip2 import Bzip2Source
from ._file_state import file_state
from ._limits import Limits
from ._mapped import MappedFile
from ._payload import check_payload, cut, read_payload
from ._source import ByteSource, PlainSource, gzip_source, zlib_source
from ._stored import tensor_dtype, to_tensor

Encoding = Literal["raw", "gzip", "zlib", "bzip2", "text", "hex"]

_LARGEST_TEXT = 1 << 22
_SKIP = 1 << 20


class RawVoxels(NamedTuple):
    """Where the voxels are and what they look like there."""

    path: str
    offset: int
    """Bytes of the file before the voxels, or before the stream that holds them."""
    sizes: tuple[int, ...]
    """Extents of the axes, the fastest first."""
    dtype: np.dtype[np.generic]
    encoding: Encoding
    skip: int = 0
    """Bytes of the stream before the voxels; -1 for voxels at the end of a raw file."""
    line_skip: int = 0


def read_voxels(voxels: RawVoxels, limits: Limits, *, verify: bool) -> Tensor:
    """Return the array, the slowest axis first, its sizes checked before it is allocated."""
    shape = tuple(reversed(voxels.sizes))
    nbytes = math.prod(shape) * voxels.dtype.itemsize
    wide = math.prod(shape) * max(voxels.dtype.itemsize, tensor_dtype(voxels.dtype).itemsize)
    declared = f"sizes {voxels.sizes}, {voxels.dtype}"
    check_payload(wide, wide, voxels.path, limits, declared)
    with FileIO(voxels.path, "r") as file:
        file.seek(voxels.offset)
        for _ in range(voxels.line_skip):
            _skip_line(file)
        if voxels.encoding == "text":
            array = _from_text(file, voxels)
        elif voxels.encoding == "hex":
            array = _from_hex(file, voxels, nbytes)
        else:
            source = _source(file, voxels, verify=verify)
            if voxels.skip < 0:
                file.seek(max(0, source.capacity() - nbytes))
            check_payload(nbytes, _capacity(source, file, voxels), voxels.path, limits, declared)
            _skip(source, max(0, voxels.skip))
            array = read_payload(source, nbytes).view(voxels.dtype)
            if verify:
                source.finish()
    return to_tensor(array.reshape(shape), voxels.path)


def locate_voxels(voxels: RawVoxels) -> tuple[MappedFile, ChunkMap] | None:
    """Return where raw voxels are, the slowest axis first, or None if they are not raw."""
    if voxels.encoding != "raw":
        return None
    state = file_state(voxels.path)
    shape = tuple(reversed(voxels.sizes))
    nbytes = math.prod(shape) * voxels.dtype.itemsize
    with FileIO(voxels.path, "r") as file:
        source = PlainSource(file, voxels.path)
        file.seek(voxels.offset)
        for _ in range(voxels.line_skip):
            _skip_line(file)
        offset = file.tell() + voxels.skip if voxels.skip >= 0 else max(0, state[0] - nbytes)
        check_payload(nbytes, state[0] - offset, voxels.path, Limits(max_bytes=nbytes))
        file.seek(offset + nbytes)
        source.finish()
    return MappedFile(voxels.path, state), one_chunk(shape, voxels.dtype, offset)


def _source(file: FileIO, voxels: RawVoxels, *, verify: bool) -> ByteSource:
    if voxels.encoding == "gzip":
        return gzip_source(file, voxels.path, verify=verify)
    if voxels.encoding == "zlib":
        return zlib_source(file, voxels.path, verify=verify)
    if voxels.encoding == "bzip2":
        return Bzip2Source(file, voxels.path)
    return PlainSource(file, voxels.path)


def _capacity(source: ByteSource, file: FileIO, voxels: RawVoxels) -> int:
    before = file.tell() + voxels.skip if voxels.encoding == "raw" and voxels.skip >= 0 else 0
    return source.capacity() - before


def _skip(source: ByteSource, count: int) -> None:
    scratch = memoryview(bytearray(min(_SKIP, count)))
    while count:
        got = source.fill(scratch[: min(len(scratch), count)])
        if not got:
            raise TruncatedError("complete", path=source.path, field="voxels", value="the end")
        count -= got


def _skip_line(file: FileIO) -> None:
    while file.read(1) not in (b"\n", b""):
        pass


def _from_text(file: FileIO, voxels: RawVoxels) -> np.ndarray:
    """Return numbers that are written out, separated by white space."""
    text = file.read(_LARGEST_TEXT + 1)
    if len(text) > _LARGEST_TEXT:
        rule = f"at most {_LARGEST_TEXT} bytes of text"
        raise FormatError(rule, path=voxels.path, field="voxels", value="more")
    words, wanted = text.split(), math.prod(voxels.sizes)
    if len(words) != wanted:
        kind = TruncatedError if len(words) < wanted else FormatError
        raise kind(f"{wanted} numbers", path=voxels.path, field="voxels", value=len(words))
    native = voxels.dtype.newbyteorder("=")
    try:
        if native.kind == "f":
            return np.array(words, dtype=np.float64).astype(native)
        return _whole(words, native)
    except (ValueError, OverflowError) as error:
        raise FormatError(
            f"{native} numbers", path=voxels.path, field="voxels", value=error
        ) from error


def _from_hex(file: FileIO, voxels: RawVoxels, nbytes: int) -> np.ndarray:
    """Return bytes that are written as two digits each."""
    size = os.fstat(file.fileno()).st_size
    if 2 * nbytes > size:
        raise cut(voxels.path, nbytes, size // 2)
    try:
        raw = bytes.fromhex(file.readall().decode("ascii"))
    except ValueError as error:
        raise FormatError(
            "hexadecimal digits", path=voxels.path, field="voxels", value=error
        ) from error
    if len(raw) < nbytes:
        raise cut(voxels.path, nbytes, len(raw))
    if len(raw) > nbytes:
        raise FormatError(f"{nbytes} bytes", path=voxels.path, field="voxels", value=len(raw))
    return np.frombuffer(raw, voxels.dtype)


def _whole(words: Sequence[bytes], dtype: np.dtype[np.generic]) -> np.ndarray:
    info = np.iinfo(dtype.str)
    values = [int(word) for word in words]
    if min(values) < info.min or max(values) > info.max:
        raise OverflowError(f"a number beyond {dtype}")
    return np.array(values, dtype)
