"""Boxes copied straight out of an HDF5 file are what h5py reads, or h5py reads them."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkit._core.hdf5 import open_hdf5
from medkit.data import FormatError, HDF5Reader, LimitError, Limits, TruncatedError

DTYPES = ["u1", "i1", "<i2", ">i2", "<i4", ">u4", "<i8", "<f2", "<f4", ">f8", "<c8", "?"]


def _is_mapped(path: Path, name: str = "a") -> bool:
    with open_hdf5(path) as file:
        return file.chunk_map(name) is not None


def _read(path: Path, box: tuple[slice, ...]) -> np.ndarray:
    start, size = [s.start for s in box], [s.stop - s.start for s in box]
    return HDF5Reader(path).read("a", start=start, size=size).numpy()


def _values(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 99, shape).astype(dtype)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...] | None, tuple[slice, ...]]:
    """A shape, chunks that may stick out at its ends, and a box in it."""
    axes = draw(st.integers(1, 4))
    shape = tuple(draw(st.integers(1, 9)) for _ in range(axes))
    starts = [draw(st.integers(0, n - 1)) for n in shape]
    box = tuple(slice(a, draw(st.integers(a + 1, n))) for a, n in zip(starts, shape, strict=True))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    return shape, draw(st.sampled_from([chunks, None])), box


@given(arrays(), st.sampled_from(DTYPES), st.sampled_from(["earliest", "latest", "v110"]))
def test_any_box_is_what_h5py_reads(array, dtype: str, libver: str) -> None:
    shape, chunks, box = array
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        with h5py.File(path, "w", libver=libver) as file:
            file.create_dataset("other", data=np.arange(5))
            file.create_dataset("a", data=_values(shape, dtype), chunks=chunks)
        with h5py.File(path) as file:
            expected = file["a"][box]

        assert _is_mapped(path)
        assert np.array_equal(_read(path, box), expected)


def test_an_array_that_grew_is_mapped_beyond_its_first_chunks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a", (2, 3), maxshape=(None, None), chunks=(4, 2), dtype="i4")
        data.resize((9, 7))
        data[:] = np.arange(63).reshape(9, 7)

    assert _is_mapped(tmp_path / "a.h5")
    box = (slice(3, 9), slice(1, 7))
    assert np.array_equal(_read(tmp_path / "a.h5", box), np.arange(63).reshape(9, 7)[box])


def _checksummed(file: h5py.File) -> None:
    file.create_dataset("a", data=_values((9, 7), "<i2"), chunks=(4, 3), fletcher32=True)


def _compressed(file: h5py.File) -> None:
    file.create_dataset("a", data=_values((9, 7), "<i2"), chunks=(4, 3), compression="lzf")


def _twelve_bits(file: h5py.File) -> None:
    kind = h5py.h5t.STD_U16LE.copy()
    kind.set_precision(12)
    kind.set_offset(4)
    space = h5py.h5s.create_simple((9, 7))
    data = h5py.h5d.create(file.id, b"a", kind, space)
    values = _values((9, 7), "<u2")
    data.write(h5py.h5s.ALL, h5py.h5s.ALL, values)


def _compact(file: h5py.File) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((9, 7))
    data = h5py.h5d.create(file.id, b"a", h5py.h5t.STD_I16LE, space, plan)
    data.write(h5py.h5s.ALL, h5py.h5s.ALL, _values((9, 7), "<i2"))


@pytest.mark.parametrize("make", [_checksummed, _compressed, _twelve_bits, _compact])
def test_what_is_not_stored_as_numpy_has_it_goes_by_h5py(
    make: Callable[[h5py.File], None], tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file)

    assert not _is_mapped(tmp_path / "a.h5")
    box = (slice(3, 9), slice(1, 7))
    assert np.array_equal(_read(tmp_path / "a.h5", box), _values((9, 7), "<i2")[box])


def test_a_file_behind_something_else_goes_by_h5py(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file["a"] = _values((9, 7), "<i2")

    assert not _is_mapped(tmp_path / "a.h5")
    assert np.array_equal(
        _read(tmp_path / "a.h5", (slice(0, 9),) * 1 + (slice(0, 7),)), _values((9, 7), "<i2")
    )


def test_chunks_that_were_never_written_are_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", (8, 8), "i2", chunks=(4, 4))[:4] = 1

    with pytest.raises(TruncatedError, match="2 of 4 chunks"):
        HDF5Reader(tmp_path / "a.h5").read("a", start=(0, 0), size=(2, 2))


def test_limits_hold_for_mapped_boxes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = _values((9, 7), "<i2")
    reader = HDF5Reader(tmp_path / "a.h5", limits=Limits(max_bytes=20))

    assert reader.read("a", start=(0, 0), size=(2, 5)).shape == (2, 5)
    with pytest.raises(LimitError, match="at most 20 bytes"):
        reader.read("a", start=(0, 0), size=(2, 6))


def test_a_file_that_is_cut_under_the_reader_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a"] = _values((99, 999), "<i2")
    reader = HDF5Reader(path)
    reader.read("a", start=(0, 0), size=(1, 1))
    os.truncate(path, 5000)

    with pytest.raises(FormatError, match="as it was when it was opened"):
        reader.read("a")


def test_a_file_that_is_replaced_can_be_read_to_the_end(tmp_path: Path) -> None:
    path, other = tmp_path / "a.h5", tmp_path / "b.h5"
    for name, value in ((path, 1), (other, 2)):
        with h5py.File(name, "w") as file:
            file["a"] = np.full((9, 7), value)
    reader = HDF5Reader(path)
    reader.read("a", start=(0, 0), size=(1, 1))
    other.replace(path)

    assert (reader.read("a") == 1).all()
    assert (HDF5Reader(path).read("a") == 2).all()


@pytest.mark.parametrize("error", [BlockingIOError, OSError, AttributeError])
def test_what_is_not_in_memory_is_asked_for_first(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = _values((40, 50, 60), "<i2")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=values, chunks=(16, 16, 16))

    def not_in_memory(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "preadv", not_in_memory)
    box = (slice(3, 39), slice(10, 50), slice(17, 60))
    assert np.array_equal(_read(tmp_path / "a.h5", box), values[box])
