"""A region of a plain file is the whole file read and then cropped, and its faults are found."""

import gzip
import os
import pickle
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medkit.data import (
    DataError,
    FormatError,
    LazyVolume,
    LimitError,
    Limits,
    TruncatedError,
    open,  # noqa: A004
    read,
    write_mha,
    write_nrrd,
)
from unit.data import nifti_corpus, test_text_headers
from unit.data.nifti_bytes import DATATYPE, nifti
from unit.data.volumes import volume


def _assert_same(lazy: LazyVolume, path: Path) -> None:
    """Whole, and one region of each corner and size."""
    whole = read(path)
    assert (lazy.shape, lazy.source, lazy.warnings) == (whole.shape, whole.source, whole.warnings)
    assert np.array_equal(lazy.affine, whole.affine)
    assert lazy.data.dtype == whole.data.dtype
    boxes = [((0, 0, 0), whole.spatial_shape)]
    boxes += [((n // 3, n // 2, 0), (1, 1, n)) for n in (min(whole.spatial_shape),)]
    last = tuple(n - 1 for n in whole.spatial_shape)
    for start, size in [*boxes, (last, (1, 1, 1))]:
        region, cropped = lazy.read(start, size), whole.crop(start, size)
        assert np.array_equal(region.data.numpy(), cropped.data.numpy(), equal_nan=True)
        assert np.array_equal(region.affine, cropped.affine)


GOOD = {case.name: case for case in nifti_corpus.good()}
BAD = {case.name: case for case in nifti_corpus.bad()}


@pytest.mark.parametrize("name", GOOD)
def test_an_odd_nifti_file_is_opened_as_it_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{GOOD[name].suffix}"
    path.write_bytes(GOOD[name].content)
    if GOOD[name].content[:2] == b"\x1f\x8b":
        with pytest.raises(FormatError, match=r"uncompressed NIfTI.*Use read"):
            open(path)
    else:
        _assert_same(open(path), path)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_nifti_file_is_refused_when_it_is_opened_or_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{BAD[name].suffix}"
    path.write_bytes(BAD[name].content)

    with pytest.raises(DataError):
        open(path, limits=BAD[name].limits).data  # noqa: B018


@pytest.mark.parametrize("cut", [-1, -1000, 1])
def test_a_nifti_file_of_another_length_is_an_error_at_once(cut: int, tmp_path: Path) -> None:
    content = nifti(np.zeros((9, 9, 9), "i2"))
    (tmp_path / "a.nii").write_bytes(content[:cut] if cut < 0 else content + bytes(cut))

    with pytest.raises(TruncatedError if cut < 0 else FormatError):
        open(tmp_path / "a.nii")


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, tuple[int, ...]]:
    """A plain NIfTI file of any type, order and scaling, and a number for each of its axes."""
    kind = draw(st.sampled_from(sorted(DATATYPE)))
    shape = draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    voxels = np.random.default_rng(0).integers(0, 100, shape).astype(kind)
    fields = {
        "scl_slope": draw(st.sampled_from([1.0, 0.0, 2.0, 0.5, -3.25])),
        "scl_inter": 0.0 if kind[0] == "c" else draw(st.sampled_from([0.0, 5.0, 0.1])),
    }
    version, order = draw(st.sampled_from([1, 2])), draw(st.sampled_from("<>"))
    return nifti(voxels, fields, version=version, order=order), tuple(shape)


@given(files(), st.data())
def test_any_region_is_the_whole_and_then_cropped(file: tuple[bytes, tuple], data) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii"
        path.write_bytes(file[0])
        whole, lazy = read(path), open(path)
        start = [data.draw(st.integers(0, n - 1)) for n in whole.spatial_shape]
        size = [
            data.draw(st.integers(1, n - a))
            for a, n in zip(start, whole.spatial_shape, strict=True)
        ]
        region, cropped = lazy.read(start, size), whole.crop(start, size)

    assert region.data.dtype == cropped.data.dtype
    assert torch.equal(region.data, cropped.data)
    assert np.array_equal(region.affine, cropped.affine)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("writer", "ending"), [(write_nrrd, ".nrrd"), (write_mha, ".mha")])
def test_raw_text_header_files_are_opened_as_they_are_read(
    writer, ending: str, channels: int, tmp_path: Path
) -> None:
    path = tmp_path / f"a{ending}"
    writer(volume(1, channels=channels), path, compress=False)
    _assert_same(open(path), path)

    writer(volume(1, channels=channels), path, compress=True)
    with pytest.raises(FormatError, match="uncompressed"):
        open(path)


NRRD, MHA = test_text_headers.nrrd, test_text_headers.mha
BIG, RAW = test_text_headers.BIG, test_text_headers.RAW
TEXTS = {
    "big endian.nrrd": NRRD(BIG, endian="big"),
    "byte skip.nrrd": NRRD(b"12345" + RAW, byte_skip="5"),
    "from the end.nrrd": NRRD(b"12345" + RAW, byte_skip="-1"),
    "line skip.nrrd": NRRD(b"one\ntwo\n" + RAW, line_skip="2"),
    "both skips.nrrd": NRRD(b"one\n12" + RAW, line_skip="1", byte_skip="2"),
    "channels first.nrrd": NRRD(kinds="vector domain domain", sizes="5 4 3", dimension="3",
        space=None, space_origin=None, space_directions=None),
    "nowhere.nrrd": NRRD(space=None, space_directions=None, space_origin=None),
    "big endian.mha": MHA(BIG, BinaryDataByteOrderMSB="True"),
    "plane.mha": MHA(NDims="2", DimSize="5 12", TransformMatrix="1 0 0 1", Offset="1 2",
        ElementSpacing="2 3"),
    "channels.mha": MHA(DimSize="5 4 1", ElementNumberOfChannels="3"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_odd_raw_files_are_opened_as_they_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(TEXTS[name])
    _assert_same(open(path), path)


@pytest.mark.parametrize("name", test_text_headers.BAD)
def test_a_bad_file_with_a_text_header_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(test_text_headers.BAD[name][0])

    with pytest.raises(DataError):
        open(path).data  # noqa: B018


@pytest.mark.parametrize("more", [-1, 1])
@pytest.mark.parametrize(("make", "ending"), [(NRRD, ".nrrd"), (MHA, ".mha")])
def test_a_raw_file_of_another_length_is_an_error_at_once(
    make, ending: str, more: int, tmp_path: Path
) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(make(RAW[:more] if more < 0 else RAW + bytes(more)))

    with pytest.raises(TruncatedError if more < 0 else FormatError):
        open(path)


@pytest.mark.parametrize("data", [RAW, bytes(7) + RAW])
def test_voxels_beside_the_header_are_opened(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(data)
    (tmp_path / "a.nhdr").write_bytes(
        NRRD(b"", data_file="a.raw", byte_skip=str(len(data) - len(RAW)))
    )
    skip = len(data) - len(RAW)
    (tmp_path / "a.mhd").write_bytes(MHA(b"", ElementDataFile="a.raw", HeaderSize=str(skip)))

    for name in ("a.nhdr", "a.mhd"):
        _assert_same(open(tmp_path / name), tmp_path / name)


def test_text_and_packed_voxels_cannot_be_opened(tmp_path: Path) -> None:
    packed = {
        "text.nrrd": NRRD(test_text_headers.TEXT, encoding="ascii"),
        "gzip.nrrd": NRRD(gzip.compress(RAW), encoding="gzip"),
        "zlib.mha": MHA(zlib.compress(RAW), CompressedData="True"),
        "text.mha": MHA(test_text_headers.TEXT, BinaryData="False"),
    }
    for name, content in packed.items():
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name).shape == (1, 3, 4, 5)
        with pytest.raises(FormatError, match="uncompressed"):
            open(tmp_path / name)


def test_limits_hold_for_the_region_and_what_it_becomes(tmp_path: Path) -> None:
    voxels = np.zeros((100, 100, 100), "u1")
    (tmp_path / "a.nii").write_bytes(nifti(voxels, {"scl_slope": 0.5}))  # becomes float32
    lazy = open(tmp_path / "a.nii", limits=Limits(max_bytes=4000))

    assert lazy.read((0, 0, 0), (10, 10, 10)).data.dtype == torch.float32
    with pytest.raises(LimitError):
        lazy.read((0, 0, 0), (10, 10, 11))


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    content = nifti(np.zeros((4, 4, 4), "u8"))
    path.write_bytes(content[:-8] + b"\xff" * 8)  # the last voxel has no int64

    assert not open(path).read((0, 0, 0), (3, 4, 4)).data.any()
    with pytest.raises(FormatError, match="largest int64"):
        open(path).read((3, 3, 3), (1, 1, 1))


def test_an_open_file_is_pickled_and_noticed_to_change(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(nifti(np.arange(64, dtype="i2").reshape(4, 4, 4), {"scl_slope": 2}))
    lazy = pickle.loads(pickle.dumps(open(path)))
    assert lazy.read((3, 3, 3), (1, 1, 1)).data.item() == 126

    os.truncate(path, 400)
    with pytest.raises(FormatError, match="as it was when it was opened"):
        lazy.read((0, 0, 0), (1, 1, 1))
