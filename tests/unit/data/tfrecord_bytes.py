"""TFRecord files and their records spelled out byte by byte, independent of medkit."""

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[2] / "golden" / "tfrecord"
SHARD = GOLDEN / "training_shard_0.tfrec"


def crc32c_bit_by_bit(data: bytes) -> int:
    """The definition: shift and subtract, one bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c_bit_by_bit(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32).to_bytes(4, "little")


def frame(content: bytes, length: int | None = None) -> bytes:
    """One record; ``length`` forges the length, with the checksum that belongs to it."""
    head = (len(content) if length is None else length).to_bytes(8, "little")
    return head + masked(head) + content + masked(content)


def file_of(records: Iterable[bytes]) -> bytes:
    return b"".join(map(frame, records))


def varint(value: int) -> bytes:
    value %= 2**64
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(name: str, kind: int, values: bytes) -> bytes:
    """One feature of an example: 1 bytes, 2 floats, 3 integers."""
    return field(1, field(1, name.encode()) + field(2, field(kind, values)))


def example_of(*entries: bytes) -> bytes:
    return field(1, b"".join(entries))


def shard_arrays() -> dict[str, np.ndarray]:
    """What TensorFlow decoded from the shard that it wrote."""
    with np.load(GOLDEN / "training_shard_0.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def zlib_stored(content: bytes) -> bytes:
    return zlib.compress(content, 0)
