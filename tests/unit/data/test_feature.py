"""A declared feature becomes just the tensor that was stored, or an error that names it."""

import numpy as np
import pytest
import torch

from medkit.data import Feature, FormatError, build_example, parse_example

V = np.arange(24).reshape(2, 3, 4)


def _decode(feature: Feature, **features: object) -> torch.Tensor | str:
    return feature.decode(parse_example(bytearray(build_example(features))))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("u1", torch.uint8), ("i1", torch.int8), ("<i2", torch.int16), (">i2", torch.int16),
        (">i4", torch.int32), ("i8", torch.int64), ("<f2", torch.float16), (">f4", torch.float32),
        ("f8", torch.float64), ("<u2", torch.int32), (">u4", torch.int64), ("u8", torch.int64),
        ("c8", torch.complex64),
    ],
)  # fmt: skip
def test_raw_bytes_of_any_type(stored: str, expected: torch.dtype) -> None:
    feature = Feature(name="a", dtype=stored, shape="s")
    tensor = _decode(feature, a=V.astype(stored).tobytes(), s=[2, 3, 4])

    assert tensor.dtype == expected
    assert torch.equal(tensor, torch.as_tensor(V).to(expected))


def test_booleans() -> None:
    feature = Feature(name="a", dtype="bool", shape=(2, 2))

    assert _decode(feature, a=b"\0\1\1\0").tolist() == [[False, True], [True, False]]
    with pytest.raises(FormatError, match="bytes of 0 and 1"):
        _decode(feature, a=b"\0\1\2\0")


def test_layouts_put_channels_first() -> None:
    raw = {"a": V.astype("u1").tobytes()}
    shapes = {}
    for layout in ("stored", "spatial", "channels_last"):
        feature = Feature(name="a", dtype="u1", shape=(2, 3, 4), layout=layout)
        shapes[layout] = tuple(_decode(feature, **raw).shape)

    assert shapes == {"stored": (2, 3, 4), "spatial": (1, 2, 3, 4), "channels_last": (4, 2, 3)}
    last = Feature(name="a", dtype="u1", shape=(2, 3, 4), layout="channels_last")
    assert torch.equal(_decode(last, **raw), torch.as_tensor(V).permute(2, 0, 1).to(torch.uint8))


def test_lists_of_numbers() -> None:
    assert _decode(Feature(name="a", dtype="int64"), a=[1, -2]).tolist() == [1, -2]
    assert _decode(Feature(name="a", dtype="int64", shape=()), a=7).shape == ()
    assert _decode(Feature(name="a", dtype="float32", shape=(2, 1)), a=[1.5, 2.5]).shape == (2, 1)
    assert _decode(Feature(name="a", dtype="int64", to=torch.float32), a=3).dtype == torch.float32


def test_text() -> None:
    assert _decode(Feature(name="a", dtype="str"), a="Grüße") == "Grüße"


def test_tensors_may_be_written_to() -> None:
    for feature in (Feature(name="a", dtype="f4"), Feature(name="b", dtype="float32")):
        _decode(feature, x=b"1", a=bytes(8), b=[1.0]).zero_()


@pytest.mark.parametrize(
    ("feature", "features", "words"),
    [
        ({"name": "b"}, {"a": b"x"}, "feature must be one of a; got b"),
        ({"shape": "s"}, {"a": b"x"}, "feature must be one of a; got s"),
        ({"shape": "s"}, {"a": b"x", "s": b"x"}, "feature 's' must be sizes"),
        ({"shape": "s"}, {"a": b"x", "s": [-1, -1]}, r"must be sizes; got \[-1, -1\]"),
        ({"shape": "s"}, {"a": b"x", "s": [2, 3]}, "6 values, as its shape is"),
        ({"shape": "s"}, {"a": b"x", "s": [2**40, 2**40]}, "1208925819614629174706176 values"),
        ({"shape": (3,)}, {"a": b"xxxx"}, "3 values"),
        ({"dtype": "i2"}, {"a": b"xxx"}, "a multiple of 2 bytes"),
        ({}, {"a": [b"x", b"y"]}, "one value; got 2 byte strings"),
        ({}, {"a": []}, "one value; got 0 byte strings"),
        ({}, {"a": None}, "one value; got 0 byte strings"),
        ({}, {"a": [1]}, "of dtype uint8; got a list of int64"),
        ({"dtype": "int64"}, {"a": [1.0]}, "of dtype int64; got a list of float32"),
        ({"dtype": "str"}, {"a": b"\xff"}, "UTF-8"),
        ({"dtype": "u8"}, {"a": b"\xff" * 8}, "at most 2"),
        ({"shape": (), "layout": "spatial"}, {"a": b"x"}, "an array with axes"),
    ],
)
def test_what_does_not_fit_is_refused(feature, features, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        _decode(Feature(**{"name": "a", "dtype": "uint8", **feature}), **features)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "voxels"}, "dtype must be a numeric NumPy type or 'str'; got 'voxels'"),
        ({"dtype": "O"}, "dtype must be a numeric NumPy type"),
        ({"dtype": "u1", "layout": "last"}, "layout must be one of"),
        ({"dtype": "u1", "shape": (-1,)}, "shape must be at least 0"),
    ],
)
def test_impossible_declarations_are_refused(options, words: str, unhooked) -> None:
    with pytest.raises(ValueError, match=words):
        Feature(name="a", **options)
