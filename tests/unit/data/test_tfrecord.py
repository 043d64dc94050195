"""TFRecord files: TensorFlow's are read, ours are TensorFlow's, damaged ones are refused."""

import gzip
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from medkit.data import (
    ChecksumError,
    DataError,
    Feature,
    FormatError,
    LimitError,
    Limits,
    TFRecordDataset,
    TruncatedError,
    read_tfrecord,
    write_tfrecord,
)
from unit.data.nifti_bytes import flip_bit
from unit.data.tfrecord_bytes import SHARD, file_of, frame

RECORDS = [b"first", b"", bytes(range(256)) * 9]
PLAIN = file_of(RECORDS)
GZ = gzip.compress(PLAIN, mtime=0)
ZLIB = zlib.compress(PLAIN)
STORED = zlib.compress(PLAIN, 0)
SECOND = len(frame(RECORDS[0]))  # where the second record begins


@dataclass(frozen=True)
class Bad:
    """A file that must be refused, with words that the error must contain."""

    content: bytes
    error: type[DataError]
    words: str
    limits: Limits | None = None


def bad() -> Iterator[tuple[str, Bad]]:
    yield from _damaged()
    yield from _damaged_compressed()
    yield from _too_big()
    yield "text", Bad(b"sub,age\n1,50\n" * 9, ChecksumError, "It is no TFRecord file")
    yield "nifti", Bad(b"\x5c\1" + bytes(400), ChecksumError, "length of record 0")
    yield "short text", Bad(b"hello", TruncatedError, "12 bytes")


def _damaged() -> Iterator[tuple[str, Bad]]:
    yield "length", Bad(flip_bit(PLAIN, 0), ChecksumError, "length of record 0")
    yield "high byte of length", Bad(flip_bit(PLAIN, 7), ChecksumError, "length of record 0")
    yield "CRC of length", Bad(flip_bit(PLAIN, 9), ChecksumError, "length of record 0")
    yield "content", Bad(flip_bit(PLAIN, 14), ChecksumError, "content of record 0")
    yield "CRC of content", Bad(flip_bit(PLAIN, SECOND - 1), ChecksumError, "content of record 0")
    yield "second length", Bad(flip_bit(PLAIN, SECOND), ChecksumError, "length of record 1")
    yield "last content", Bad(flip_bit(PLAIN, -9), ChecksumError, "content of record 2")
    yield "one byte less", Bad(PLAIN[:-1], TruncatedError, "record 2")
    yield "cut in the content", Bad(PLAIN[:-900], TruncatedError, "record 2")
    yield "cut in a length", Bad(PLAIN[: SECOND + 5], TruncatedError, "record 1")
    yield "cut after a length", Bad(PLAIN[: SECOND + 12], TruncatedError, "record 1")
    yield "one byte more", Bad(PLAIN + b"\0", TruncatedError, "record 3")
    yield "zeros after it", Bad(PLAIN + bytes(99), ChecksumError, "length of record 3")


def _damaged_compressed() -> Iterator[tuple[str, Bad]]:
    stored = gzip.compress(PLAIN, 0, mtime=0)
    yield "gzip CRC", Bad(flip_bit(GZ, -6), ChecksumError, "gzip CRC-32")
    yield "gzip length", Bad(flip_bit(GZ, -2), ChecksumError, "gzip length")
    yield "gzip content", Bad(flip_bit(stored, -20), ChecksumError, "gzip CRC-32")
    yield "gzip cut", Bad(GZ[:-9], TruncatedError, "gzip stream")
    yield "gzip of a cut file", Bad(gzip.compress(PLAIN[:-1]), TruncatedError, "record 2")
    yield "gzip in gzip", Bad(gzip.compress(GZ), ChecksumError, "length of record 0")
    yield "rubbish after gzip", Bad(GZ + b"rubbish", FormatError, "gzip header")
    yield "zlib Adler-32", Bad(flip_bit(ZLIB, -2), ChecksumError, "zlib Adler-32")
    yield "zlib content", Bad(flip_bit(STORED, -20), ChecksumError, "zlib Adler-32")
    yield "zlib cut", Bad(ZLIB[:-5], TruncatedError, "zlib stream")
    yield "zlib header only", Bad(ZLIB[:2], TruncatedError, "zlib stream")
    yield "zlib of a cut file", Bad(zlib.compress(PLAIN[:-1]), TruncatedError, "record 2")
    yield "rubbish after zlib", Bad(ZLIB + b"rubbish", FormatError, "zlib stream")
    yield "zlib block of no type", Bad(ZLIB[:2] + b"\xff" + ZLIB[3:], FormatError, "deflate")


def _too_big() -> Iterator[tuple[str, Bad]]:
    for name, length in (("3 GiB", 3 * 2**30), ("2^63", 2**63), ("2^64 - 1", 2**64 - 1)):
        yield f"{name} declared", Bad(frame(b"x", length), TruncatedError, "all there can be")
        packed = gzip.compress(frame(b"x", length))
        yield f"{name} declared in gzip", Bad(packed, TruncatedError, "all there can be")
    bomb = gzip.compress(frame(bytes(2**20)))
    yield "bomb", Bad(bomb, LimitError, "max_bytes", Limits(max_bytes=2**19))
    yield (
        "zlib bomb",
        Bad(zlib.compress(frame(bytes(2**20))), LimitError, "max_bytes", Limits(max_bytes=2**19)),
    )
    yield "large record", Bad(PLAIN, LimitError, "record 2", Limits(max_bytes=2303))


