"""An HDF5 file is read as it is or refused by name, and nothing leads out of it."""

import io
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkit._core import hdf5
from medkit._core.file_errors import (
    ChecksumError,
    CodecMissingError,
    DataError,
    FormatError,
    LimitError,
    TruncatedError,
    UnsafeReferenceError,
)
from medkit._core.hdf5 import Written, open_hdf5, write_hdf5

A_LOT = 1 << 20


def read_all(path: Path, *, max_bytes: int = A_LOT) -> dict[str, np.ndarray]:
    with open_hdf5(path) as file:
        return {name: file.read(name, max_bytes=max_bytes) for name in file.arrays}


def made(path: Path, make: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        make(file)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64)
    groups = [
        Written("", {"order": ["x", "longer"]}, {}),
        Written("x/vars", {"name": "first"}, {"0": a}),
        Written("y", {"none": []}, {"deep/1": b}),
    ]

    write_hdf5(tmp_path / "a.h5", groups)

    with open_hdf5(tmp_path / "a.h5") as file:
        assert sorted(file.groups) == ["x", "x/vars", "y", "y/deep"]
        assert file.arrays["x/vars/0"] == (a.shape, a.dtype)
        assert np.array_equal(file.read("x/vars/0", max_bytes=24), a)
        assert file.read("y/deep/1", max_bytes=8) == b
        assert file.texts("", "order") == ("x", "longer")
        assert file.texts("x/vars", "name") == ("first",)
        assert file.texts("y", "none") == ()
        assert file.texts("y", "absent") is None


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_hdf5(path, [Written("old", {}, {})])

    def failing():
        yield Written("new", {}, {"a": np.zeros(3)})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_hdf5(path, failing())

    with open_hdf5(path) as file:
        assert file.groups == ("old",)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf"},
        {"chunks": (2, 2), "maxshape": (None, 7)},
    ],
)
def test_every_layout_that_is_allowed_is_read(tmp_path: Path, options: dict) -> None:
    a = np.random.default_rng(0).standard_normal((5, 7))

    path = made(tmp_path / "a.h5", lambda f: f.create_dataset("a", data=a, **options))

    assert np.array_equal(read_all(path)["a"], a)


def test_an_open_file_is_read_like_a_path(tmp_path: Path) -> None:
    path = made(tmp_path / "a.h5", lambda f: f.create_dataset("a", data=np.ones(3)))

    with open_hdf5(io.BytesIO(path.read_bytes()), path="inner") as file:
        assert file.read("a", max_bytes=24).sum() == 3
        assert file.path == "inner"


def _external_link(file: h5py.File) -> None:
    file["group/link"] = h5py.ExternalLink("/etc/hostname", "/a")


def _soft_link(file: h5py.File) -> None:
    file["a"] = np.ones(3)
    file["group/link"] = h5py.SoftLink("/a")


def _link_to_a_group(file: h5py.File) -> None:
    file["real/vars/0"] = np.ones(3)
    file["layers"] = h5py.SoftLink("/real")


def _external_bytes(file: h5py.File) -> None:
    file.create_dataset("group/a", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "a", (4,))
    file.create_virtual_dataset("group/a", layout)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_external_link, r"group/link must be a part of this file; got .*'/a' in '/etc/hostname'"),
        (_soft_link, "group/link must be a part of this file; got a link to '/a'"),
        (_link_to_a_group, "layers must be a part of this file"),
        (_external_bytes, "group/a must be stored in this file; got bytes in '/etc/hostname'"),
        (_virtual, "group/a must be stored in this file; got a virtual array"),
    ],
)
def test_what_leads_out_is_refused_at_once(
    tmp_path: Path, make: Callable[[h5py.File], None], message: str
) -> None:
    path = made(tmp_path / "a.h5", make)

    with pytest.raises(UnsafeReferenceError, match=message), open_hdf5(path):
        pass


def _circle(file: h5py.File) -> None:
    file.create_group("a")["b"] = file["/"]


def _twice(file: h5py.File) -> None:
    file["a"] = np.ones(3)
    file["b"] = file["a"]


def _named_type(file: h5py.File) -> None:
    file["a"] = np.dtype("f4")


def _nothing(file: h5py.File) -> None:
    file["a"] = h5py.Empty("f4")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_circle, "a/b must be an object with one name"),
        (_twice, "must be an object with one name"),
        (_named_type, "a must be a group or an array; got Datatype"),
        (_nothing, "a must be an array; got an empty dataspace"),
    ],
)
def test_what_makes_no_tree_of_arrays_is_refused(
    tmp_path: Path, make: Callable[[h5py.File], None], message: str
) -> None:
    path = made(tmp_path / "a.h5", make)

    with pytest.raises(FormatError, match=message), open_hdf5(path):
        pass


