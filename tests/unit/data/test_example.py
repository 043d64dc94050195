"""tf.train.Example messages: as TensorFlow writes them, as protobuf reads them, or refused."""

import re
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.data import FormatError, build_example, parse_example, read_tfrecord
from medkit.data._protobuf import read_varints, write_varints
from unit.data.tfrecord_bytes import SHARD, entry, example_of, field, shard_arrays, varint

FLOATS = np.array([0.5, -2, np.inf, np.nan], "<f4")


def test_shard_of_tensorflow_is_parsed() -> None:
    arrays = shard_arrays()
    for number, record in enumerate(read_tfrecord(SHARD)):
        example = parse_example(record)
        for name in ("image", "label"):
            array = arrays[f"{name}{number}"]
            assert example[f"{name}_shape"].tolist() == list(array.shape)
            assert [bytes(value) for value in example[name]] == [array.tobytes()]


def test_what_tensorflow_wrote_is_written_again_bit_for_bit() -> None:
    for record in read_tfrecord(SHARD):
        assert build_example(parse_example(record)) == bytes(record)


def test_each_kind_of_values() -> None:
    example = parse_example(
        build_example(
            {
                "text": "Grüße",
                "bytes": [b"", b"ab\0\0", b"\xff"],
                "floats": FLOATS,
                "half": np.array([0.5], np.float16),
                "float": 0.25,
                "integers": [0, 1, -1, 2**63 - 1, -(2**63)],
                "flags": np.array([True, False]),
                "no bytes": [],
                "no floats": np.zeros(0, np.float32),
                "no integers": np.zeros(0, np.int64),
                "nothing": None,
                "": 7,
            }
        )
    )

    assert [bytes(value) for value in example["text"]] == ["Grüße".encode()]
    assert [bytes(value) for value in example["bytes"]] == [b"", b"ab\0\0", b"\xff"]
    assert np.array_equal(example["floats"], FLOATS, equal_nan=True)
    assert example["half"].dtype == np.float32
    assert example["float"].tolist() == [0.25]
    assert example["integers"].tolist() == [0, 1, -1, 2**63 - 1, -(2**63)]
    assert example["flags"].tolist() == [1, 0]
    assert example["no bytes"] == []
    assert (example["no floats"].dtype, example["no floats"].size) == (np.float32, 0)
    assert (example["no integers"].dtype, example["no integers"].size) == (np.int64, 0)
    assert example["nothing"] is None
    assert example[""].tolist() == [7]
    assert next(iter(example)) == "text"


def test_byte_strings_are_not_copied() -> None:
    record = bytearray(build_example({"image": bytes(1000)}))
    image = parse_example(record)["image"][0]
    record[-1] = 9

    assert image[-1] == 9


def test_unpacked_and_mixed_lists_are_read() -> None:
    integers = varint(1 << 3) + varint(5) + field(1, varint(-3) + varint(7)) + b"\x08\x09"
    floats = b"\x0d" + FLOATS[:1].tobytes() + field(1, FLOATS[1:].tobytes())
    example = parse_example(example_of(entry("i", 3, integers), entry("f", 2, floats)))

    assert example["i"].tolist() == [5, -3, 7, 9]
    assert np.array_equal(example["f"], FLOATS, equal_nan=True)


def test_unknown_fields_are_skipped_and_repeated_ones_merged() -> None:
    unknown = varint(9 << 3) + varint(1) + varint(8 << 3 | 1) + bytes(8) + field(7, b"xyz")
    unknown += varint(6 << 3 | 5) + bytes(4)
    feature = field(3, field(1, b"\1")) + unknown + field(3, field(1, b"\2"))
    twice = field(1, field(1, b"a") + field(2, feature) + unknown)
    other = field(1, field(1, b"b") + field(2, field(1, field(1, b"old")) + field(3, b"\x08\x04")))
    record = unknown + field(1, twice + unknown) + field(1, other) + unknown
    example = parse_example(record)

    assert example["a"].tolist() == [1, 2]
    assert example["b"].tolist() == [4]
    last = parse_example(example_of(entry("a", 3, b"\x08\x01"), entry("a", 3, b"\x08\x02")))
    assert last["a"].tolist() == [2]


HOSTILE = {
    "length beyond the record": field(1, bytes(5))[:-1],
    "length of 2^63": b"\x0a" + varint(2**63 - 1) + b"x",
    "inner length beyond the outer": field(1, b"\x0a\x09abc"),
    "varint of eleven bytes": b"\x08" + b"\xff" * 10 + b"\1",
    "varint above 64 bits": b"\x08" + b"\xff" * 9 + b"\x7f",
    "varint that is cut": b"\x08\xff",
    "tag that is cut": b"\xff",
    "field number 0": b"\x02\x00",
    "group": b"\x0b\x0c",
    "wire type 7": b"\x0f",
    "fixed64 that is cut": b"\x09\0\0",
    "fixed32 that is cut": b"\x0d\0\0",
    "name that is no text": field(1, field(1, field(1, b"\xff") + field(2, b""))),
    "floats of 3 bytes": example_of(entry("a", 2, field(1, b"abc"))),
    "integers that are cut": example_of(entry("a", 3, field(1, b"\1\xff"))),
    "many integers that are cut": example_of(entry("a", 3, field(1, b"\1" * 99 + b"\xff"))),
    "an integer cut in two": example_of(entry("a", 3, field(1, b"\xff") + field(1, b"\1"))),
    "many integers, one too long": example_of(
        entry("a", 3, field(1, b"\1" * 99 + b"\xff" * 10 + b"\1"))
    ),
    "many integers, one above 64 bits": example_of(
        entry("a", 3, field(1, b"\1" * 99 + b"\xff" * 9 + b"\2"))
    ),
}


