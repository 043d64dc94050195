"""NRRD and MetaImage files mean what SimpleITK says, ours are read by it, odd ones are refused."""

import bz2
import gzip
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import medkit.data as mdata
from medkit.data import (
    ChecksumError,
    DataError,
    FormatError,
    GeometryError,
    LimitError,
    Limits,
    TruncatedError,
    UnsafeReferenceError,
    Volume,
    read,
    write,
    write_mha,
    write_nrrd,
)
from medkit.ops import corner_indices, transform_points
from medkit.testing import assert_close
from unit.data.nifti_bytes import flip_bit
from unit.data.volumes import affine, volume

KINDS = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"]
WIDER = {"u2": "i4", "u4": "i8"}
VOXELS = np.arange(60, dtype="<i2").reshape(3, 4, 5)
RAW = VOXELS.tobytes()


def nrrd(data: bytes = RAW, **fields: str | None) -> bytes:
    """A file of VOXELS; ``fields`` replace those of the header, None leaves one out."""
    header = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "5 4 3",
        "space_directions": "(2,0,0) (0,3,0) (0,0,4)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space_origin": "(10,20,30)",
        **fields,
    }
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in header.items() if value]
    return "\n".join(["NRRD0004", "# made by a test", *lines]).encode() + b"\n\n" + data


def mha(data: bytes = RAW, **fields: str | None) -> bytes:
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "10 20 30",
        "ElementSpacing": "2 3 4",
        "DimSize": "5 4 3",
        "ElementType": "MET_SHORT",
        **fields,
        "ElementDataFile": fields.get("ElementDataFile", "LOCAL"),
    }
    last = header.pop("ElementDataFile")
    lines = [f"{key} = {value}" for key, value in header.items() if value]
    return "\n".join([*lines, f"ElementDataFile = {last}"]).encode() + b"\n" + data


PLACE = np.array([[0, 0, -2, -10], [0, -3, 0, -20], [4, 0, 0, 30], [0, 0, 0, 1.0]])
"""From (d, h, w) to RAS+ mm, for both headers above."""


def _saved(content: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# beside ITK


def _itk_image(kind: str, channels: int, seed: int):
    sitk = pytest.importorskip("SimpleITK")
    shape = (3, 4, 5, channels) if channels > 1 else (3, 4, 5)
    array = (np.arange(np.prod(shape)) % 120).reshape(shape).astype(kind)
    image = sitk.GetImageFromArray(array, channels > 1)
    generator = np.random.default_rng(seed)
    image.SetSpacing(generator.uniform(0.3, 5, 3).tolist())
    image.SetOrigin(generator.uniform(-200, 200, 3).tolist())
    image.SetDirection(np.linalg.qr(generator.normal(size=(3, 3)))[0].ravel().tolist())
    return sitk, image, np.moveaxis(array, -1, 0) if channels > 1 else array[None]


def _assert_same_place(image, v: Volume) -> None:
    for d, h, w in corner_indices(v.spatial_shape).tolist():
        left, posterior, superior = image.TransformIndexToPhysicalPoint((w, h, d))
        ours = transform_points(v.affine, np.array([d, h, w]))
        assert_close(np.array([-left, -posterior, superior]), ours, atol=1e-9 * 1000)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_itk_writes_is_read(suffix: str, compress: bool, kind: str, tmp_path: Path) -> None:
    for channels in (1, 3):
        sitk, image, array = _itk_image(kind, channels, seed=channels)
        path = tmp_path / f"a{channels}{suffix}"
        sitk.WriteImage(image, str(path), compress)
        v = read(path)

        assert v.data.numpy().dtype == WIDER.get(kind, kind)
        assert np.array_equal(v.data.numpy(), array)
        _assert_same_place(image, v)
        assert v.warnings == ()


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in WIDER])
def test_itk_reads_what_is_written(suffix: str, compress: bool, kind: str, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    for channels in (1, 3):
        v = volume(channels, channels=channels)
        v = v.like(torch.as_tensor(v.data.numpy().astype(kind)))
        path = tmp_path / f"a{suffix}"
        (write_mha if suffix == ".mha" else write_nrrd)(v, path, compress=compress)
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)

        expected = np.moveaxis(v.data.numpy(), 0, -1) if channels > 1 else v.data.numpy()[0]
        assert array.dtype == kind
        assert np.array_equal(array, expected)
        _assert_same_place(image, v)
        back = read(path)
        assert torch.equal(back.data, v.data)
        assert_close(back.affine.copy(), v.affine.copy(), rtol=1e-12, atol=1e-12)


