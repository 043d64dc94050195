"""NumPy files: every type and order as NumPy reads it, no pickle, no bomb."""

import gzip
import io
import itertools
import pickle
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from medkit.data import (
    ChecksumError,
    CodecMissingError,
    DataError,
    FormatError,
    GeometryError,
    LimitError,
    Limits,
    TruncatedError,
    Volume,
    open,  # noqa: A004
    read,
    read_npy,
    read_npz,
    write,
    write_npz,
)
from unit.data.nifti_bytes import flip_bit
from unit.data.volumes import affine, volume

SHAPES = [(4, 5), (3, 4, 5), (2, 3, 4, 5)]
KINDS = ["?", "i1", "u1", "<i2", ">i2", "<u2", ">u4", "u8", "i8", "<f2", ">f4", "f8", "<c8", ">c16"]
WIDER = {"u2": "i4", "u4": "i8", "u8": "i8"}


def npy(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def forged(header: str, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header.encode("latin-1") + b"\n"
    width = 2 if version == b"\1\0" else 4
    return b"\x93NUMPY" + version + len(text).to_bytes(width, "little") + text + data


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zipped(method: int, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def _saved(content: bytes, folder: Path, name: str = "a.npy") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_does(kind: str, shape, order, tmp_path: Path) -> None:
    array = np.asarray((np.arange(np.prod(shape)) % 90).reshape(shape).astype(kind), order=order)
    path = _saved(npy(array), tmp_path)
    v, lazy = read(path), open(path)

    expected = np.load(path).reshape((1,) * (4 - len(shape)) + shape)
    plain = array.dtype.newbyteorder("=")
    assert v.data.numpy().dtype == WIDER.get(plain.str[1:], plain)
    assert np.array_equal(v.data.numpy(), expected)
    assert [notice.code for notice in v.warnings] == ["no_orientation"]
    start = (0, 1, 2)
    size = tuple(n - a for n, a in zip(v.spatial_shape, start, strict=True))
    region = lazy.read(start, size)
    assert region.data.dtype == v.data.dtype
    assert torch.equal(region.data, v.data[:, :, 1:, 2:])
    assert np.array_equal(region.affine, v.crop(start, size).affine)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_of_the_format(version, tmp_path: Path) -> None:
    array = np.arange(20).reshape(4, 5)

    assert np.array_equal(read(_saved(npy(array, version=version), tmp_path)).data[0, 0], array)


HEADERS = [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }",
    "{'shape':(2,3),'fortran_order':False,'descr':'|u1'}",
    "{ 'descr' : '|u1' , 'fortran_order' : False , 'shape' : (2L, 3L) , }   ",
]


@pytest.mark.parametrize("header", HEADERS)
def test_headers_that_others_write(header: str, tmp_path: Path) -> None:
    assert read(_saved(forged(header, bytes(6)), tmp_path)).shape == (1, 1, 2, 3)


def test_gzip_around_an_array(tmp_path: Path) -> None:
    array = np.arange(20).reshape(4, 5)
    path = _saved(gzip.compress(npy(array)), tmp_path)

    assert np.array_equal(read(path).data[0, 0], array)
    with pytest.raises(FormatError, match="uncompressed NIfTI"):
        open(path)


GOOD = npy(np.arange(60, dtype="i2").reshape(3, 4, 5))
OBJECTS = npy(np.array([[{}]], object), allow_pickle=True)
RECORDS = npy(np.zeros((2, 2), [("a", "i2")]))


def _header(**changes: str) -> bytes:
    items = {"descr": "'|u1'", "fortran_order": "False", "shape": "(2, 3)", **changes}
    return forged(
        "{" + ", ".join(f"'{key}': {value}" for key, value in items.items()) + "}", bytes(6)
    )


BAD: dict[str, tuple[bytes, type[DataError], str]] = {
    "cut by one byte": (GOOD[:-1], TruncatedError, "the file can hold"),
    "header only": (GOOD[:128], TruncatedError, "the file can hold"),
    "cut in the header": (GOOD[:50], TruncatedError, "npy header"),
    "cut in the magic": (GOOD[:8], TruncatedError, "at least 12 bytes"),
    "one byte more": (GOOD + b"x", FormatError, "the last voxel"),
    "gzip of a cut file": (gzip.compress(GOOD[:-1]), TruncatedError, "voxels"),
    "version 4": (GOOD[:6] + b"\4\0" + GOOD[8:], FormatError, "version"),
    "objects": (OBJECTS, FormatError, "unpickled"),
    "records": (RECORDS, FormatError, "descr, fortran_order and shape"),
    "long double": (_header(descr="'<f16'"), FormatError, "descr"),
    "text": (_header(descr="'<U4'"), FormatError, "a type of numbers"),
    "dates": (_header(descr="'<M8[ns]'"), FormatError, "a type of numbers"),
    "type with another character": (_header(descr="'<4\xb6i2'"), FormatError, "a type of numbers"),
    "types in a list": (_header(descr="'i2,i2'"), FormatError, "a type of numbers"),
    "type unknown": (_header(descr="'voxel'"), FormatError, "a type of numbers"),
    "code for a type": (_header(descr="__import__('os')"), FormatError, "a dict of"),
    "code for a shape": (_header(shape="(2, len('abc'))"), FormatError, "a dict of"),
    "shape of minus 1": (_header(shape="(-1, 3)"), FormatError, "a dict of"),
    "shape of a float": (_header(shape="(2.0, 3)"), FormatError, "a dict of"),
    "shape of 02": (_header(shape="(02, 3)"), FormatError, "a tuple of up to"),
    "space of latin-1": (_header(shape="(2, 3)\xa0"), FormatError, "a dict of"),
    "shape of gaps": (_header(shape="(2,,3)"), FormatError, "a tuple of up to"),
    "shape of spaces": (_header(shape="(2 3, 1)"), FormatError, "a tuple of up to"),
    "shape of 30 digits": (_header(shape=f"({'9' * 30}, 3)"), FormatError, "sizes below"),
    "order 1": (_header(fortran_order="'x'"), FormatError, "True or False"),
    "key missing": (forged("{'descr': '|u1', 'shape': (2, 3)}"), FormatError, "a dict of"),
    "key twice": (forged("{'descr': '|u1', 'descr': '|u1'}"), FormatError, "a dict of"),
    "no dict": (forged("(2, 3)"), FormatError, "a dict of"),
    "nested": (forged("{'shape': " + "(" * 900 + ")" * 900 + "}"), FormatError, "a dict of"),
    "long header": (forged("{" + " " * 20_000 + "}"), FormatError, "at most 10000"),
    "4 GiB header": (b"\x93NUMPY\2\0" + b"\xff" * 90, FormatError, "at most 10000"),
    "one axis": (npy(np.zeros(9)), FormatError, "with voxels"),
    "no axes": (npy(np.zeros(())), FormatError, "with voxels"),
    "no voxels": (npy(np.zeros((0, 3))), FormatError, "with voxels"),
    "1 EiB": (_header(shape="(1048576, 1048576, 1048576)"), LimitError, "at most"),
    "4 GB declared": (_header(shape="(1625, 1625, 1625)"), TruncatedError, "can hold"),
    "uint64 beyond int64": (npy(np.full((1, 2), 2**63, "u8")), FormatError, "2^63"),
}


READ_ONLY = {"gzip of a cut file", "uint64 beyond int64", "1 EiB"}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content, error, words = BAD[name]
    path = _saved(content, tmp_path)
    start = time.perf_counter()

    with pytest.raises(DataError) as caught:
        read(path)

    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("name", sorted(set(BAD) - READ_ONLY))
def test_bad_file_cannot_be_opened_either(name: str, tmp_path: Path) -> None:
    content, error, _ = BAD[name]
    with pytest.raises(error):
        open(_saved(content, tmp_path))


class Boom:
    """Would leave a mark if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    array = np.array([[Boom(mark)]], object)
    for name, content in (("a.npy", npy(array, allow_pickle=True)), ("b.npy", pickle.dumps(array))):
        with pytest.raises(FormatError):
            read(_saved(content, tmp_path, name))
    file = io.BytesIO()
    np.savez(file, image=array)
    with pytest.raises(FormatError):
        read(_saved(file.getvalue(), tmp_path, "c.npz"))
    assert not mark.exists()


# archives

KEPT = [torch.uint8, torch.int16, torch.float16, torch.complex64]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", KEPT, ids=str)
def test_an_archive_keeps_voxels_and_place(compress: bool, dtype, tmp_path: Path) -> None:
    v = volume(1, channels=2)
    v = v.like((v.data % 100).to(dtype))
    write_npz(v, tmp_path / "a.npz", compress=compress)
    back = read(tmp_path / "a.npz")

    expected = torch.float32 if dtype == torch.float16 else dtype
    assert torch.equal(back.data, v.data.to(expected))
    assert np.array_equal(back.affine, v.affine)
    assert back.warnings == ()
    with np.load(tmp_path / "a.npz") as arrays:
        assert np.array_equal(arrays["image"], v.data.numpy())
        assert np.array_equal(arrays["affine"], v.affine)
        assert np.array_equal(arrays["spacing"], v.spacing)


def test_unknown_orientation_stays_unknown(tmp_path: Path) -> None:
    v = read(_saved(npz(image=np.zeros((3, 4, 5)), spacing=np.array([3, 2, 1.0])), tmp_path))
    write(v, tmp_path / "b.npz")
    again = read(tmp_path / "b.npz")

    for known in (v, again):
        assert known.spacing == (3, 2, 1)
        assert [notice.code for notice in known.warnings] == ["no_orientation"]


def test_an_array_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = _saved(npz(a=np.zeros((2, 3)), b=np.ones((4, 5)), affine=affine(0)), tmp_path)

    assert read_npz(path, name="b").shape == (1, 1, 4, 5)
    for name in (None, "c"):
        with pytest.raises(FormatError, match=r"one of its arrays \(a, b\)"):
            read_npz(path, name=name)


@pytest.mark.parametrize("name", ["", "affine", "spacing", "file"])
def test_a_name_of_the_geometry_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name must be"):
        write_npz(volume(), tmp_path / "a.npz", name=name)


ARCHIVE = npz(image=np.arange(60, dtype="i2").reshape(3, 4, 5))
TWICE = zipped(zipfile.ZIP_STORED, ab=GOOD, ac=GOOD).replace(b"ac.npy", b"ab.npy")
EMPTY = npy(np.zeros((2**9,) * 3, "u1"))


BAD_NPZ: dict[str, tuple[bytes, type[DataError], str]] = {
    "voxel": (flip_bit(ARCHIVE, ARCHIVE.index(b"\x14\0\x15\0")), ChecksumError, "CRC"),
    "cut": (ARCHIVE[:-9], FormatError, "damage"),
    "cut in the middle": (ARCHIVE[:200], FormatError, "damage"),
    "magic only": (ARCHIVE[:4], FormatError, "damage"),
    "two of one name": (TWICE, FormatError, "different"),
    "bzip2": (zipped(zipfile.ZIP_BZIP2, a=GOOD), CodecMissingError, "method 12"),
    "lzma": (zipped(zipfile.ZIP_LZMA, a=GOOD), CodecMissingError, "method 14"),
    "no npy": (zipped(zipfile.ZIP_STORED, a=b"hello world!"), FormatError, "magic"),
    "array cut": (zipped(zipfile.ZIP_STORED, a=GOOD[:-1]), TruncatedError, "can hold"),
    "array with more": (zipped(zipfile.ZIP_DEFLATED, a=GOOD + b"x"), FormatError, "last voxel"),
    "affine of three rows": (
        npz(a=np.zeros((2, 2)), affine=np.eye(3)), GeometryError, "4 x 4"
    ),
    "affine nan": (npz(a=np.zeros((2, 2)), affine=np.eye(4) * np.nan), GeometryError, "finite"),
    "spacing of two": (npz(a=np.zeros((2, 2)), spacing=np.ones(2)), GeometryError, "three lengths"),
    "spacing 0": (npz(a=np.zeros((2, 2)), spacing=np.zeros(3)), GeometryError, "positive"),
    "empty": (b"PK\x05\x06" + bytes(18), FormatError, "known format"),
    "bomb": (zipped(zipfile.ZIP_DEFLATED, a=EMPTY), LimitError, "at most"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_NPZ)
def test_bad_archive_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content, error, words = BAD_NPZ[name]
    path = _saved(content, tmp_path, "a.npz")
    start = time.perf_counter()

    with pytest.raises(DataError) as caught:
        read(path, limits=Limits(max_bytes=2**26))

    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert time.perf_counter() - start < 1


def test_limits_hold_for_regions(tmp_path: Path) -> None:
    lazy = open(_saved(npy(np.zeros((20, 20, 20), "u2")), tmp_path), limits=Limits(max_bytes=4000))

    assert lazy.read((0, 0, 0), (10, 10, 10)).data.dtype == torch.int32
    with pytest.raises(LimitError, match="at most 4000 bytes"):
        lazy.read((0, 0, 0), (11, 10, 10))


def test_a_file_that_changes_later_is_an_error(tmp_path: Path) -> None:
    lazy = open(_saved(npy(np.zeros((20, 20))), tmp_path))
    _saved(npy(np.zeros((20, 21))), tmp_path)

    with pytest.raises(FormatError, match="open it again"):
        lazy.read((0, 0, 0), (1, 1, 1))


def test_zero_bytes_in_verification_are_not_skipped(tmp_path: Path) -> None:
    path = _saved(GOOD + b"\0", tmp_path)

    assert read_npy(path, verify=False).shape == (1, 3, 4, 5)
    with pytest.raises(FormatError, match="the last voxel"):
        read_npy(path)


def test_volumes_without_a_place_are_pickled(tmp_path: Path) -> None:
    lazy = pickle.loads(pickle.dumps(open(_saved(GOOD, tmp_path))))

    assert isinstance(lazy.read((0, 0, 0), (3, 4, 5)), Volume)


def test_an_entry_that_hides_the_next_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_npz(volume(2), path)
    content = bytearray(path.read_bytes())
    entries = [at for at in range(len(content)) if content[at : at + 4] == b"PK\1\2"]
    assert len(entries) == 3
    for first, second in itertools.pairwise(entries):
        for field in (30, 32):  # lengths of what follows the name: extra field, comment
            hidden = bytearray(content)
            hidden[first + field : first + field + 2] = (second - first).to_bytes(2, "little")
            path.write_bytes(hidden)
            with pytest.raises(FormatError):
                read_npz(path, name="image")
