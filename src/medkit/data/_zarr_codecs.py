"""Chunks of Zarr arrays unpacked to just the bytes that they must have."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping

import numpy as np

from medkit._core import optional
from medkit._core.file_errors import (
    ChecksumError,
    CodecMissingError,
    DataError,
    FormatError,
    TruncatedError,
)

from ._crc32c import crc32c

Codec = tuple[str, Mapping[str, object]]

_RATIO = 1 << 15
"""The most bytes that one byte can stand for: a block of zeros in Zstandard."""
_SLACK = 1 << 20
_GZIP = 31  # window bits of zlib for a stream with the header of gzip
_BLOSC_HEADER = 16
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_CRC_BYTES = 4
_KNOWN = ("blosc", "zstd", "lz4", "zlib", "gzip", "bz2", "lzma", "crc32c")


def check_codecs(codecs: tuple[Codec, ...], path: str) -> None:
    """Raise unless every codec only unpacks numbers; others could run code."""
    for name, _ in codecs:
        if name not in _KNOWN:
            raise CodecMissingError(
                f"one of {', '.join(_KNOWN)}",
                path=path,
                field="codec",
                value=name[:80],
                remedy="Write the array again with one of them.",
            )
    if sum(name != "crc32c" for name, _ in codecs) > 1:
        names = [name for name, _ in codecs]
        raise CodecMissingError("one compressor at most", path=path, field="codecs", value=names)


def unpack(raw: bytes, codecs: tuple[Codec, ...], count: int, path: str) -> bytes:
    """Return the ``count`` bytes of a chunk, or say what is wrong with it."""
    if count > _SLACK + _RATIO * len(raw):
        raise TruncatedError(
            f"at most {_SLACK + _RATIO * len(raw)} bytes, all that it can hold",
            path=path,
            field="chunk",
            value=count,
        )
    sizes = [count]
    for name, _ in codecs:
        sizes.append(sizes[-1] + _CRC_BYTES * (name == "crc32c"))
    try:
        for (name, _), size in reversed(list(zip(codecs, sizes, strict=False))):
            raw = _UNPACKERS[name](raw, size)
    except (DataError, ImportError):
        raise
    except Exception as error:  # the decoders raise RuntimeError, ValueError, zlib.error, OSError
        kind = ChecksumError if "check" in str(error).lower() else FormatError
        raise kind(
            "whole",
            path=path,
            field="chunk",
            value=f"damage ({error})",
            remedy="The file was damaged after it was written; copy or download it again.",
        ) from error
    if len(raw) != count:
        kind = TruncatedError if len(raw) < count else FormatError
        raise kind(f"{count} bytes", path=path, field="chunk", value=len(raw))
    return raw


def _deflated(raw: bytes, count: int, *, window: int) -> bytes:
    stream = zlib.decompressobj(window)
    plain = stream.decompress(raw, count + 1)
    if len(plain) <= count and not stream.eof:
        plain += stream.decompress(stream.unconsumed_tail, 1)
    if not stream.eof or stream.unused_data:
        raise ValueError("the stream does not end where the chunk ends")
    return plain


def _blosc(raw: bytes, count: int) -> bytes:
    codec = optional.require("numcodecs.blosc", extra="zarr")
    declared = int.from_bytes(raw[4:8], "little"), int.from_bytes(raw[12:16], "little")
    if len(raw) < _BLOSC_HEADER or declared != (count, len(raw)):
        raise ValueError(f"a header of {declared} for {count} bytes in {len(raw)}")
    return bytes(codec.decompress(raw))


def _zstd(raw: bytes, count: int) -> bytes:
    codec = optional.require("numcodecs.zstd", extra="zarr")
    declared = _zstd_size(raw)
    if declared != count:
        raise ValueError(f"a frame of {declared} for {count} bytes")
    return bytes(codec.decompress(raw))


def _zstd_size(raw: bytes) -> int:
    """Return the size that a frame of Zstandard states (RFC 8878, 3.1.1.1)."""
    if raw[:4] != _ZSTD_MAGIC or len(raw) < 6:
        raise ValueError("no frame of Zstandard")
    flag, single, dictionary = raw[4] >> 6, raw[4] >> 5 & 1, raw[4] & 3
    width = (single, 2, 4, 8)[flag]
    at = 5 + (not single) + (0, 1, 2, 4)[dictionary]
    if not width or len(raw) < at + width:
        raise ValueError("a frame that does not state its size, which is not read")
    return int.from_bytes(raw[at : at + width], "little") + 256 * (width == 2)


def _lz4(raw: bytes, count: int) -> bytes:
    codec = optional.require("numcodecs.lz4", extra="zarr")
    if int.from_bytes(raw[:4], "little") != count:
        raise ValueError(f"a header of another size than {count}")
    return bytes(codec.decompress(raw))


def _bz2(raw: bytes, count: int) -> bytes:
    return _bounded(bz2.BZ2Decompressor(), raw, count)


def _lzma(raw: bytes, count: int) -> bytes:
    return _bounded(lzma.LZMADecompressor(), raw, count)


def _bounded(stream: bz2.BZ2Decompressor | lzma.LZMADecompressor, raw: bytes, count: int) -> bytes:
    plain = stream.decompress(raw, count + 1)
    if len(plain) <= count and not stream.eof:
        plain += stream.decompress(b"", 1)
    if not stream.eof or stream.unused_data:
        raise ValueError("the stream does not end where the chunk ends")
    return plain


def _crc32c(raw: bytes, count: int) -> bytes:
    del count
    content = np.frombuffer(raw[:-_CRC_BYTES], np.uint8)
    if crc32c(content) != int.from_bytes(raw[-_CRC_BYTES:], "little"):
        raise ValueError("the checksum CRC-32C is wrong")
    return raw[:-4]


_UNPACKERS: dict[str, Callable[[bytes, int], bytes]] = {
    "blosc": _blosc,
    "zstd": _zstd,
    "lz4": _lz4,
    "zlib": lambda raw, count: _deflated(raw, count, window=zlib.MAX_WBITS),
    "gzip": lambda raw, count: _deflated(raw, count, window=_GZIP),
    "bz2": _bz2,
    "lzma": _lzma,
    "crc32c": _crc32c,
}
