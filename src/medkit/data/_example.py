"""``tf.train.Example``: named lists of bytes, floats or integers, parsed without protobuf."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from medkit._core import check
from medkit._core.file_errors import FormatError

from ._protobuf import (
    BYTES,
    FIXED32,
    VARINT,
    Field,
    fields,
    read_varints,
    write_field,
    write_varints,
)

Values = list[memoryview] | npt.NDArray[np.float32] | npt.NDArray[np.int64] | None
"""What a feature holds: byte strings, float32, int64, or nothing at all."""

Writable = (
    bytes
    | str
    | float
    | Sequence[bytes]
    | Sequence[memoryview]
    | Sequence[str]
    | Sequence[float]
    | np.ndarray
    | None
)
"""What a feature can be built from."""

_EXAMPLE_FEATURES = 1
_ENTRY = 1
_KEY, _VALUE = 1, 2
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_ITEM = 1
_TEXTS = (bytes, str, memoryview)


def parse_example(record: bytes | bytearray | memoryview) -> dict[str, Values]:
    """Return the features of a ``tf.train.Example`` by name, in the order of the record.

    Byte strings are views of ``record`` and are not copied; numbers may be packed or not. Unknown
    fields are skipped and repeated ones merged, as protocol buffers prescribe. Every length is
    held against the bytes that are there before it is used.

    Args:
        record: One record of a TFRecord file, as :func:`read_tfrecord` gives it.

    Returns:
        For each feature a list of byte strings, a float32 array or an int64 array, by the kind of
        the feature; None for a feature without a kind.

    Raises:
        FormatError: If ``record`` is no valid message.

    Example:
        >>> record = build_example({"id": b"case 7", "shape": [2, 3, 4]})
        >>> example = parse_example(record)
        >>> bytes(example["id"][0]), example["shape"].tolist()
        (b'case 7', [2, 3, 4])

    References:
        TensorFlow, ``tensorflow/core/example/example.proto`` and ``feature.proto``.
    """
    found: dict[str, Values] = {}
    for number, wire, features in fields(memoryview(record)):
        if number == _EXAMPLE_FEATURES and wire == BYTES:
            for entry_number, entry_wire, entry in fields(features):
                if entry_number == _ENTRY and entry_wire == BYTES:
                    name, values = _parse_entry(entry)
                    found[name] = values
    return found


def build_example(features: Mapping[str, Writable]) -> bytes:
    """Return a ``tf.train.Example`` as bytes, with the features in the order given.

    The bytes are those that TensorFlow writes for this order: lists of numbers packed. Arrays of
    voxels are stored as one byte string, ``array.tobytes()``, beside their shape.

    Args:
        features: Values by name. Bytes and text, or sequences of them, make a list of byte strings
            (text in UTF-8), and so does an empty sequence; integers and arrays of integers a list
            of int64; floats and arrays of float16 or float32 a list of float32, to which a Python
            float is rounded; None a feature without a kind.

    Returns:
        One record for :func:`write_tfrecord`.

    Raises:
        ValueError: If an integer does not fit int64, or an array is float64 or has several axes.
        TypeError: If values are of another type.

    Example:
        >>> build_example({"a": [1, 2]}).hex(" ")
        '0a 0d 0a 0b 0a 01 61 12 06 1a 04 0a 02 01 02'
    """
    entries = b"".join(
        write_field(_ENTRY, write_field(_KEY, name.encode()) + write_field(_VALUE, feature))
        for name, feature in ((name, _build(name, value)) for name, value in features.items())
    )
    return write_field(_EXAMPLE_FEATURES, entries)


def _parse_entry(entry: memoryview) -> tuple[str, Values]:
    """Return name and values of one feature; the last of repeated fields counts, lists add up."""
    name, kind = "", 0
    items: list[Field] = []
    for number, wire, content in fields(entry):
        if number == _KEY and wire == BYTES:
            name = _text(content)
        elif number == _VALUE and wire == BYTES:
            for kind_number, kind_wire, values in fields(content):
                if kind_wire != BYTES or kind_number not in _PARSERS:
                    continue
                if kind_number != kind:
                    kind, items = kind_number, []
                items.extend(field for field in fields(values) if field[0] == _ITEM)
    return name, _PARSERS[kind](items) if kind else None


def _bytes_list(items: list[Field]) -> list[memoryview]:
    return [content for _, wire, content in items if wire == BYTES]


def _float_list(items: list[Field]) -> npt.NDArray[np.float32]:
    parts: list[memoryview] = []
    for _, wire, content in items:
        if wire in (FIXED32, BYTES):
            if len(content) % 4:
                rule = "a multiple of 4 bytes"
                raise FormatError(rule, field="list of floats", value=len(content))
            parts.append(content)
    return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), "<f4")


def _int64_list(items: list[Field]) -> npt.NDArray[np.int64]:
    parts = [content for _, wire, content in items if wire in (VARINT, BYTES)]
    if any(part and part[-1] >= 0x80 for part in parts):
        raise FormatError("complete", field="list of integers", value="a varint that is cut")
    return read_varints(parts[0] if len(parts) == 1 else memoryview(b"".join(parts)))


_PARSERS = {_BYTES_LIST: _bytes_list, _FLOAT_LIST: _float_list, _INT64_LIST: _int64_list}


def _text(content: memoryview) -> str:
    try:
        return bytes(content).decode()
    except UnicodeDecodeError as error:
        raise FormatError("UTF-8", field="name of a feature", value=bytes(content)) from error


def _build(name: str, value: Writable) -> bytes:
    """Return the message of one feature."""
    if value is None:
        return b""
    texts = _texts(name, value)
    if texts is not None:
        return write_field(_BYTES_LIST, b"".join(write_field(_ITEM, text) for text in texts))
    kind, packed = _packed(name, value)
    return write_field(kind, write_field(_ITEM, packed) if packed else b"")


def _texts(name: str, value: Writable) -> list[bytes] | None:
    """Return the byte strings to store, or None if the values are numbers."""
    if isinstance(value, bytes | str):
        return [_encoded(name, value)]
    if isinstance(value, Sequence) and (not value or isinstance(value[0], _TEXTS)):
        return [_encoded(name, item) for item in value]
    return None


def _encoded(name: str, item: object) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    if isinstance(item, memoryview):
        return item.tobytes()
    raise TypeError(f"{name} must be bytes or text throughout; got {item!r}")


def _packed(name: str, value: object) -> tuple[int, bytes]:
    """Return the kind of a list of numbers and its packed bytes."""
    array: np.ndarray = np.atleast_1d(np.asarray(value))
    if array.ndim > 1:
        raise check.fail(name, "one-dimensional; store voxels as array.tobytes()", array.shape)
    if array.dtype.kind in "iub":
        if array.dtype.kind == "u" and array.size and int(array.max()) >= 2**63:
            raise check.fail(name, "below 2^63", int(array.max()))
        return _INT64_LIST, write_varints(array.astype(np.int64))
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must be bytes, text, integers or floats; got {value!r}")
    if isinstance(value, np.ndarray) and array.dtype.itemsize > 4:
        raise check.fail(name, "float32, or raw bytes to hold float64", str(array.dtype))
    return _FLOAT_LIST, array.astype("<f4").tobytes()