BAD = dict(bad())
PLAIN_BAD = [name for name in BAD if not {"gzip", "zlib", "bomb"} & set(name.split())]
GOOD = {
    "plain": (PLAIN, RECORDS),
    "gzip": (GZ, RECORDS),
    "gzip members": (gzip.compress(PLAIN[:9]) + gzip.compress(PLAIN[9:]), RECORDS),
    "zlib": (ZLIB, RECORDS),
    "zlib stored": (STORED, RECORDS),
    "zlib best": (zlib.compress(PLAIN, 9), RECORDS),
    "nothing": (b"", []),
    "nothing in gzip": (gzip.compress(b""), []),
    "nothing in zlib": (zlib.compress(b""), []),
    "one empty record": (frame(b""), [b""]),
    "length like gzip": (frame(bytes(0x8B1F)), [bytes(0x8B1F)]),
    "length like zlib": (frame(bytes(0x9C78)), [bytes(0x9C78)]),
}


@pytest.fixture(params=["fast", "plain"], autouse=True)
def _engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test with isal and google-crc32c, and with neither."""
    if request.param == "fast":
        pytest.importorskip("isal")
        pytest.importorskip("google_crc32c")
    else:
        monkeypatch.setattr("medkit._core.optional.is_available", lambda _: False)
        monkeypatch.setattr("medkit.data._crc32c._engine", lambda: None)


def _records(path: Path, **options: object) -> list[bytes]:
    return [bytes(record) for record in read_tfrecord(path, **options)]


def _saved(content: bytes, folder: Path) -> Path:
    path = folder / "a.tfrecord"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", GOOD)
def test_records_are_read(name: str, tmp_path: Path) -> None:
    content, records = GOOD[name]

    assert _records(_saved(content, tmp_path)) == records


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    case, path = BAD[name], _saved(BAD[name].content, tmp_path)
    start = time.perf_counter()

    with pytest.raises(DataError) as caught:
        _records(path, limits=case.limits)

    assert type(caught.value) is case.error
    assert str(caught.value).startswith(f"{path}: ")
    assert case.words in str(caught.value)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("name", PLAIN_BAD)
def test_bad_file_is_refused_by_the_dataset(name: str, tmp_path: Path) -> None:
    case, path = BAD[name], _saved(BAD[name].content, tmp_path)
    schema = {"x": Feature(name="x", dtype="uint8")}

    def read_all() -> None:
        index = TFRecordDataset([path], schema, limits=case.limits)._indices[0]
        for number in range(len(index)):
            index.read(number, verify=True)

    with pytest.raises(case.error) as caught:
        read_all()

    assert str(caught.value).startswith(f"{path}: ")


def test_records_before_the_damage_are_given(tmp_path: Path) -> None:
    records = read_tfrecord(_saved(flip_bit(PLAIN, -9), tmp_path))

    assert [bytes(next(records)), bytes(next(records))] == RECORDS[:2]
    with pytest.raises(ChecksumError):
        next(records)


def test_checksums_are_left_alone_on_request(tmp_path: Path) -> None:
    content = flip_bit(flip_bit(PLAIN, -1), 9)

    assert _records(_saved(content, tmp_path), verify=False) == RECORDS
    assert _records(_saved(flip_bit(GZ, -6), tmp_path), verify=False) == RECORDS
    assert _records(_saved(flip_bit(ZLIB, -2), tmp_path), verify=False) == RECORDS


def test_shard_of_tensorflow_is_written_again_bit_for_bit(tmp_path: Path) -> None:
    write_tfrecord(read_tfrecord(SHARD), tmp_path / "a.tfrecord")

    assert (tmp_path / "a.tfrecord").read_bytes() == SHARD.read_bytes()


@pytest.mark.parametrize("compression", ["none", "gzip", "zlib"])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_what_is_written_is_what_the_format_says(
    compression: str, level: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.tfrecord"
    write_tfrecord(iter(RECORDS), path, compression=compression, compression_level=level)
    content = path.read_bytes()
    inflate = {"none": bytes, "gzip": gzip.decompress, "zlib": zlib.decompress}[compression]

    assert inflate(content) == PLAIN
    assert _records(path) == RECORDS


def test_a_buffer_may_be_used_again_while_writing(tmp_path: Path) -> None:
    def records() -> Iterator[bytearray]:
        buffer = bytearray(2**21)
        for value in range(3):
            buffer[:] = bytes([value]) * len(buffer)
            yield buffer

    write_tfrecord(records(), tmp_path / "a.tfrecord", compression="gzip")

    assert _records(tmp_path / "a.tfrecord") == [bytes([value]) * 2**21 for value in range(3)]


def test_arrays_of_wide_items_are_bytes(tmp_path: Path) -> None:
    array = np.arange(6, dtype="<i4").reshape(2, 3)
    write_tfrecord([memoryview(array)], tmp_path / "a.tfrecord")

    assert _records(tmp_path / "a.tfrecord") == [array.tobytes()]


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = _saved(PLAIN, tmp_path)

    def records() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_tfrecord(records(), path)
    assert path.read_bytes() == PLAIN
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compression": "bz2"}, "compression must be one of 'none', 'gzip', 'zlib'"),
        ({"compression_level": 10}, "compression_level must be from 0 to 9"),
    ],
)
def test_unknown_options_are_refused(options, words: str, tmp_path: Path, unhooked) -> None:
    with pytest.raises(ValueError, match=words):
        write_tfrecord([], tmp_path / "a.tfrecord", **options)
