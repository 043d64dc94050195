"""Laws of the TFRecord reader: what is written comes back, what is damaged is noticed."""

import gzip
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.data import (
    DataError,
    Feature,
    TFRecordDataset,
    build_example,
    parse_example,
    read_tfrecord,
    write_tfrecord,
)
from unit.data.tfrecord_bytes import SHARD, file_of

RECORDS = [b"first", b"", bytes(range(256)), b"last"]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "zlib": zlib.compress,
}
SCHEMA = {
    "image": Feature(name="image", dtype="uint8", shape="image_shape", layout="spatial"),
    "label": Feature(name="label", dtype="uint8", shape="label_shape", layout="spatial"),
}


@given(st.lists(st.binary(max_size=99), max_size=9), st.sampled_from(sorted(PACK)))
def test_records_come_back(records: list[bytes], compression: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        write_tfrecord(records, path, compression=compression)

        assert [bytes(record) for record in read_tfrecord(path)] == records


@settings(max_examples=600)
@given(st.sampled_from(sorted(PACK)), st.data())
def test_a_damaged_file_gives_the_first_records_or_is_refused(
    compression: str, data: st.DataObject
) -> None:
    content = PACK[compression](file_of(RECORDS))
    at = data.draw(st.integers(0, len(content) - 1))
    new = data.draw(st.binary(max_size=4))
    length = data.draw(st.integers(0, 4))
    cut = data.draw(st.booleans())
    damaged = content[:at] + (b"" if cut else new + content[at + length :])

    records, refused = _read(damaged)

    assert records == RECORDS[: len(records)]
    if compression != "none" and damaged and not refused:  # a plain file has no end to miss
        assert records == RECORDS


@settings(max_examples=300)
@given(st.integers(0, SHARD.stat().st_size - 1), st.integers(1, 255))
def test_an_edited_byte_is_noticed_by_the_dataset(at: int, change: int) -> None:
    content = bytearray(SHARD.read_bytes())
    content[at] ^= change
    with TemporaryDirectory() as folder:
        path = Path(folder) / SHARD.name
        path.write_bytes(content)
        with pytest.raises(DataError):
            list(TFRecordDataset([path], SCHEMA))


@settings(max_examples=600)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_a_mutated_message_with_valid_checksums_is_parsed_or_refused(seed: int, edits: int) -> None:
    generator = np.random.default_rng(seed)
    record = bytearray(build_example({"image": bytes(30), "image_shape": [2, 3, 5], "x": [0.5]}))
    for position in generator.integers(0, len(record), edits):
        record[position] = generator.integers(256)
    try:
        example = parse_example(record)
        SCHEMA["image"].decode(example)
    except DataError:
        return
    assert all(isinstance(name, str) for name in example)


def _read(content: bytes) -> tuple[list[bytes], bool]:
    records: list[bytes] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(content)
        try:
            records.extend(bytes(record) for record in read_tfrecord(path))
        except DataError:
            return records, True
    return records, False


LIMITED = """
import pathlib, resource, sys, time
from medkit.data import DataError, parse_example, read_tfrecord
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    start = time.perf_counter()
    try:
        for record in read_tfrecord(path, verify=path.suffix == ".checked"):
            parse_example(record)
    except DataError:
        pass
    assert time.perf_counter() - start < 2, path
print("survived")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_damage_never_costs_half_a_gibibyte_or_two_seconds(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    packs = sorted(PACK)
    for number in range(300):
        content = bytearray(file_of([build_example({"x": bytes(300), "n": list(range(99))})] * 3))
        for position in generator.integers(0, len(content), 1 + number % 3):
            content[position] = generator.integers(256)
        packed = PACK[packs[number % 3]](bytes(content))
        (tmp_path / f"{number:03}.{'checked' if number % 2 else 'unchecked'}").write_bytes(packed)
    length = (2**33 - 1).to_bytes(8, "little")
    bomb = gzip.compress(length + bytes(2**24))
    (tmp_path / "bomb.unchecked").write_bytes(bomb)

    command = [sys.executable, "-c", LIMITED, tmp_path]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)

    assert result.stdout == "survived\n", result.stderr