@pytest.mark.parametrize("record", HOSTILE.values(), ids=HOSTILE)
def test_hostile_messages_are_refused(record: bytes) -> None:
    with pytest.raises(FormatError):
        parse_example(record)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (np.zeros(2), ValueError, "float32, or raw bytes"),
        (np.zeros((2, 2), np.uint8), ValueError, "array.tobytes()"),
        (np.array([2**63], np.uint64), ValueError, "below 2^63"),
        ([2**64], TypeError, "bytes, text, integers or floats"),
        ([1j], TypeError, "bytes, text, integers or floats"),
        ([b"a", 1], TypeError, "bytes or text throughout"),
    ],
)
def test_what_an_example_cannot_hold_is_refused(value, error, words: str, unhooked) -> None:
    with pytest.raises(error, match=re.escape(words)):
        build_example({"a": value})


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=200))
def test_integers_survive_the_wire_format(values: list[int]) -> None:
    packed = b"".join(map(varint, values))
    array = np.array(values, np.int64)

    assert write_varints(array) == packed
    assert np.array_equal(read_varints(memoryview(packed)), array)


@cache
def _message():
    """Return the class of tf.train.Example, built without TensorFlow."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="e.proto", package="e", syntax="proto3")
    kinds = {"BytesList": "TYPE_BYTES", "FloatList": "TYPE_FLOAT", "Int64List": "TYPE_INT64"}
    field_type = descriptor_pb2.FieldDescriptorProto
    for name, kind in kinds.items():
        values = file.message_type.add(name=name).field.add(name="value", number=1, label=3)
        values.type = getattr(field_type, kind)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(kinds, 1):
        part = feature.field.add(name=name.lower(), number=number, label=1, oneof_index=0)
        part.type, part.type_name = field_type.TYPE_MESSAGE, f".e.{name}"
    features = file.message_type.add(name="Features")
    pair = features.nested_type.add(name="FeatureEntry")
    pair.options.map_entry = True
    pair.field.add(name="key", number=1, label=1, type=field_type.TYPE_STRING)
    value = pair.field.add(name="value", number=2, label=1, type=field_type.TYPE_MESSAGE)
    value.type_name = ".e.Feature"
    entries = features.field.add(name="feature", number=1, label=3, type=field_type.TYPE_MESSAGE)
    entries.type_name = ".e.Features.FeatureEntry"
    top = file.message_type.add(name="Example").field.add(name="features", number=1, label=1)
    top.type, top.type_name = field_type.TYPE_MESSAGE, ".e.Features"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("e.Example"))


VALUES = st.one_of(
    st.none(),
    st.lists(st.binary(max_size=9), min_size=1, max_size=4),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=99),
    st.lists(st.floats(width=32), min_size=1, max_size=9),
)
EXAMPLES = st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=5)


def _theirs(message) -> dict[str, str]:
    found = {}
    for name, feature in message.features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = repr(None if kind is None else list(getattr(feature, kind).value))
    return found


def _ours(record: bytes) -> dict[str, str]:
    return {
        name: repr(
            values.tolist()
            if isinstance(values, np.ndarray)
            else values and [bytes(value) for value in values]
        )
        for name, values in parse_example(record).items()
    }


@given(EXAMPLES)
def test_protobuf_reads_and_writes_the_same(example: dict[str, object]) -> None:
    message_class = _message()
    record = build_example(example)
    message = message_class.FromString(record)
    names = {True: "byteslist", False: "floatlist"}
    written = message_class()
    for name, values in example.items():
        feature = written.features.feature[name]
        if values is not None:
            integers = isinstance(values[0], int)
            kind = "int64list" if integers else names[isinstance(values[0], bytes)]
            getattr(feature, kind).value.extend(values)

    assert _theirs(message) == _ours(record)
    theirs = written.SerializeToString()
    assert _ours(theirs) == _theirs(written)
    assert len(theirs) == len(record)
    if len(example) == 1:  # the order of several is protobuf's own
        assert theirs == record


@settings(max_examples=500)
@given(st.integers(0, 400), st.integers(0, 255), st.booleans())
def test_an_edited_message_means_what_protobuf_says_or_is_refused(
    at: int, value: int, cut: bool
) -> None:
    message_class = _message()
    from google.protobuf.message import DecodeError

    record = bytearray(
        build_example({"image": bytes(range(90)), "floats": [0.5] * 9, "i": list(range(-20, 99))})
    )
    at %= len(record)
    record[at] = value
    record = bytes(record[:at] if cut else record)
    try:
        ours = _ours(record)
    except FormatError:
        return
    try:
        theirs = _theirs(message_class.FromString(record))
    except DecodeError as error:
        raise AssertionError(f"protobuf refuses what was read as {ours}") from error
    assert ours == theirs


def test_values_become_tensors_without_a_warning() -> None:
    example = parse_example(bytearray(build_example({"a": np.arange(5)})))

    assert torch.as_tensor(example["a"]).tolist() == [0, 1, 2, 3, 4]
