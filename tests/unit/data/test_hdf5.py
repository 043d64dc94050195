"""Volumes in HDF5: exact, checked, never outside of the file, and readable by region anywhere."""

import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from medkit.data import (
    ChecksumError,
    DataError,
    FormatError,
    GeometryError,
    HDF5Reader,
    LimitError,
    Limits,
    TruncatedError,
    UnsafeReferenceError,
    Volume,
    open,  # noqa: A004
    read,
    read_hdf5,
    write,
    write_hdf5,
    write_nifti,
)
from medkit.testing import assert_close
from unit.data.volumes import affine, volume

METHODS = ["fork", "forkserver", "spawn"] if sys.platform == "linux" else ["spawn"]
DTYPES = [
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32,
    torch.float64, torch.complex64, torch.complex128, torch.bool,
]  # fmt: skip


def _made(path: Path, make: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        make(file)
    return path


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("chunk", [None, 2, 64])
def test_what_is_written_is_read(dtype: torch.dtype, chunk: int | None, tmp_path: Path) -> None:
    v = volume(3, channels=2)
    v = v.like(v.data % 2 == 0 if dtype == torch.bool else (v.data % 100).to(dtype))
    write_hdf5(v, tmp_path / "a.h5", chunk=chunk, checksum=chunk is not None)
    back = read(tmp_path / "a.h5")

    assert back.data.dtype == dtype
    assert torch.equal(back.data, v.data)
    assert np.array_equal(back.affine, v.affine)
    assert back.warnings == ()
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["image"][()], v.data.numpy())
        assert np.array_equal(file["image"].attrs["affine"], v.affine)
        assert_close(file["image"].attrs["spacing"], np.array(v.spacing))
        assert file["image"].fletcher32 == (chunk is not None)


def test_bfloat16_is_stored_as_float32(tmp_path: Path) -> None:
    v = volume().like(volume().data.to(torch.bfloat16))
    write_hdf5(v, tmp_path / "a.h5")

    assert torch.equal(read_hdf5(tmp_path / "a.h5").data, v.data.float())


def test_compact_types_are_exact_or_refused(tmp_path: Path, unhooked) -> None:
    v = volume().like(volume().data.abs() % 200)
    write_hdf5(v, tmp_path / "a.h5", dtype="uint8")
    assert read_hdf5(tmp_path / "a.h5").data.dtype == torch.uint8
    with pytest.raises(ValueError, match="able to hold every voxel"):
        write_hdf5(v.like(v.data + 200), tmp_path / "a.h5", dtype="uint8")
    with pytest.raises(ValueError, match="dtype must be one of"):
        write_hdf5(v, tmp_path / "a.h5", dtype="S1")


@pytest.mark.parametrize(("stored", "expected"), [("u2", "i4"), ("u4", "i8"), ("u8", "i8")])
def test_unsigned_types_are_widened(stored: str, expected: str, tmp_path: Path) -> None:
    path = _made(tmp_path / "a", lambda f: f.create_dataset("x", data=np.array([[1, 200]], stored)))

    assert read(path).data.numpy().dtype == expected


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (2, 3, 4, 5)])
def test_arrays_of_two_to_four_axes_are_volumes(
    shape: tuple[int, ...], order: str, tmp_path: Path
) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(f"{order}i2")
    v = read(_made(tmp_path / "a", lambda f: f.create_dataset("x", data=array)))

    assert v.shape == (1,) * (4 - len(shape)) + shape
    assert np.array_equal(v.data.reshape(shape).numpy(), array)
    assert [notice.code for notice in v.warnings] == ["no_orientation"]
    assert v.spacing == (1, 1, 1)