def _huge(file: h5py.File) -> None:
    file.create_dataset("a", (1 << 40,), "f4", chunks=(1 << 10,))


def _huge_chunks(file: h5py.File) -> None:
    file.create_dataset("a", (4,), "f4", chunks=(1 << 28,), maxshape=(None,))


def _never_written(file: h5py.File) -> None:
    file.create_dataset("a", (4, 4), "f4")


def _partly_written(file: h5py.File) -> None:
    file.create_dataset("a", (4, 4), "f4", chunks=(2, 2))[:2] = 1


def _unknown_filter(file: h5py.File) -> None:
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_chunk((4,))
    create.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"a", h5py.h5t.NATIVE_FLOAT, space, create)


def _texts(file: h5py.File) -> None:
    file["a"] = ["text"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            _huge,
            LimitError,
            r"a must be at most \d+ bytes; got shape \(1099511627776,\)",
        ),
        (_huge_chunks, LimitError, "a must be in chunks of its own size or"),
        (_never_written, TruncatedError, "a must be stored in full; got 0 of 64 bytes"),
        (_partly_written, TruncatedError, "a must be stored in full; got 2 of 4 chunks"),
        (
            _unknown_filter,
            CodecMissingError,
            "a must be compressed with .*; got filter 32015",
        ),
        (_texts, FormatError, "a must be an array of numbers; got object"),
    ],
)
def test_arrays_are_refused_before_they_are_read(
    tmp_path: Path, make: Callable[[h5py.File], None], error: type[DataError], message: str
) -> None:
    path = made(tmp_path / "a.h5", make)

    with pytest.raises(error, match=message):
        read_all(path)


def test_a_flipped_bit_under_a_checksum_is_noticed(tmp_path: Path) -> None:
    a = np.full(100, 7, np.uint8)
    path = made(tmp_path / "a.h5", lambda f: f.create_dataset("a", data=a, fletcher32=True))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\7" * 50, b"\7" * 49 + b"\6", 1))

    with pytest.raises(ChecksumError, match="a must be what its checksum or compression expects"):
        read_all(path)


@pytest.mark.parametrize("value", [3, np.ones(4)])
def test_attributes_must_be_texts(tmp_path: Path, value: object) -> None:
    path = made(tmp_path / "a.h5", lambda f: f.attrs.__setitem__("order", value))

    with open_hdf5(path) as file, pytest.raises(FormatError, match="@order must be text"):
        file.texts("", "order")


def test_objects_and_texts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MAX_TEXTS", 2)
    path = made(tmp_path / "a.h5", lambda f: f.attrs.__setitem__("order", ["a", "b", "c"]))
    with open_hdf5(path) as file, pytest.raises(LimitError, match="@order must be at most 2"):
        file.texts("", "order")

    monkeypatch.setattr(hdf5, "MAX_OBJECTS", 3)
    path = made(tmp_path / "b.h5", lambda f: [f.create_group(x) for x in "abc"])
    with pytest.raises(LimitError, match="c must be one of 3 objects"), open_hdf5(path):
        pass


def test_another_file_is_refused_and_a_missing_one_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"something else")

    with pytest.raises(FormatError, match=r"a\.h5: file must be an HDF5 file; got something else"):
        read_all(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError):
        read_all(tmp_path / "b.h5")


@given(keep=st.floats(0.02, 0.999))
def test_a_file_cut_short_is_refused(tmp_path_factory: pytest.TempPathFactory, keep: float) -> None:
    path = made(
        tmp_path_factory.mktemp("cut") / "a.h5",
        lambda f: [f.create_dataset(f"g/{i}", data=np.ones(50)) for i in range(3)],
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])

    with pytest.raises((TruncatedError, FormatError)):
        read_all(path)


@given(place=st.floats(0, 0.999), value=st.integers(0, 255))
def test_a_changed_byte_gives_an_error_or_arrays(
    tmp_path_factory: pytest.TempPathFactory, place: float, value: int
) -> None:
    """A damaged header never makes anything but a ``DataError``, and never a large allocation."""
    path = made(
        tmp_path_factory.mktemp("changed") / "a.h5",
        lambda f: [f.create_dataset(f"g/{i}", data=np.ones(5)) for i in range(3)],
    )
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = value
    path.write_bytes(content)

    try:
        arrays = read_all(path, max_bytes=1000)
    except DataError:
        return
    assert all(array.nbytes <= 1000 for array in arrays.values())
