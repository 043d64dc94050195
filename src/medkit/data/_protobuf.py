"""The wire format of protocol buffers, as much of it as ``tf.train.Example`` needs.

Encoding: https://protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from medkit._core.file_errors import FormatError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_LARGEST_FIELD = 2**29 - 1
_VARINT_BYTES = 10  # 64 bits, seven a byte
_FEW = 64  # bytes up to which a loop is faster than numpy

Int64s = npt.NDArray[np.int64]
Field = tuple[int, int, memoryview]
"""Number, wire type and content; a varint's content is the bytes it is written in."""


def fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a message; nothing is copied and no length is believed unchecked."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number <= _LARGEST_FIELD:
            raise _broken("a field number in 1..2^29-1", number)
        start, stop = _extent(message, at, wire)
        if stop > len(message):
            raise _broken(f"at most {len(message) - start} bytes long", stop - start)
        yield number, wire, message[start:stop]
        at = stop


def read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the unsigned integer of up to 64 bits at a place, and the place after it."""
    value = 0
    for k, byte in enumerate(message[at : at + _VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * k
        if byte < 0x80:
            if value >> 64:
                break
            return value, at + k + 1
    raise _broken("a varint of at most 64 bits", bytes(message[at : at + _VARINT_BYTES]).hex())


def read_varints(packed: memoryview) -> Int64s:
    """Return all the integers in a packed list, as two's complement of 64 bits."""
    if len(packed) <= _FEW:
        values: list[int] = []
        at = 0
        while at < len(packed):
            value, at = read_varint(packed, at)
            values.append(value)
        return np.array(values, np.uint64).view(np.int64)
    data = np.frombuffer(packed, np.uint8)
    last = np.flatnonzero(data < 0x80)
    starts = np.concatenate(([0], last[:-1] + 1))
    if data[-1] >= 0x80 or np.max(last - starts) >= _VARINT_BYTES:
        raise _broken("varints of at most 64 bits", f"{len(packed)} bytes of other content")
    place = np.arange(len(data)) - np.repeat(starts, last - starts + 1)
    if np.any(data[place == _VARINT_BYTES - 1] > 1):
        raise _broken("varints of at most 64 bits", "a larger one")
    parts = (data & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts).view(np.int64)


def write_varint(value: int) -> bytes:
    """Return an unsigned integer in seven bits a byte, the lowest first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_varints(values: Int64s) -> bytes:
    """Return a packed list of integers; a negative one takes ten bytes."""
    left = values.astype(np.int64).view(np.uint64)
    columns: list[npt.NDArray[np.uint8]] = []
    used = [np.ones(len(left), np.bool_)]
    for _ in range(_VARINT_BYTES):
        columns.append((left & np.uint64(0x7F)).astype(np.uint8))
        left >>= np.uint64(7)
        used.append(left > 0)
    table, there = np.stack(columns, axis=1), np.stack(used, axis=1)
    table |= there[:, 1:].astype(np.uint8) << np.uint8(7)
    return table[there[:, :-1]].tobytes()


def write_field(number: int, content: bytes) -> bytes:
    """Return a field of bytes: a text, a packed list or a message."""
    return write_varint(number << 3 | BYTES) + write_varint(len(content)) + content


def _extent(message: memoryview, at: int, wire: int) -> tuple[int, int]:
    """Return where the content of a field begins and ends, which may be beyond the message."""
    if wire == VARINT:
        return at, read_varint(message, at)[1]
    if wire == FIXED64:
        return at, at + 8
    if wire == FIXED32:
        return at, at + 4
    if wire == BYTES:
        length, start = read_varint(message, at)
        return start, start + length
    raise _broken("of wire type 0, 1, 2 or 5", wire)


def _broken(rule: str, found: object) -> FormatError:
    return FormatError(rule, field="field of the example", value=found)
