"""An array of Zarr 2 or 3 in a folder: what its metadata say, and boxes out of its chunks.

Zarr specification, versions 2 and 3: https://zarr-specs.readthedocs.io.
"""

import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from medkit._core.file_errors import FormatError, LimitError, UnsafeReferenceError

from ._limits import Limits
from ._payload import check_payload
from ._zarr_codecs import Codec, check_codecs, unpack

_V2, _V3 = ".zarray", "zarr.json"
_TYPE_2 = re.compile(r"[<>|](b1|[iu][1248]|f[248]|c8|c16)")
_TYPE_3 = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")
_MOST_AXES = 8
_LARGEST = 2**40
_NOWHERE = 2**64 - 1
Json = Mapping[str, object]


def read_json(folder: str, name: str, limits: Limits) -> Json | None:
    """Return the object in a file of metadata, None where there is no such file."""
    path = os.path.join(folder, name)  # noqa: PTH118
    try:
        content = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(content) > limits.max_header_bytes:
        raise LimitError("within limits.max_header_bytes", path=path, field="file", value="more")
    try:
        parsed: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError("JSON", path=path, field="file", value=str(error)[:80]) from error
    if not isinstance(parsed, dict):
        raise FormatError("an object of JSON", path=path, field="file", value=str(parsed)[:80])
    return cast("dict[str, object]", parsed)


@dataclass(frozen=True)
class Shard:
    """Chunks inside of the files, and the index that says where."""

    chunks: tuple[int, ...]
    codecs: tuple[Codec, ...]
    index_codecs: tuple[Codec, ...]
    at_end: bool