def test_spacing_alone_leaves_the_orientation_unknown(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        file["x"] = np.zeros((3, 4, 5))
        file["x"].attrs["spacing"] = [3.0, 2.0, 1.0]

    v = read(_made(tmp_path / "a", make))
    assert v.spacing == (3, 2, 1)
    write(v, tmp_path / "b.h5")
    again = read(tmp_path / "b.h5")

    assert [notice.code for notice in again.warnings] == ["no_orientation"]
    assert again.spacing == (3, 2, 1)


def test_an_array_is_chosen_by_its_path(tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        file["images"] = np.ones((3, 4, 5))
        file["layers/ILM"] = np.zeros((3, 5))
        file["names"] = [b"a", b"b"]

    path = _made(tmp_path / "oct.h5", make)

    assert read_hdf5(path, name="layers/ILM").shape == (1, 1, 3, 5)
    assert read_hdf5(path, name="/images").shape == (1, 3, 4, 5)
    for name in (None, "layers", "missing"):
        with pytest.raises(FormatError, match=r"one of its arrays \(images, layers/ILM\)"):
            read_hdf5(path, name=name)
    with pytest.raises(FormatError, match="with voxels"):
        read_hdf5(path, name="names")


def _external(file: h5py.File) -> None:
    file.create_dataset("x", (4, 4), "u1", external=[("/etc/passwd", 0, 16)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 4), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4, 4))
    file.create_virtual_dataset("x", layout)


def _deep(link: object) -> Callable[[h5py.File], None]:
    def make(file: h5py.File) -> None:
        file["image"] = np.zeros((4, 4))
        file.create_group("a/b")["c"] = link

    return make


UNSAFE = {
    "external storage": _external,
    "virtual array": _virtual,
    "external link": _deep(h5py.ExternalLink("/etc/passwd", "/")),
    "soft link": _deep(h5py.SoftLink("/image")),
    "soft link to nowhere": _deep(h5py.SoftLink("/../../x")),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_nothing_leads_out_of_the_file(name: str, tmp_path: Path) -> None:
    path = _made(tmp_path / "a.h5", UNSAFE[name])

    for reader in (read, open, HDF5Reader, lambda path: read_hdf5(path, name="image")):
        with pytest.raises(UnsafeReferenceError, match=r"a\.h5: "):
            reader(path)


def _attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    def make(file: h5py.File) -> None:
        file["x"] = np.zeros((3, 4, 5), "u1")
        file["x"].attrs[name] = value

    return make


BAD: dict[str, tuple[Callable[[h5py.File], object], type[DataError], str]] = {
    "no arrays": (lambda f: f.create_group("g"), FormatError, "none at all"),
    "one axis": (lambda f: f.create_dataset("x", data=[1]), FormatError, "with voxels"),
    "five axes": (
        lambda f: f.create_dataset("x", data=np.zeros((1,) * 5)), FormatError, "with voxels"
    ),
    "no voxels": (
        lambda f: f.create_dataset("x", data=np.zeros((0, 4))), FormatError, "with voxels"
    ),
    "4 TiB": (
        lambda f: f.create_dataset("x", (2**20, 2**22), "u1", chunks=(1, 2**10)),
        LimitError, "at most",
    ),
    "never written": (
        lambda f: f.create_dataset("x", (9, 9), "u1", chunks=(3, 3)), TruncatedError, "chunks"
    ),
    "affine of three rows": (_attribute("affine", np.eye(3)), GeometryError, "4 x 4"),
    "affine of text": (_attribute("affine", "none"), FormatError, "numbers"),
    "affine nan": (_attribute("affine", np.full((4, 4), np.nan)), GeometryError, "finite"),
    "affine flat": (_attribute("affine", np.diag([1, 1, 0, 1.0])), GeometryError, "invertible"),
    "affine of a billion": (_attribute("affine", np.zeros(99)), LimitError, "at most 16"),
    "spacing 0": (_attribute("spacing", [1.0, 0, 1]), GeometryError, "positive"),
    "spacing of two": (_attribute("spacing", [1.0, 1]), GeometryError, "three lengths"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, error, words = BAD[name]
    path = _made(tmp_path / "a.h5", make)
    start = time.perf_counter()

    with pytest.raises(DataError) as caught:
        read(path)

    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert time.perf_counter() - start < 1


def test_sizes_are_held_against_the_limits(tmp_path: Path) -> None:
    write_hdf5(volume(), tmp_path / "a.h5", chunk=2)
    limits = Limits(max_bytes=64)

    with pytest.raises(LimitError, match="at most 64 bytes"):
        read(tmp_path / "a.h5", limits=limits)
    lazy = open(tmp_path / "a.h5", limits=limits)
    assert lazy.read((0, 0, 0), (2, 2, 2)).shape == (1, 2, 2, 2)
    with pytest.raises(LimitError, match="at most 64 bytes"):
        lazy.read((0, 0, 0), lazy.spatial_shape)


def test_a_flipped_voxel_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    v = volume().like(torch.full((1, *volume().spatial_shape), 17, dtype=torch.int16))
    path = tmp_path / "a.h5"
    write_hdf5(v, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\x11\0" * 20) + 6] ^= 1
    path.write_bytes(content)

    with pytest.raises(ChecksumError, match="checksum"):
        read(path)


@pytest.mark.parametrize("name", ["", "/"])
def test_an_array_needs_a_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name must be the path of an array"):
        write_hdf5(volume(), tmp_path / "a.h5", name=name)


# regions


@pytest.fixture
def big(tmp_path: Path) -> Path:
    data = torch.arange(2 * 9 * 8 * 7).reshape(2, 9, 8, 7)
    write_hdf5(Volume(data, affine(0)), tmp_path / "big.h5", chunk=4)
    return tmp_path / "big.h5"


BOXES = [
    ((0, 0, 0), (9, 8, 7)),
    ((8, 7, 6), (1, 1, 1)),
    ((2, 3, 1), (5, 4, 6)),
    ((3, 0, 0), (1, 8, 7)),
]


@pytest.mark.parametrize(("start", "size"), BOXES)
def test_a_region_is_the_whole_and_then_sliced(start, size, big: Path) -> None:
    lazy, whole = open(big), read(big)
    v, expected = lazy.read(start, size), whole.crop(start, size)

    assert torch.equal(v.data, expected.data)
    assert np.array_equal(v.affine, expected.affine)
    assert v.warnings == expected.warnings
    assert (lazy.shape, lazy.spacing, lazy.source) == (whole.shape, whole.spacing, str(big))
    assert repr(lazy) == f"LazyVolume(2x9x8x7, {big})"


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_regions_of_fewer_axes(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    path = _made(tmp_path / "a", lambda f: f.create_dataset("x", data=array))
    start, size = ((0, 1, 2), (1, 3, 3)) if len(shape) == 2 else ((2, 1, 2), (1, 3, 3))

    assert torch.equal(open(path).read(start, size).data, read(path).crop(start, size).data)


@pytest.mark.parametrize(
    ("start", "size"),
    [((0, 0, 0), (10, 1, 1)), ((-1, 0, 0), (1, 1, 1)), ((0, 0, 0), (0, 1, 1)), ((0, 0), (1, 1)),
     ((0, 0, 9), (1, 1, 1))],
)  # fmt: skip
def test_a_region_outside_is_refused(start, size, big: Path) -> None:
    with pytest.raises(ValueError, match="start and size must be"):
        open(big).read(start, size)


@pytest.mark.parametrize(
    ("start", "size"),
    [((0, 0, 0), (1, 1, 1)), ((0, 0, 0, 0), (3, 1, 1, 1)),
     ((0, 0, 0, -1), None), (None, (0, 1, 1, 1))],
)  # fmt: skip
def test_a_box_outside_is_refused(start, size, big: Path) -> None:
    with pytest.raises(ValueError, match="start and size must be"):
        HDF5Reader(big).read("image", start=start, size=size)


class Slices(Dataset):
    """What a user writes: one plane of a file, read by whichever process is asked."""

    def __init__(self, path: Path) -> None:
        self.lazy = open(path)
        self.reader = HDF5Reader(path)
        self.reader.read("image")  # opens the file before the workers start

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> torch.Tensor:
        plane = self.lazy.read((index, 0, 0), (1, 8, 7)).data
        same = self.reader.read("image", start=(0, index, 0, 0), size=(2, 1, 8, 7))
        assert torch.equal(plane, same)
        return plane


@pytest.mark.parametrize("method", METHODS)
def test_workers_open_the_file_for_themselves(method: str, big: Path) -> None:
    dataset = Slices(big)
    loader = DataLoader(dataset, batch_size=3, num_workers=1, multiprocessing_context=method)
    planes = torch.cat(list(loader))

    assert torch.equal(planes[:, :, 0], read(big).data.transpose(0, 1))
    assert torch.equal(dataset[4], pickle.loads(pickle.dumps(dataset))[4])


def test_a_closed_reader_opens_again_and_a_changed_file_is_an_error(big: Path) -> None:
    with HDF5Reader(big) as reader:
        before = reader.read("image")
    assert reader.shape("image") == (2, 9, 8, 7)
    assert torch.equal(reader.read("image"), before)
    reader.close()
    write_hdf5(volume(), big)

    with pytest.raises(FormatError, match="open it again"):
        reader.read("image")


def test_what_must_be_inflated_cannot_be_opened(tmp_path: Path) -> None:
    write_nifti(volume(), tmp_path / "a.nii.gz")

    with pytest.raises(FormatError, match="write it once with cache or write_hdf5"):
        open(tmp_path / "a.nii.gz")
