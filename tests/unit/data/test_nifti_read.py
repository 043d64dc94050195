"""Real files are read as nibabel and SimpleITK read them; damage and options behave as said."""

import gzip
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from medkit.data import ChecksumError, FormatError, LimitError, Limits, read, read_nifti
from medkit.ops import corner_indices
from medkit.testing import assert_close
from unit.data.nifti_bytes import QFORM_UNITS, flip_bit, nifti
from unit.data.volumes import world


def _installed(package: str, pattern: str) -> list[Path]:
    """Return real NIfTI files that come inside an installed package."""
    spec = find_spec(package)
    return sorted(Path(spec.origin).parent.rglob(pattern)) if spec and spec.origin else []


INSTALLED = [*_installed("nilearn", "data/*.nii.gz"), *_installed("nibabel", "tests/data/*.nii*")]
REAL = {
    path.name: path
    for path in INSTALLED
    if "dconn" not in path.name  # a matrix, with no place in space
}
FOR_ITK = [name for name in REAL if "nifti2" not in name]  # which ITK cannot read


def test_there_are_real_files() -> None:
    pytest.importorskip("nibabel")
    pytest.importorskip("nilearn")

    assert len(REAL) >= 8


@pytest.mark.parametrize("path", REAL.values(), ids=REAL)
def test_real_files_are_read_as_nibabel_reads_them(path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.load(path)
    v = read(path)

    theirs = image.get_fdata().reshape(*v.spatial_shape[::-1], v.shape[0])
    assert_close(v.data, np.ascontiguousarray(theirs.transpose(3, 2, 1, 0)), rtol=1e-6)
    assert np.array_equal(v.affine_xyz, image.affine)


@pytest.mark.parametrize("name", FOR_ITK)
def test_real_files_are_read_as_simpleitk_reads_them(name: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(REAL[name])
    v = read(REAL[name])

    data = v.data.nan_to_num(0)  # ITK makes NaN 0, medkit keeps it
    assert_close(data, sitk.GetArrayFromImage(image).reshape(v.shape), rtol=1e-6)
    for d, h, w in corner_indices(v.spatial_shape).tolist():
        index = (w, h, d, 0)[: image.GetDimension()]
        left, posterior, superior, *_ = image.TransformIndexToPhysicalPoint(index)
        assert_close([-left, -posterior, superior], world(v, (d, h, w)), atol=1e-3)


@pytest.mark.parametrize("unit", QFORM_UNITS)
def test_units_of_length_are_those_of_itk(unit: int, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    fields = {"xyzt_units": unit, "sform_code": 0, "qform_code": 1, "qoffset": (1, 2, 3)}
    path = tmp_path / "v.nii"
    path.write_bytes(nifti(np.zeros((3, 4, 5), "i2"), fields))
    image = sitk.ReadImage(path)

    v = read(path)

    assert_close(v.spacing[::-1], image.GetSpacing(), rtol=1e-6)
    assert_close(v.affine_lps[:3, 3], image.GetOrigin(), rtol=1e-6)


def test_a_damaged_file_can_be_read_without_verification(tmp_path: Path) -> None:
    voxels = np.arange(60, dtype="i2").reshape(3, 4, 5)
    stored = gzip.compress(nifti(voxels), 0, mtime=0)
    path = tmp_path / "v.nii.gz"
    path.write_bytes(flip_bit(stored, -10, 0))

    with pytest.raises(ChecksumError, match="gzip CRC-32 must be 0x"):
        read(path)
    damaged = voxels.copy()
    damaged[2, 3, 4] ^= 1
    assert np.array_equal(read(path, verify=False).data[0].numpy(), damaged)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_bytes_after_the_voxels_can_be_let_pass(compress, tmp_path: Path) -> None:
    voxels = np.arange(60, dtype="i2").reshape(3, 4, 5)
    path = tmp_path / "v.nii"
    path.write_bytes(compress(nifti(voxels) + b"more"))

    with pytest.raises(FormatError, match="verify=False"):
        read_nifti(path)
    assert np.array_equal(read_nifti(path, verify=False).data[0].numpy(), voxels)


def test_limits_are_on_the_voxels_as_returned(tmp_path: Path) -> None:
    path = tmp_path / "v.nii"
    path.write_bytes(nifti(np.zeros((4, 4, 4), "u2")))  # 128 bytes there, 256 as int32

    assert read(path, limits=Limits(max_bytes=256)).data.dtype == torch.int32
    with pytest.raises(LimitError, match=r"must be at most 255 bytes; got 256 \(dim \(4, 4, 4\)"):
        read(path, limits=Limits(max_bytes=255))


@pytest.mark.parametrize("value", [0, -1])
def test_limits_are_positive(value: int) -> None:
    with pytest.raises(ValueError, match="max_bytes must be at least 1"):
        Limits(max_bytes=value)


def test_no_memory_is_a_limit_error(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "v.nii"
    path.write_bytes(nifti(np.zeros((4, 4, 4), "i2")))

    def empty(*_: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr("medkit.data._nifti.np.empty", empty)
    with pytest.raises(LimitError, match="available memory"):
        read(path)


def test_a_missing_file_is_an_ordinary_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing.nii")


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="folder must be one with a DICOM image"):
        read(tmp_path)


def test_voxels_belong_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "v.nii"
    path.write_bytes(nifti(np.zeros((4, 4, 4), "i2")))
    read(path).data.fill_(1)

    assert read(path).data.sum() == 0


def test_the_file_that_was_asked_for_is_read(tmp_path: Path) -> None:
    asked = tmp_path / "v.nii.gz"
    asked.write_bytes(gzip.compress(nifti(np.ones((3, 4, 5), "i2"))))
    (tmp_path / "v.nii").write_bytes(nifti(np.zeros((3, 4, 5), "i2")))  # which ITK would read

    assert read(asked).data.unique().tolist() == [1]


@pytest.mark.parametrize("compress", [bytes, lambda content: gzip.compress(content, 1)])
def test_reading_needs_little_more_memory_than_the_voxels(compress, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 9, (64, 256, 256)).astype(">i2")
    path = tmp_path / "v.nii"
    path.write_bytes(compress(nifti(voxels, order=">")))
    read(path)
    tracemalloc.start()

    v = read(path)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(v.data[0].numpy(), voxels)
    assert peak < 1.4 * voxels.nbytes