@dataclass(frozen=True)
class ZarrArray:
    """What the metadata of an array say, each number checked."""

    path: str
    root: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fill: np.generic
    order: Literal["C", "F"]
    prefix: str
    separator: str
    codecs: tuple[Codec, ...]
    shard: Shard | None
    attributes: Json

    def read(
        self, start: Sequence[int], size: Sequence[int], limits: Limits
    ) -> tuple[np.ndarray, int]:
        """Return a box, and how many chunks of it are absent and hold the fill value."""
        nbytes = math.prod(size) * self.dtype.itemsize
        check_payload(nbytes, nbytes, self.path, limits, f"shape {tuple(size)}")
        box = np.empty(tuple(size), self.dtype.newbyteorder("="))
        absent = 0
        for index, there, here in _overlaps(start, size, self.chunks):
            file = self._file(index)
            raw = self._content(file)
            if raw is None:
                box[there], absent = self.fill, absent + 1
            elif self.shard is None:
                box[there] = self._decode(raw, self.codecs, self.chunks, file, limits)[here]
            else:
                absent += self._from_shard(self.shard, raw, box[there], here, file, limits)
        return box, absent

    def _from_shard(
        self,
        shard: Shard,
        raw: bytes,
        box: np.ndarray,
        region: tuple[slice, ...],
        file: str,
        limits: Limits,
    ) -> int:
        """Fill a part of a shard into ``box`` and return how many chunks are absent."""
        grid = tuple(n // m for n, m in zip(self.chunks, shard.chunks, strict=True))
        places = self._index(raw, shard, grid, file)
        start = [part.start for part in region]
        size = [part.stop - part.start for part in region]
        absent = 0
        for index, there, here in _overlaps(start, size, shard.chunks):
            at, count = (int(n) for n in places[index])
            if (at, count) == (_NOWHERE, _NOWHERE):
                box[there], absent = self.fill, absent + 1
                continue
            if at + count > len(raw):
                raise FormatError(f"at most {len(raw)}", path=file, field="chunk", value=at + count)
            inner = raw[at : at + count]
            box[there] = self._decode(inner, shard.codecs, shard.chunks, file, limits)[here]
        return absent

    def _index(self, raw: bytes, shard: Shard, grid: tuple[int, ...], file: str) -> np.ndarray:
        count = math.prod(grid) * 16
        stored = count + 4 * sum(name == "crc32c" for name, _ in shard.index_codecs)
        if stored > len(raw):
            raise FormatError(f"at least {stored} bytes", path=file, field="shard", value=len(raw))
        part = raw[-stored:] if shard.at_end else raw[:stored]
        index = unpack(part, shard.index_codecs, count, file)
        return np.frombuffer(index, "<u8").reshape(*grid, 2)

    def _decode(
        self,
        raw: bytes,
        codecs: tuple[Codec, ...],
        chunks: tuple[int, ...],
        file: str,
        limits: Limits,
    ) -> np.ndarray:
        count = math.prod(chunks) * self.dtype.itemsize
        check_payload(count, count, file, limits, f"chunk {chunks}")
        plain = unpack(raw, codecs, count, file)
        return np.frombuffer(plain, self.dtype).reshape(chunks, order=self.order)

    def _file(self, index: tuple[int, ...]) -> str:
        words = [self.prefix] * bool(self.prefix) + [str(n) for n in index]
        return os.path.join(self.path, *self.separator.join(words).split("/"))  # noqa: PTH118

    def _content(self, file: str) -> bytes | None:
        """Return a file of chunks, None where it is absent; it must not lead elsewhere."""
        try:
            content = Path(file).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except IsADirectoryError:
            raise FormatError("a file", path=file, field="chunk", value="a folder") from None
        if not Path(file).resolve().is_relative_to(self.root):
            raise UnsafeReferenceError(
                "inside the folder of the array", path=file, field="chunk", value="a link out"
            )
        return content


def zarr_array(folder: str, root: str, limits: Limits) -> ZarrArray | None:
    """Return the array in a folder, None where there is none."""
    header = read_json(folder, _V2, limits)
    if header is not None:
        return _version_2(folder, root, header, read_json(folder, ".zattrs", limits) or {})
    header = read_json(folder, _V3, limits)
    if header is None or header.get("node_type") != "array":
        return None
    return _version_3(folder, root, header)


def _version_2(folder: str, root: str, header: Json, attributes: Json) -> ZarrArray:
    path = os.path.join(folder, _V2)  # noqa: PTH118
    if header.get("filters"):
        raise _wrong(path, "filters", "none", str(header["filters"])[:80])
    compressor = header.get("compressor")
    codecs = () if compressor is None else (_codec(path, compressor, "id"),)
    check_codecs(codecs, path)
    kind = header.get("dtype")
    if not isinstance(kind, str) or not _TYPE_2.fullmatch(kind):
        raise _wrong(path, "dtype", "a type of numbers", str(kind)[:80])
    shape, chunks = _sizes(path, header, "shape"), _sizes(path, header, "chunks")
    order = header.get("order", "C")
    if order not in ("C", "F") or len(shape) != len(chunks):
        raise _wrong(path, "order and chunks", "C or F, and one size for each axis", order)
    dtype = np.dtype(kind)
    return ZarrArray(
        path=folder, root=root, shape=shape, chunks=chunks, dtype=dtype,
        fill=_fill(path, header.get("fill_value"), dtype), order="F" if order == "F" else "C",
        prefix="", separator=_separator(path, header.get("dimension_separator", ".")),
        codecs=codecs, shard=None, attributes=attributes,
    )  # fmt: skip


def _version_3(folder: str, root: str, header: Json) -> ZarrArray:
    path = os.path.join(folder, _V3)  # noqa: PTH118
    kind = header.get("data_type")
    if not isinstance(kind, str) or not _TYPE_3.fullmatch(kind):
        raise _wrong(path, "data_type", "a type of numbers", str(kind)[:80])
    if header.get("storage_transformers"):
        raise _wrong(path, "storage_transformers", "none", "some")
    grid, keys = (_object(path, header, name) for name in ("chunk_grid", "chunk_key_encoding"))
    if grid.get("name") != "regular" or keys.get("name") not in ("default", "v2"):
        raise _wrong(path, "chunk_grid", "regular, with default keys", str(grid.get("name"))[:80])
    shape = _sizes(path, header, "shape")
    chunks = _sizes(path, _object(path, grid, "configuration"), "chunk_shape")
    default = keys["name"] == "default"
    separator = _object(path, keys, "configuration", {}).get("separator", "/" if default else ".")
    dtype, codecs, shard = _pipeline(path, header, np.dtype(kind), chunks)
    if len(chunks) != len(shape):
        raise _wrong(path, "chunk_shape", "one size for each axis", chunks)
    return ZarrArray(
        path=folder, root=root, shape=shape, chunks=chunks, dtype=dtype,
        fill=_fill(path, header.get("fill_value"), dtype), order="C",
        prefix="c" if default else "", separator=_separator(path, separator),
        codecs=codecs, shard=shard, attributes=_object(path, header, "attributes", {}),
    )  # fmt: skip


def _pipeline(
    path: str, header: Json, dtype: np.dtype[np.generic], chunks: tuple[int, ...]
) -> tuple[np.dtype[np.generic], tuple[Codec, ...], Shard | None]:
    """Return the type as stored, the codecs behind it, and the shard if chunks are in one."""
    codecs = [_codec(path, each, "name") for each in _list(path, header, "codecs")]
    if not codecs:
        raise _wrong(path, "codecs", "a list", "an empty one")
    first, options = codecs[0]
    if first == "sharding_indexed":
        inner = _sizes(path, options, "chunk_shape")
        fits = len(inner) == len(chunks)
        if len(codecs) > 1 or not fits or any(map(int.__mod__, chunks, inner)):
            raise _wrong(path, "sharding_indexed", "alone, in chunks that divide it", inner)
        stored, behind, deeper = _pipeline(path, options, dtype, inner)
        index = [_codec(path, each, "name") for each in _list(path, options, "index_codecs")]
        names = [name for name, _ in index]
        if deeper is not None or names not in (["bytes"], ["bytes", "crc32c"]):
            raise _wrong(path, "index_codecs", "bytes, perhaps with crc32c", names)
        at_end = options.get("index_location", "end") == "end"
        return stored, (), Shard(inner, behind, tuple(index[1:]), at_end)
    if first != "bytes":
        raise _wrong(path, "first codec", "bytes or sharding_indexed", first[:80])
    check_codecs(tuple(codecs[1:]), path)
    endian = options.get("endian", "little")
    return dtype.newbyteorder(">" if endian == "big" else "<"), tuple(codecs[1:]), None


def _overlaps(
    start: Sequence[int], size: Sequence[int], chunks: tuple[int, ...]
) -> "list[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]":
    """Return each chunk that meets a box: its index, and the part in the box and in itself."""
    axes: list[list[tuple[int, slice, slice]]] = []
    for a, n, c in zip(start, size, chunks, strict=True):
        parts: list[tuple[int, slice, slice]] = []
        for index in range(a // c, -(-(a + n) // c)):
            low, high = max(a, index * c), min(a + n, (index + 1) * c)
            here = slice(low - index * c, high - index * c)
            parts.append((index, slice(low - a, high - a), here))
        axes.append(parts)
    return [
        (tuple(p[0] for p in each), tuple(p[1] for p in each), tuple(p[2] for p in each))
        for each in itertools.product(*axes)
    ]


def _codec(path: str, entry: object, key: str) -> Codec:
    found = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
    name = found.get(key)
    if not isinstance(name, str):
        raise _wrong(path, "codec", "an object with a name", "something else")
    return name, _object(path, found, "configuration", {})


def _object(path: str, header: Json, key: str, default: Json | None = None) -> Json:
    value = header.get(key, default)
    if not isinstance(value, dict):
        raise _wrong(path, key, "an object", str(value)[:80])
    return cast("dict[str, object]", value)


def _list(path: str, header: Json, key: str) -> list[object]:
    value = header.get(key)
    if not isinstance(value, list):
        raise _wrong(path, key, "a list", str(value)[:80])
    return cast("list[object]", value)


def _sizes(path: str, header: Json, key: str) -> tuple[int, ...]:
    values = _list(path, header, key)
    sizes = tuple(n for n in values if type(n) is int and 0 < n < _LARGEST)
    if len(sizes) != len(values) or not 1 <= len(sizes) <= _MOST_AXES:
        raise _wrong(path, key, f"1 to {_MOST_AXES} positive numbers", str(values)[:80])
    return sizes


def _separator(path: str, value: object) -> str:
    if value not in (".", "/"):
        raise _wrong(path, "separator", "'.' or '/'", str(value)[:80])
    return str(value)


def _fill(path: str, value: object, dtype: np.dtype[np.generic]) -> np.generic:
    names = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    known = names.get(value, value) if isinstance(value, str) else value
    known = 0 if known is None else known
    if dtype.kind == "c" and isinstance(known, list):
        parts = [_fill(path, part, np.dtype("f8")) for part in cast("list[object]", known)[:2]]
        return np.array(parts, np.float64).view(np.complex128).astype(dtype.newbyteorder("="))[0]
    native = dtype.newbyteorder("=")
    try:
        filled = np.array(known, native if isinstance(known, int | float) else "V")
    except (TypeError, ValueError, OverflowError) as error:
        raise _wrong(path, "fill_value", f"a {dtype}", str(value)[:80]) from error
    if filled.dtype != native or filled.ndim:
        raise _wrong(path, "fill_value", f"a {dtype}", str(value)[:80])
    return cast("np.generic", filled[()])


def _wrong(path: str, field: str, rule: str, found: object) -> FormatError:
    return FormatError(rule, path=path, field=field, value=found)