def test_itk_reads_a_plane_as_we_do(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(VOXELS[0])
    image.SetSpacing((0.5, 2.0))
    image.SetOrigin((7.0, -3.0))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    v = read(tmp_path / "a.mha")

    assert np.array_equal(v.data[0, 0].numpy(), VOXELS[0])
    assert v.spacing == (1, 2, 0.5)
    assert v.affine[:, 3].tolist() == [-7, 3, 0, 1]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_a_header_of_its_own_is_read_by_itk(
    suffix: str, channels: int, compress: bool, tmp_path: Path
) -> None:
    sitk = pytest.importorskip("SimpleITK")
    v = volume(1, channels=channels)
    path = tmp_path / f"a{suffix}"
    (write_mha if suffix == ".mhd" else write_nrrd)(v, path, compress=compress)
    image = sitk.ReadImage(str(path))

    array = np.moveaxis(v.data.numpy(), 0, -1) if channels > 1 else v.data.numpy()[0]
    assert np.array_equal(sitk.GetArrayFromImage(image), array)
    _assert_same_place(image, v)
    assert torch.equal(read(path).data, v.data)
    assert len(list(tmp_path.iterdir())) == 2
    write(v.like(v.data + 1), path)
    assert torch.equal(read(path).data, v.data + 1)


def test_a_header_never_stands_beside_the_voxels_of_another(tmp_path: Path, monkeypatch) -> None:
    write_mha(volume(), tmp_path / "a.mhd", compress=False)
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.suffix == ".mhd":
            raise OSError("no space left")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_mha(volume(), tmp_path / "a.mhd", compress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.raw"]


@pytest.mark.parametrize("compress", [False, True])
def test_a_fourth_axis_becomes_the_channels(compress: bool, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    array = np.arange(120, dtype="i2").reshape(2, 3, 4, 5)
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing((0.5, 2, 3, 9))
    image.SetOrigin((7, -3, 5, 1))
    turn = np.eye(4)
    turn[:3, :3] = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    image.SetDirection(turn.ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "a.mha"), compress)
    v = read(tmp_path / "a.mha")

    assert np.array_equal(v.data.numpy(), array)
    _assert_same_place(image[..., 0], v)
    if not compress:
        region = mdata.open(tmp_path / "a.mha").read((1, 2, 0), (2, 1, 4))
        assert torch.equal(region.data, v.data[:, 1:3, 2:3, :4])


def test_pynrrd_agrees_about_encodings(tmp_path: Path) -> None:
    nrrd_package = pytest.importorskip("nrrd")
    for encoding in ("raw", "gzip", "bzip2", "ascii"):
        path = str(tmp_path / f"{encoding}.nrrd")
        nrrd_package.write(path, VOXELS, {"encoding": encoding}, index_order="C")
        assert np.array_equal(read(path).data[0].numpy(), VOXELS)


def test_a_sheared_grid_needs_nrrd(tmp_path: Path) -> None:
    v = volume(shear=0.2)
    write(v, tmp_path / "a.nrrd")
    assert_close(read(tmp_path / "a.nrrd").affine.copy(), v.affine.copy(), rtol=1e-12, atol=1e-12)
    with pytest.raises(GeometryError, match="at right angles"):
        write(v, tmp_path / "a.mha")


@pytest.mark.parametrize("writer", [write_mha, write_nrrd])
def test_types_without_a_name_are_stored_in_another_or_refused(writer, tmp_path: Path) -> None:
    v = volume()
    for dtype, stored in ((torch.bool, torch.uint8), (torch.bfloat16, torch.float32)):
        writer(v.like(v.data.to(dtype)), tmp_path / "a")
        assert torch.equal(read(tmp_path / "a").data, v.data.to(dtype).to(stored))
    with pytest.raises(ValueError, match="data must be of real numbers"):
        writer(v.like(v.data.to(torch.complex64)), tmp_path / "a")


# odd files

BIG = VOXELS.astype(">i2").tobytes()
TEXT = " ".join(map(str, VOXELS.ravel())).encode()
GOOD: dict[str, bytes] = {
    "nrrd": nrrd(),
    "nrrd big": nrrd(BIG, endian="big"),
    "nrrd gzip": nrrd(gzip.compress(RAW), encoding="gzip"),
    "nrrd gz in members": nrrd(gzip.compress(RAW[:9]) + gzip.compress(RAW[9:]), encoding="gz"),
    "nrrd bzip2": nrrd(bz2.compress(RAW), encoding="bzip2"),
    "nrrd bz2 in streams": nrrd(bz2.compress(RAW[:9]) + bz2.compress(RAW[9:]), encoding="bz2"),
    "nrrd hex": nrrd(RAW.hex("\n", 16).encode() + b"\n", encoding="hex"),
    "nrrd text": nrrd(TEXT + b"\n", encoding="ascii", endian=None),
    "nrrd crlf": nrrd(b"").replace(b"\n", b"\r\n") + RAW,
    "nrrd version 1": nrrd().replace(b"NRRD0004", b"NRRD0001"),
    "nrrd byte skip": nrrd(b"xyz" + RAW, byte_skip="3"),
    "nrrd byte skip -1": nrrd(b"anything" + RAW, byte_skip="-1"),
    "nrrd line skip": nrrd(b"a line\nanother\n" + RAW, line_skip="2"),
    "nrrd both skips": nrrd(b"a line\nxy" + RAW, line_skip="1", byte_skip="2"),
    "nrrd gzip skip": nrrd(gzip.compress(b"xyz" + RAW), encoding="gzip", byte_skip="3"),
    "nrrd own keys": nrrd().replace(b"\ntype", b"\nwho:=me: and you\ntype"),
    "nrrd LPS": nrrd(space="LPS"),
    "nrrd RAS": nrrd(
        space="RAS", space_directions="(-2,0,0) (0,-3,0) (0,0,4)", space_origin="(-10,-20,30)"
    ),
    "nrrd other space": nrrd(
        space="superior-anterior-right",
        space_directions="(0,0,-2) (0,-3,0) (4,0,0)",
        space_origin="(30,-20,-10)",
    ),
    "nrrd cm": nrrd(
        space_units='"cm" "cm" "cm"',
        space_directions="(.2,0,0) (0,.3,0) (0,0,.4)",
        space_origin="(1,2,3)",
    ),
    "mha": mha(),
    "mha big": mha(BIG, BinaryDataByteOrderMSB="True"),
    "mha ElementByteOrderMSB": mha(BIG, BinaryDataByteOrderMSB=None, ElementByteOrderMSB="True"),
    "mha zlib": mha(zlib.compress(RAW), CompressedData="True"),
    "mha text": mha(TEXT, BinaryData="False"),
    "mha comment": b"Comment = a scan\n" + mha(),
    "mha old names": mha(Offset=None, Position="10 20 30", TransformMatrix=None),
    "mha one channel": mha(ElementNumberOfChannels="1"),
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_file_is_read_exactly(name: str, tmp_path: Path) -> None:
    v = read(_saved(GOOD[name], tmp_path, "a"))

    assert np.array_equal(v.data[0].numpy(), VOXELS)
    assert_close(v.affine.copy(), PLACE, atol=1e-12)
    assert v.warnings == ()


NOWHERE = {"space": None, "space_directions": None, "space_origin": None}


@pytest.mark.parametrize(
    ("fields", "spacing", "code"),
    [
        (NOWHERE, (1, 1, 1), "no_orientation"),
        ({**NOWHERE, "spacings": "2 3 4"}, (4, 3, 2), "no_orientation"),
        ({"space": "scanner-xyz"}, (4, 3, 2), "no_orientation"),
        ({"space": None, "space_dimension": "3"}, (4, 3, 2), "no_orientation"),
    ],
)  # fmt: skip
def test_a_space_without_a_name_is_no_place(fields, spacing, code: str, tmp_path: Path) -> None:
    v = read(_saved(nrrd(**fields), tmp_path, "a"))

    assert v.spacing == spacing
    assert [notice.code for notice in v.warnings] == [code]
    write(v, tmp_path / "b.nrrd")
    again = read(tmp_path / "b.nrrd")
    assert (again.spacing, again.warnings[0].code) == (spacing, code)


@pytest.mark.parametrize("axis", range(4))
def test_channels_of_nrrd_may_stand_anywhere(axis: int, tmp_path: Path) -> None:
    array = np.arange(120, dtype="<i2").reshape(2, 3, 4, 5)
    stored = np.moveaxis(array, 0, 3 - axis)
    directions = ["(2,0,0)", "(0,3,0)", "(0,0,4)"]
    directions.insert(axis, "none")
    content = nrrd(
        stored.tobytes(),
        dimension="4",
        sizes=" ".join(map(str, reversed(stored.shape))),
        space_directions=" ".join(directions),
        kinds=None,
    )
    v = read(_saved(content, tmp_path, "a"))

    assert np.array_equal(v.data.numpy(), array)
    assert_close(v.affine.copy(), PLACE, atol=1e-12)


def test_a_plane_in_space_states_no_thickness(tmp_path: Path) -> None:
    content = nrrd(
        RAW[:40], dimension="2", sizes="5 4", kinds=None, space_directions="(2,0,0) (0,0,4)"
    )
    v = read(_saved(content, tmp_path, "a"))

    assert v.shape == (1, 1, 4, 5)
    assert v.spacing == (1, 4, 2)
    assert [notice.code for notice in v.warnings] == ["no_thickness"]


def test_data_beside_the_header_are_read(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    _saved(RAW, tmp_path, "parts/a.raw")
    _saved(zlib.compress(RAW), tmp_path, "a.zraw")
    _saved(gzip.compress(RAW), tmp_path, "a.raw.gz")
    headers = {
        "a.nhdr": nrrd(b"", data_file="parts/a.raw"),
        "b.nhdr": nrrd(b"", data_file="./a.raw.gz", encoding="gzip"),
        "c.nhdr": nrrd(b"", datafile="parts/a.raw").strip(),
        "a.mhd": mha(b"", ElementDataFile="parts/a.raw"),
        "b.mhd": mha(b"", ElementDataFile="a.zraw", CompressedData="True"),
    }
    for name, content in headers.items():
        v = read(_saved(content, tmp_path, name))
        assert np.array_equal(v.data[0].numpy(), VOXELS)


ELSEWHERE = [
    "../a.raw", "/etc/passwd", "x/../../a.raw", "link", "..\\a.raw", "~x/../../y", "fold/a.raw",
]  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("header", ["nrrd", "mha"])
def test_data_elsewhere_are_refused(name: str, header: str, tmp_path: Path) -> None:
    _saved(RAW, tmp_path, "a.raw")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "a.raw")
    (folder / "fold").symlink_to(tmp_path)
    content = nrrd(b"", data_file=name) if header == "nrrd" else mha(b"", ElementDataFile=name)

    with pytest.raises(UnsafeReferenceError, match="inside the folder of the header"):
        read(_saved(content, folder, "a"))


def mha4(**fields: str) -> bytes:
    turn = "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"
    four = {"NDims": "4", "DimSize": "5 2 3 2", "TransformMatrix": turn}
    return mha(**{**four, "Offset": "10 20 30 0", "ElementSpacing": "2 3 4 9", **fields})


BZ2 = bz2.compress(RAW)
HEX = RAW.hex().encode()
HUGE = "1000000 1000000 1000000"
GZ = gzip.compress(RAW)
BAD: dict[str, tuple[bytes, type[DataError], str]] = {
    "nrrd cut": (nrrd(RAW[:-1]), TruncatedError, "all that the file can hold"),
    "nrrd with more": (nrrd(RAW + b"x"), FormatError, "last voxel"),
    "nrrd gzip CRC": (nrrd(flip_bit(GZ, -6), encoding="gzip"), ChecksumError, "CRC-32"),
    "nrrd gzip cut": (nrrd(GZ[:-9], encoding="gzip"), TruncatedError, "gzip"),
    "nrrd gzip of more": (nrrd(gzip.compress(RAW + b"x"), encoding="gzip"), FormatError, "last"),
    "nrrd gzip of less": (nrrd(gzip.compress(RAW[1:]), encoding="gzip"), TruncatedError, "voxels"),
    "nrrd text of less": (nrrd(b"1 2 3", encoding="text"), TruncatedError, "60 numbers"),
    "nrrd text of more": (nrrd(TEXT + b" 7", encoding="text"), FormatError, "60 numbers"),
    "nrrd text too large": (nrrd(TEXT[:-2] + b"99999", encoding="text"), FormatError, "int16"),
    "nrrd text of letters": (nrrd(TEXT[:-2] + b"ab", encoding="text"), FormatError, "int16"),
    "nrrd no end": (nrrd().split(b"\n\n")[0], TruncatedError, "empty line"),
    "nrrd version 9": (nrrd().replace(b"NRRD0004", b"NRRD0009"), FormatError, "magic"),
    "nrrd huge": (nrrd(sizes=HUGE), LimitError, "at most"),
    "nrrd 4 GB": (nrrd(sizes="1000 1000 2000"), TruncatedError, "can hold"),
    "nrrd 4 GB of gzip": (nrrd(GZ, sizes="1000 1000 2000", encoding="gzip"), TruncatedError, "can"),
    "nrrd size 0": (nrrd(sizes="5 0 3"), FormatError, "positive"),
    "nrrd size -1": (nrrd(sizes="5 -4 3"), FormatError, "whole numbers"),
    "nrrd two sizes": (nrrd(sizes="5 4"), FormatError, "3 whole numbers"),
    "nrrd no sizes": (nrrd(sizes=None), FormatError, "there"),
    "nrrd dimension x": (nrrd(dimension="x"), FormatError, "dimension"),
    "nrrd block": (nrrd(type="block"), FormatError, "a type of numbers"),
    "nrrd no endian": (nrrd(endian=None), FormatError, "endian"),
    "nrrd endian middle": (nrrd(endian="middle"), FormatError, "little or big"),
    "nrrd bzip2 of nothing": (nrrd(b"", encoding="bzip2"), TruncatedError, "bzip2 stream"),
    "nrrd bzip2 cut": (nrrd(BZ2[:-1], encoding="bzip2"), TruncatedError, "bzip2 stream"),
    "nrrd bzip2 of less": (nrrd(bz2.compress(RAW[1:]), encoding="bz2"), TruncatedError, "voxels"),
    "nrrd bzip2 of more": (nrrd(bz2.compress(RAW + b"x"), encoding="bz2"), FormatError, "last"),
    "nrrd bzip2 CRC": (nrrd(flip_bit(BZ2, -6), encoding="bzip2"), FormatError, "a valid bzip2"),
    "nrrd no bzip2": (nrrd(RAW, encoding="bzip2"), FormatError, "a valid bzip2"),
    "nrrd hex of less": (nrrd(HEX[:-2], encoding="hex"), TruncatedError, "120 bytes"),
    "nrrd hex of few": (nrrd(b"00", encoding="hex"), TruncatedError, "120 bytes"),
    "nrrd hex of more": (nrrd(HEX + b"00", encoding="hex"), FormatError, "120 bytes"),
    "nrrd hex of letters": (nrrd(HEX[:-1] + b"x", encoding="hex"), FormatError, "digits"),
    "nrrd encoding x": (nrrd(encoding="x"), FormatError, "raw, gzip, bzip2, text or hex"),
    "nrrd line": (nrrd().replace(b"\ntype: ", b"\ntype "), FormatError, "line of the header"),
    "nrrd line twice": (nrrd().replace(b"\ntype", b"\ntype: int\ntype"), FormatError, "a new"),
    "nrrd list": (nrrd(b"", data_file="LIST"), FormatError, "one file"),
    "nrrd pattern": (nrrd(b"", data_file="a%03d.raw 1 9 1"), FormatError, "one file"),
    "nrrd skip -2": (nrrd(byte_skip="-2"), FormatError, "byte skip"),
    "nrrd skip beyond": (nrrd(byte_skip="999"), TruncatedError, "can hold"),
    "nrrd skip -1 of gzip": (nrrd(GZ, byte_skip="-1", encoding="gzip"), FormatError, "byte skip"),
    "nrrd space xyzt": (nrrd(space="left-posterior-superior-time"), FormatError, "three"),
    "nrrd space twice": (nrrd(space="left-right-superior"), FormatError, "three directions"),
    "nrrd vectors of 2": (nrrd(space_directions="(1,0) (0,1) (1,1)"), FormatError, "3 numbers"),
    "nrrd two vectors": (nrrd(space_directions="(1,0,0) (0,1,0)"), FormatError, "3 vectors"),
    "nrrd vector of letters": (
        nrrd(space_directions="(a,0,0) (0,1,0) (0,0,1)"), FormatError, "numbers"
    ),
    "nrrd vector nan": (
        nrrd(space_directions="(nan,0,0) (0,1,0) (0,0,1)"), GeometryError, "finite"
    ),
    "nrrd flat": (nrrd(space_directions="(1,0,0) (1,0,0) (0,0,1)"), GeometryError, "invertible"),
    "nrrd none twice": (nrrd(space_directions="none none (0,0,1)"), FormatError, "axes"),
    "nrrd five axes": (
        nrrd(dimension="5", sizes="5 4 3 1 1", space_directions=None, space=None, kinds=None),
        FormatError, "axes",
    ),
    "nrrd miles": (nrrd(space_units='"mile" "mile" "mile"'), FormatError, "space units"),
    "nrrd spacing 0": (
        nrrd(space=None, space_directions=None, spacings="0 1 1"), GeometryError, "positive"
    ),
    "mha cut": (mha(RAW[:-1]), TruncatedError, "can hold"),
    "mha with more": (mha(RAW + b"x"), FormatError, "last voxel"),
    "mha Adler": (
        mha(flip_bit(zlib.compress(RAW), -2), CompressedData="True"), ChecksumError, "Adler-32"
    ),
    "mha zlib cut": (mha(zlib.compress(RAW)[:-5], CompressedData="True"), TruncatedError, "zlib"),
    "mha no end": (mha(b"").replace(b"ElementDataFile", b"x"), TruncatedError, "ElementDataFile"),
    "mha huge": (mha(DimSize=HUGE), LimitError, "at most"),
    "mha 4 GB": (mha(DimSize="1000 1000 2000"), TruncatedError, "can hold"),
    "mha size 0": (mha(DimSize="5 0 3"), FormatError, "whole and positive"),
    "mha size 1.5": (mha(DimSize="5 1.5 3"), FormatError, "whole and positive"),
    "mha size nan": (mha(DimSize="5 nan 3"), FormatError, "finite"),
    "mha two sizes": (mha(DimSize="5 4"), FormatError, "3 finite numbers"),
    "mha 5 axes": (mha(NDims="5", DimSize="5 4 3 1 1"), FormatError, "2 to 4"),
    "mha 4 axes of 3 numbers": (mha(NDims="4", DimSize="5 4 3 1"), FormatError, "16 finite"),
    "mha 4 axes of channels": (mha4(ElementNumberOfChannels="2"), FormatError, "1 where"),
    "mha space and time": (
        mha4(TransformMatrix="1 0 0 1 0 1 0 0 0 0 1 0 0 0 0 1"), FormatError, "apart"
    ),
    "mha axes x": (mha(NDims="x"), FormatError, "NDims"),
    "mha text for numbers": (mha(Offset="a b c"), FormatError, "numbers"),
    "mha offset nan": (mha(Offset="nan 0 0"), FormatError, "finite"),
    "mha spacing 0": (mha(ElementSpacing="0 1 1"), GeometryError, "positive"),
    "mha flat": (mha(TransformMatrix="1 0 0 1 0 0 0 0 1"), GeometryError, "invertible"),
    "mha type": (mha(ElementType="MET_OTHER"), FormatError, "ElementType"),
    "mha flag": (mha(CompressedData="Perhaps"), FormatError, "True or False"),
    "mha mesh": (mha(ObjectType="Mesh"), FormatError, "ObjectType"),
    "mha list": (mha(b"", ElementDataFile="LIST"), FormatError, "one file"),
    "mha pattern": (mha(b"", ElementDataFile="a%d.raw 1 3 1"), FormatError, "one file"),
    "mha twice": (mha().replace(b"NDims", b"NDims = 2\nNDims"), FormatError, "a new"),
    "mha channels 0": (mha(ElementNumberOfChannels="0"), FormatError, "1..65536"),
    "mha skip": (mha(HeaderSize="3"), FormatError, "HeaderSize"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content, error, words = BAD[name]
    path = _saved(content, tmp_path, "a")
    start = time.perf_counter()

    with pytest.raises(DataError) as caught:
        read(path)

    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert time.perf_counter() - start < 1


def test_limits_hold_for_widened_types(tmp_path: Path) -> None:
    content = nrrd(RAW, type="ushort")
    assert (
        read(_saved(content, tmp_path, "a"), limits=Limits(max_bytes=240)).data.dtype == torch.int32
    )
    with pytest.raises(LimitError, match="at most 239 bytes"):
        read(tmp_path / "a", limits=Limits(max_bytes=239))


def test_a_missing_data_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(_saved(mha(b"", ElementDataFile="a.raw"), tmp_path, "a.mhd"))


def test_affines_of_both_hands_survive(tmp_path: Path) -> None:
    for seed in range(6):
        v = Volume(volume().data, affine(seed))
        for suffix in (".mha", ".nrrd"):
            write(v, tmp_path / f"a{suffix}")
            assert_close(read(tmp_path / f"a{suffix}").affine.copy(), v.affine.copy(), atol=1e-12)
