"""Zarr arrays and OME-Zarr images mean what zarr says; odd and damaged ones are refused."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

zarr = pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")

from medkit._core import optional  # noqa: E402
from medkit.data import (  # noqa: E402
    ChecksumError,
    CodecMissingError,
    DataError,
    FormatError,
    GeometryError,
    LimitError,
    Limits,
    TruncatedError,
    UnsafeReferenceError,
    _crc32c,
    open,  # noqa: A004
    read,
    read_zarr,
)
from medkit.testing import assert_close  # noqa: E402

ARRAY = np.random.default_rng(0).integers(0, 200, (2, 9, 10, 11)).astype("u1")
KINDS = ["?", "u1", "i1", "<u2", ">i2", "<u4", ">i4", "i8", "<f2", ">f4", "f8", "c8"]
WIDER = {"u2": "i4", "u4": "i8"}
V2 = [
    None, numcodecs.Blosc("lz4"), numcodecs.Blosc("zstd", shuffle=2), numcodecs.Zstd(),
    numcodecs.LZ4(), numcodecs.Zlib(), numcodecs.GZip(), numcodecs.BZ2(), numcodecs.LZMA(),
]  # fmt: skip
V3 = {
    "raw": None,
    "blosc": zarr.codecs.BloscCodec(),
    "zstd": zarr.codecs.ZstdCodec(),
    "gzip": zarr.codecs.GzipCodec(),
    "zstd, crc32c": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()],
    "crc32c, zstd": [zarr.codecs.Crc32cCodec(), zarr.codecs.ZstdCodec()],
}


def _stored(folder: Path, array: np.ndarray = ARRAY, **options: object) -> Path:
    """Write an array; chunks that divide no axis, the last ones filled up."""
    options = {"chunks": (1, 4, 5, 6)[-array.ndim :], **options}
    stored = zarr.create_array(folder / "a", shape=array.shape, dtype=array.dtype, **options)
    stored[...] = array
    return folder / "a"


def _check(path: Path, array: np.ndarray) -> None:
    v, lazy = read(path), open(path)
    kind = array.dtype.newbyteorder("=")
    assert v.data.numpy().dtype == WIDER.get(kind.str[1:], kind)
    assert np.array_equal(v.data.numpy(), array.reshape((1,) * (4 - array.ndim) + array.shape))
    assert np.array_equal(zarr.open_array(path, mode="r")[...], array)
    assert [notice.code for notice in v.warnings] == ["no_orientation"]
    start = tuple(n // 3 for n in v.spatial_shape)
    size = tuple(n - a for n, a in zip(v.spatial_shape, start, strict=True))
    assert torch.equal(lazy.read(start, size).data, v.crop(start, size).data)
    again = pickle.loads(pickle.dumps(lazy))
    assert torch.equal(again.read(start, (1, 1, 1)).data, v.crop(start, (1, 1, 1)).data)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_types_are_read_as_zarr_reads_them(version: int, kind: str, tmp_path: Path) -> None:
    array = ARRAY.astype(kind)

    _check(_stored(tmp_path, array, zarr_format=version), array)


@pytest.mark.parametrize("axes", [2, 3, 4])
@pytest.mark.parametrize("version", [2, 3])
def test_axes_are_those_of_hdf5(version: int, axes: int, tmp_path: Path) -> None:
    array = ARRAY[(0,) * (4 - axes)]

    _check(_stored(tmp_path, array, zarr_format=version), array)


@pytest.mark.parametrize("codec", V2, ids=str)
@pytest.mark.parametrize("order", "CF")
def test_compressors_of_version_2(codec, order: str, tmp_path: Path) -> None:
    _check(_stored(tmp_path, zarr_format=2, compressors=codec, order=order), ARRAY)


@pytest.mark.parametrize("codec", V3)
def test_codecs_of_version_3(codec: str, tmp_path: Path) -> None:
    _check(_stored(tmp_path, compressors=V3[codec]), ARRAY)


@pytest.mark.parametrize("place", ["start", "end"])
def test_shards(place: str, tmp_path: Path) -> None:
    shards = zarr.codecs.ShardingCodec(
        chunk_shape=(1, 2, 5, 3), codecs=[zarr.codecs.BytesCodec(), zarr.codecs.ZstdCodec()],
        index_location=place,
    )  # fmt: skip
    stored = zarr.create_array(
        tmp_path / "a", shape=ARRAY.shape, dtype="u1", chunks=(2, 4, 5, 6), serializer=shards,
        compressors=None,
    )  # fmt: skip
    stored[...] = ARRAY
    _check(tmp_path / "a", ARRAY)
    path = _stored(tmp_path / "b", shards=(2, 8, 10, 12))
    _check(path, ARRAY)


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("name", ["default", "v2"])
def test_names_of_chunks(separator: str, name: str, tmp_path: Path) -> None:
    _check(_stored(tmp_path, chunk_key_encoding={"name": name, "separator": separator}), ARRAY)


@pytest.mark.parametrize("fill", [0, 7, -3])
@pytest.mark.parametrize("version", [2, 3])
def test_absent_chunks_hold_the_fill_value_and_are_told(version, fill, tmp_path: Path) -> None:
    array = np.full((9, 10, 11), fill, "i2")
    array[:4, :5] = 1
    path = _stored(tmp_path, array, zarr_format=version, fill_value=fill)
    v = read(path)

    assert np.array_equal(v.data[0].numpy(), array)
    assert [notice.code for notice in v.warnings] == ["no_orientation", "absent_chunks"]
    assert v.warnings[1].message.startswith("10 chunks")


def test_fill_values_that_json_lacks(tmp_path: Path) -> None:
    for number, fill in enumerate((math.nan, math.inf, -math.inf)):
        path = _stored(tmp_path / f"{number}", np.zeros((2, 3), "f4"), fill_value=fill)
        for chunk in path.rglob("c/**/*"):
            if chunk.is_file():
                chunk.unlink()
        assert np.array_equal(
            read(path).data[0, 0].numpy(), np.full((2, 3), fill, "f4"), equal_nan=True
        )


# OME-Zarr


def _ome(
    folder: Path, version: int, axes: list[dict], transforms: list[list[dict]], **more
) -> Path:
    group = zarr.open_group(folder / "ome", mode="w", zarr_format=version)
    levels = []
    for number, transform in enumerate(transforms):
        shape = tuple(n if n < 4 else n >> number for n in more.get("shape", ARRAY.shape))
        level = group.create_array(f"s{number}", shape=shape, dtype="u1", chunks=(4,) * len(shape))
        level[...] = np.resize(ARRAY, shape)
        levels.append({"path": f"s{number}", "coordinateTransformations": transform})
    whole = more.get("whole", [])
    image = {"axes": axes, "datasets": levels, "coordinateTransformations": whole}
    content = {"multiscales": [image]}
    group.attrs.update(content if version == 2 else {"ome": {"version": "0.5", **content}})
    return folder / "ome"


def _axis(name: str, unit: str = "micrometer", **more: object) -> dict:
    return {"name": name, "type": "space", "unit": unit, **more}


def _scale(*values: float) -> dict:
    return {"type": "scale", "scale": list(values)}


def _shift(*values: float) -> dict:
    return {"type": "translation", "translation": list(values)}


CHANNEL = {"name": "c", "type": "channel"}
LEVELS = [[_scale(1, 500, 250, 125)], [_scale(1, 1000, 500, 250), _shift(0, 250, 125, 62.5)]]


@pytest.mark.parametrize("version", [2, 3])
def test_levels_have_their_spacing(version: int, tmp_path: Path) -> None:
    path = _ome(tmp_path, version, [CHANNEL, *map(_axis, "zyx")], LEVELS)

    for level, spacing in enumerate([(0.5, 0.25, 0.125), (1.0, 0.5, 0.25)]):
        v = read_zarr(path, level=level)
        assert np.array_equal(v.data.numpy(), zarr.open_array(path / f"s{level}", mode="r")[...])
        assert_close(list(v.spacing), list(spacing), rtol=1e-12)
        assert [notice.code for notice in v.warnings] == ["no_orientation"]
    assert read(path).shape == ARRAY.shape
    lazy = open(path)
    assert torch.equal(lazy.read((1, 2, 3), (4, 5, 6)).data, read(path).data[:, 1:5, 2:7, 3:9])
    assert read_zarr(path, name="s1").shape == (2, 4, 5, 5)
    assert open(path, name="s1").shape == (2, 4, 5, 5)
    with pytest.raises(FormatError, match="level must be below 2"):
        read_zarr(path, level=2)


SIDES = ["inferior-to-superior", "anterior-to-posterior", "right-to-left"]


def test_anatomical_orientation_makes_an_affine(tmp_path: Path) -> None:
    axes = [
        _axis(name, "millimeter", orientation={"type": "anatomical", "value": side})
        for name, side in zip("zyx", SIDES, strict=True)
    ]
    transforms = [[_scale(3, 2, 1), _shift(10, 20, 30)]]
    path = _ome(
        tmp_path, 3, axes, transforms, shape=(9, 10, 11), whole=[_scale(2, 2, 2), _shift(1, 1, 1)]
    )
    v = read(path)

    expected = np.array([[0, 0, -2, -61], [0, -4, 0, -41], [6, 0, 0, 21], [0, 0, 0, 1.0]])
    assert_close(v.affine.copy(), expected, atol=1e-12)
    assert v.axcodes == "SPL"
    assert v.warnings == ()


def test_planes_time_and_axes_without_a_type(tmp_path: Path) -> None:
    axes = [{"name": "t", "type": "time"}, CHANNEL, *map(_axis, "yx")]
    path = _ome(tmp_path, 2, axes, [[_scale(1, 1, 500, 250)]], shape=(1, 3, 10, 11))
    v = read(path)
    assert (v.shape, v.spacing) == ((3, 1, 10, 11), (1.0, 0.5, 0.25))
    assert np.array_equal(v.data[:, 0].numpy(), zarr.open_array(path / "s0", mode="r")[0])
    path = _ome(tmp_path, 2, ["c", "z", "y", "x"], [[]])
    assert (read(path).shape, read(path).spacing) == (ARRAY.shape, (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("axes", "transform", "error", "words"),
    [
        ([{"name": "t", "type": "time"}, *map(_axis, "zyx")], [], FormatError, "one point in time"),
        ([*map(_axis, "zyx"), CHANNEL], [], FormatError, "channels before space"),
        ([_axis("x")], [], FormatError, "axes must be 4"),
        ([CHANNEL, *map(_axis, "zyx")], [_scale(1, 1)], FormatError, "of 4 numbers"),
        ([CHANNEL, *map(_axis, "zyx")], [_scale(1, 1, 1, 0)], GeometryError, "positive"),
        ([CHANNEL, *map(_axis, "zyx")], [{"type": "affine"}], FormatError, "scale or translation"),
        (
            [CHANNEL, *map(_axis, "zy"), _axis("x", orientation={"value": "up"})],
            [_scale(1, 1, 1, 1)], GeometryError, "orientation must be one of",
        ),
    ],
)  # fmt: skip
def test_images_that_are_no_volume(axes, transform, error, words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        read(_ome(tmp_path, 2, axes, [transform]))


def test_geometry_of_a_plain_array_is_in_its_attributes(tmp_path: Path) -> None:
    path = _stored(tmp_path, attributes={"affine": np.diag([3.0, 2, 1, 1]).tolist()})
    assert (read(path).axcodes, read(path).warnings) == ("RAS", ())
    path = _stored(tmp_path / "b", attributes={"spacing": [3.0, 2, 1]})
    assert read(path).spacing == (3, 2, 1)


# damage and danger


def _edit(path: Path, **changes: object) -> Path:
    """Change fields of the metadata; double underscores lead deeper."""
    file = path / ("zarr.json" if (path / "zarr.json").exists() else ".zarray")
    header = json.loads(file.read_text())
    for key, value in changes.items():
        *way, last = key.split("__")
        inner = header
        for word in way:
            inner = inner[word]
        inner[last] = value
    file.write_text(json.dumps(header))
    return path


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
BAD: dict[str, tuple[int, dict[str, object], type[DataError], str]] = {
    "objects": (2, {"dtype": "|O"}, FormatError, "a type of numbers"),
    "records": (2, {"dtype": [["a", "<i2"]]}, FormatError, "a type of numbers"),
    "pickle": (2, {"compressor": {"id": "pickle"}}, CodecMissingError, "pickle"),
    "filters": (2, {"filters": [{"id": "pickle"}]}, FormatError, "filters must be none"),
    "order": (2, {"order": "K"}, FormatError, "order"),
    "shape of text": (2, {"shape": "9"}, FormatError, "shape must be a list"),
    "shape -1": (2, {"shape": [-1, 9, 9, 9]}, FormatError, "positive"),
    "shape of flags": (2, {"shape": [True, 9, 9, 9]}, FormatError, "positive"),
    "three chunks": (2, {"chunks": [1, 2, 3]}, FormatError, "one size for each axis"),
    "huge": (2, {"shape": [1, 9999, 9999, 9999]}, LimitError, "at most"),
    "huge chunk": (2, {"chunks": [9, 9999, 9999, 9999]}, LimitError, "at most"),
    "large chunk": (2, {"chunks": [1, 999, 999, 999]}, TruncatedError, "can hold"),
    "other chunk": (2, {"chunks": [1, 4, 5, 7]}, FormatError, "damage"),
    "separator": (2, {"dimension_separator": "../"}, FormatError, "separator"),
    "fill value": (2, {"fill_value": "x"}, FormatError, "fill_value"),
    "fill value 999": (2, {"fill_value": 999}, FormatError, "fill_value"),
    "five axes": (2, {"shape": [9] * 5, "chunks": [9] * 5}, FormatError, r"\(C, D, H, W\)"),
    "type": (3, {"data_type": "string"}, FormatError, "a type of numbers"),
    "no codecs": (3, {"codecs": []}, FormatError, "codecs must be a list"),
    "index codecs": (
        3,
        {"codecs": [{"name": "sharding_indexed", "configuration": {
            "chunk_shape": [1, 4, 5, 6], "codecs": [BYTES], "index_codecs": [BYTES, BYTES]}}]},
        FormatError, "index_codecs",
    ),
    "code for a codec": (
        3, {"codecs": [BYTES, {"name": "numcodecs.pickle"}]}, CodecMissingError, "codec must be one"
    ),
    "transpose": (3, {"codecs": [{"name": "transpose"}, BYTES]}, FormatError, "first codec"),
    "two compressors": (
        3, {"codecs": [BYTES, {"name": "zstd"}, {"name": "gzip"}]}, CodecMissingError, "at most"
    ),
    "transformers": (3, {"storage_transformers": [{"name": "x"}]}, FormatError, "transformers"),
    "grid": (3, {"chunk_grid__name": "irregular"}, FormatError, "regular"),
    "codec without a name": (3, {"codecs": [3]}, FormatError, "an object with a name"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_metadata_are_refused_by_name(name: str, tmp_path: Path) -> None:
    version, changes, error, words = BAD[name]
    path = _edit(_stored(tmp_path, zarr_format=version), **changes)

    with pytest.raises(DataError, match=words) as caught:
        read(path)
    assert type(caught.value) is error


def test_metadata_that_are_no_json_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"[1]", b"{", b"[" * 100_000, b"\xff"):
        path = _stored(tmp_path / str(len(content)))
        (path / "zarr.json").write_bytes(content)
        with pytest.raises(FormatError, match="JSON"):
            read(path)


@pytest.mark.parametrize("codec", V3)
def test_damaged_chunks_are_refused(codec: str, tmp_path: Path) -> None:
    path = _stored(tmp_path, compressors=V3[codec])
    chunk = path / "c" / "0" / "1" / "1" / "0"
    whole = chunk.read_bytes()
    for content in (whole[:-1], b"", whole + b"x", whole[: len(whole) // 2]):
        chunk.write_bytes(content)
        with pytest.raises(DataError, match=r"chunk must be"):
            read(path)
    if "crc32c" in codec:
        chunk.write_bytes(whole[:9] + bytes([whole[9] ^ 1]) + whole[10:])
        with pytest.raises((ChecksumError, FormatError)):
            read(path)


def test_a_crc_needs_no_other_package(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(optional, "is_available", lambda name: name == "numcodecs")
    _crc32c._engine.cache_clear()
    _check(_stored(tmp_path, compressors=V3["zstd, crc32c"]), ARRAY)
    monkeypatch.undo()
    _crc32c._engine.cache_clear()


def test_nothing_outside_of_the_folder_is_read(tmp_path: Path) -> None:
    path = _stored(tmp_path / "in")
    chunk = path / "c" / "0" / "0" / "0" / "0"
    chunk.rename(tmp_path / "chunk")
    chunk.symlink_to(tmp_path / "chunk")
    with pytest.raises(UnsafeReferenceError, match="a link out"):
        read(path)
    group = _ome(tmp_path, 2, [CHANNEL, *map(_axis, "zyx")], LEVELS)
    for name in ("../in/a", "/etc", str(path), "a\0b"):
        with pytest.raises(UnsafeReferenceError, match="inside the folder"):
            read_zarr(group, name=name)


def test_groups_and_folders_that_hold_no_image(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "g", mode="w")
    with pytest.raises(FormatError, match="one OME-Zarr image; got 0 images"):
        read(tmp_path / "g")
    with pytest.raises(FormatError, match="labels must be an array; got none"):
        read_zarr(tmp_path / "g", name="labels")
    with pytest.raises(FileNotFoundError, match="no array or group"):
        read_zarr(tmp_path)


def test_limits_hold(tmp_path: Path) -> None:
    path = _stored(tmp_path)
    assert read(path, limits=Limits(max_bytes=ARRAY.size)).shape == ARRAY.shape
    with pytest.raises(LimitError, match="at most"):
        read(path, limits=Limits(max_bytes=ARRAY.size - 1))
    with pytest.raises(LimitError, match="max_header_bytes"):
        read(path, limits=Limits(max_header_bytes=20))
