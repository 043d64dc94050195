"""Laws of the readers of HDF5, NumPy, NRRD and MetaImage files over damaged files."""

import io
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medkit.data import DataError, Volume, read, write, write_hdf5, write_npz
from medkit.testing import assert_close
from unit.data.volumes import volume

V = volume(2, channels=2)


@pytest.fixture(scope="module", autouse=True)
def _unhooked() -> Iterator[None]:
    """Turn the shape hook off, which looks at damaged HDF5 objects on its own."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def _written(suffix: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write(V, path)
        return path.read_bytes()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


CHECKED = {suffix: _written(suffix) for suffix in (".h5", ".npz")}
PLAIN = _npy(V.data.numpy())
TEXT_HEADERS = {suffix: _written(suffix) for suffix in (".nrrd", ".mha")}
VOXELS_BEGIN = {
    ".nrrd": TEXT_HEADERS[".nrrd"].index(b"\n\n") + 2,
    ".mha": TEXT_HEADERS[".mha"].index(b"LOCAL\n") + 6,
}


@st.composite
def damages(draw: st.DrawFn, content: bytes) -> bytes:
    """Change, drop, insert or double some bytes, or cut the end."""
    at = draw(st.integers(0, len(content) - 1))
    length = draw(st.integers(1, 4))
    new = draw(st.binary(min_size=length, max_size=length))
    before, there, after = content[:at], content[at : at + length], content[at + length :]
    ways = {
        "change": before + new[: len(there)] + after,
        "drop": before + after,
        "insert": before + new + there + after,
        "double": before + there + there + after,
        "cut": before,
    }
    return ways[draw(st.sampled_from(["change", "change", *ways]))]


def _read(content: bytes) -> Volume | None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(content)
        try:
            return read(path)
        except DataError:
            return None


@settings(max_examples=400)
@given(st.sampled_from(sorted(CHECKED)), st.data())
def test_a_damaged_file_is_the_original_or_refused(suffix: str, data: st.DataObject) -> None:
    v = _read(data.draw(damages(CHECKED[suffix])))

    if v is not None:
        assert torch.equal(v.data, V.data)
        assert np.array_equal(v.affine, V.affine)


@settings(max_examples=300)
@given(st.sampled_from(sorted(TEXT_HEADERS)), st.data())
def test_damaged_voxels_are_the_original_or_refused(suffix: str, data: st.DataObject) -> None:
    content, at = TEXT_HEADERS[suffix], VOXELS_BEGIN[suffix]
    v = _read(content[:at] + data.draw(damages(content[at:])))

    if v is not None:
        assert torch.equal(v.data, V.data)
        assert_close(v.affine.copy(), V.affine.copy(), atol=1e-9)


@settings(max_examples=600)
@given(st.sampled_from(sorted(TEXT_HEADERS)), st.data())
def test_a_damaged_header_means_something_or_is_refused(suffix: str, data: st.DataObject) -> None:
    content, at = TEXT_HEADERS[suffix], VOXELS_BEGIN[suffix]
    try:
        v = _read(data.draw(damages(content[:at])) + content[at:])
    except OSError:  # the header now names a data file that is not there
        return
    if v is not None:
        assert v.data.numel() <= V.data.numel() * 4
        assert np.isfinite(v.affine).all()


@settings(max_examples=400)
@given(damages(PLAIN))
@example(PLAIN.replace(b"(2, 3", b"(2,03"))
@example(PLAIN.replace(b"(2, 3", b"(2,3L"))
@example(PLAIN.replace(b", 'fort", b",\xa0'fort"))
def test_a_damaged_npy_file_is_what_numpy_reads_or_refused(content: bytes) -> None:
    v = _read(content)

    if v is not None:
        with warnings.catch_warnings(action="ignore"):  # of sizes with the L of Python 2
            expected = np.load(io.BytesIO(content), allow_pickle=False)
        assert np.array_equal(v.data.numpy().ravel(), expected.ravel(), equal_nan=True)


SHAPES = arrays.array_shapes(min_dims=2, max_dims=4, max_side=5)
TYPES = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?", sizes=(8, 16, 32)),
    arrays.floating_dtypes(endianness="?"),
    arrays.complex_number_dtypes(endianness="?", sizes=(64, 128)),
)


@settings(max_examples=150)
@given(st.data(), st.booleans())
def test_any_array_is_read_as_it_is(data: st.DataObject, fortran: bool) -> None:
    array = data.draw(arrays.arrays(data.draw(TYPES), data.draw(SHAPES)))
    array = np.asfortranarray(array) if fortran else array
    file = io.BytesIO()
    with h5py.File(file, "w") as hdf5:
        hdf5["x"] = array
    for content in (_npy(array), file.getvalue()):
        v = _read(content)
        assert v is not None
        assert np.array_equal(
            v.data.reshape(array.shape).numpy(), array, equal_nan=array.dtype.kind in "fc"
        )


LIMITED = """
import pathlib, resource, sys, time
from medkit.data import DataError, read
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    start = time.perf_counter()
    try:
        read(path)
    except (DataError, OSError):
        pass
    assert time.perf_counter() - start < 2, path
print("survived")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_damage_never_costs_a_gibibyte_or_two_seconds(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    zeros = Volume(torch.zeros(1, 64, 64, 64, dtype=torch.int16), np.eye(4))
    write_hdf5(zeros, tmp_path / "zeros.h5", chunk=16)
    write_npz(zeros, tmp_path / "zeros.npz", compress=True)
    files = [
        *CHECKED.values(),
        *TEXT_HEADERS.values(),
        PLAIN,
        *(p.read_bytes() for p in tmp_path.iterdir()),
    ]
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("x", (2**12, 2**12, 2**7), "u1", chunks=(1, 2**12, 2**7), compression=9)
    for number in range(300):
        content = bytearray(files[number % len(files)])
        for position in generator.integers(0, min(2000, len(content)), 1 + number % 3):
            content[position] = generator.integers(256)
        (tmp_path / f"{number:03}").write_bytes(content)

    command = [sys.executable, "-c", LIMITED, tmp_path]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)

    assert result.stdout == "survived\n", result.stderr
