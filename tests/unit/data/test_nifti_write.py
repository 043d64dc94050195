"""What is written is read back identically, by medkit, nibabel and SimpleITK."""

import gzip
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from medkit.data import Notice, Volume, read, write, write_nifti
from medkit.ops import affine_spacing, corner_indices
from medkit.testing import assert_close
from unit.data.nifti_corpus import good
from unit.data.volumes import DTYPES, affine, volume, world

ENDINGS = ("nii", "nii.gz")
FLOAT32 = 1e-4  # mm: rounding of positions up to 300 mm in the float32 header of NIfTI-1


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip_keeps_voxels_dtype_and_places(
    dtype: torch.dtype, channels: int, ending: str, tmp_path: Path
) -> None:
    v = volume(channels=channels, dtype=dtype, shear=0.1)
    write(v, tmp_path / f"v.{ending}")

    back = read(tmp_path / f"v.{ending}")

    assert back.data.dtype == dtype
    assert torch.equal(back.data, v.data)
    assert_close(back.affine.copy(), v.affine.copy(), atol=FLOAT32)
    assert back.warnings == ()


@pytest.mark.parametrize("ending", ENDINGS)
def test_nifti2_keeps_the_affine_to_the_last_bit(ending: str, tmp_path: Path) -> None:
    v = volume(shear=0.1)
    write_nifti(v, tmp_path / f"v.{ending}", version=2)

    assert np.array_equal(read(tmp_path / f"v.{ending}").affine, v.affine)


def test_an_axis_too_long_for_nifti1_makes_nifti2(tmp_path: Path) -> None:
    v = Volume(torch.arange(40_000, dtype=torch.int32).reshape(1, 1, 1, -1), np.eye(4))
    write(v, tmp_path / "long.nii")

    assert torch.equal(read(tmp_path / "long.nii").data, v.data)
    with pytest.raises(ValueError, match="version must be 2 for an axis longer than 32767; got 1"):
        write_nifti(v, tmp_path / "long.nii", version=1)


@pytest.mark.parametrize(
    ("dtype", "read_as"),
    [
        (torch.bool, torch.uint8),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.uint16, torch.int32),
        (torch.uint32, torch.int64),
        (torch.uint64, torch.int64),
    ],
)
def test_types_that_files_or_torch_lack_are_widened(dtype, read_as, tmp_path: Path) -> None:
    v = Volume(torch.ones(1, 2, 3, 4).to(dtype), np.eye(4))
    write(v, tmp_path / "v.nii")

    back = read(tmp_path / "v.nii")

    assert back.data.dtype == read_as
    assert torch.equal(back.data, v.data.to(read_as))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shear", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_nibabel_reads_what_is_written(seed, shear, channels, version, ending, tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel")
    v = volume(seed, channels=channels, shear=shear)
    write_nifti(v, tmp_path / f"v.{ending}", version=version)

    image = nibabel.load(tmp_path / f"v.{ending}")

    array = np.asarray(image.dataobj)
    assert array.dtype == np.int16
    assert np.array_equal(array.reshape(*v.spatial_shape[::-1], channels).T, v.data.numpy())
    assert_close(image.affine, v.affine_xyz, atol=FLOAT32)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert_close(image.header.get_zooms()[:3], v.spacing[::-1], rtol=1e-6)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_simpleitk_reads_what_is_written(seed, channels, ending, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    v = volume(seed, channels=channels)
    write(v, tmp_path / f"v.{ending}")

    image = sitk.ReadImage(tmp_path / f"v.{ending}")

    assert np.array_equal(sitk.GetArrayFromImage(image).reshape(v.shape), v.data.numpy())
    for d, h, w in corner_indices(v.spatial_shape).tolist():
        index = (w, h, d) if channels == 1 else (w, h, d, 0)
        left, posterior, superior, *_ = image.TransformIndexToPhysicalPoint(index)
        assert_close([-left, -posterior, superior], world(v, (d, h, w)), atol=1e-3)


@pytest.mark.parametrize("seed", range(40))
def test_sform_and_qform_are_one(seed: int, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    v = volume(seed, shape=(20, 20, 20))
    write_nifti(v, tmp_path / "v.nii", version=2)

    header = nibabel.load(tmp_path / "v.nii").header

    sform, qform = header.get_sform(coded=True), header.get_qform(coded=True)
    assert sform[1] == qform[1] == 1
    gap = np.abs(sform[0] - qform[0]) @ (20, 20, 20, 1)
    assert gap.max() < 0.02 * min(v.spacing)


@pytest.mark.parametrize("codes", ["SAR", "SPL", "IAL", "RAS", "LPS", "ASR"])
def test_qform_of_straight_axes_is_their_affine(codes: str, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    v = Volume(torch.zeros(1, 4, 5, 6), np.diag([1.0, 2.0, 3.0, 1.0])).to_axcodes(codes)
    write(v, tmp_path / "v.nii")

    header = nibabel.load(tmp_path / "v.nii").header

    assert_close(header.get_qform(), v.affine_xyz, atol=1e-6)


def test_a_sheared_affine_has_no_qform(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    write(volume(shear=0.2), tmp_path / "v.nii")

    header = nibabel.load(tmp_path / "v.nii").header

    assert header["sform_code"] == 1
    assert header["qform_code"] == 0


def test_labels_can_be_stored_small(tmp_path: Path) -> None:
    label = volume(dtype=torch.int64)
    write_nifti(label, tmp_path / "label.nii", dtype="uint8")

    back = read(tmp_path / "label.nii")

    assert back.data.dtype == torch.uint8
    assert torch.equal(back.data.long(), label.data)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(256, "uint8"), (-1, "uint8"), (0.5, "int16"), (1e300, "float32"), (float("nan"), "int32")],
)
def test_values_that_do_not_fit_are_refused(value: float, dtype, tmp_path: Path) -> None:
    v = Volume(torch.full((1, 2, 2, 2), value, dtype=torch.float64), np.eye(4))

    with pytest.raises(ValueError, match=f"dtype must be able to hold every voxel.*{dtype}"):
        write_nifti(v, tmp_path / "v.nii", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_nan_can_be_stored_smaller(tmp_path: Path) -> None:
    v = Volume(torch.tensor([float("nan"), 0.5]).double().reshape(1, 1, 1, 2), np.eye(4))
    write_nifti(v, tmp_path / "v.nii", dtype="float32")

    assert torch.equal(read(tmp_path / "v.nii").data.isnan(), v.data.isnan())


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("v.nii", {"dtype": "float16"}, "dtype must be one of 'uint8'"),
        ("v.nii", {"version": 3}, "version must be one of 1, 2; got 3"),
        ("v.nii.gz", {"compression_level": 10}, "compression_level must be from 0 to 9; got 10"),
        ("v.img", {}, "path must be a name that ends in .nii or .nii.gz; got"),
    ],
)
def test_options_are_checked_before_writing(name, options, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_nifti(volume(), tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_write_names_the_endings_it_knows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path must be a name that ends in .nii or .nii.gz or "):
        write(volume(), tmp_path / "v.png")


@pytest.mark.parametrize("ending", ENDINGS)
def test_same_volume_gives_same_bytes(ending: str, tmp_path: Path, monkeypatch) -> None:
    v = volume(shape=(40, 200, 200))
    write(v, tmp_path / f"a.{ending}")
    monkeypatch.setattr(time, "time", lambda: 1e9)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    write(v, tmp_path / f"b.{ending}")

    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_compressed_file_is_one_ordinary_gzip_member(level: int, tmp_path: Path) -> None:
    noise = torch.randint(-99, 99, (1, 30, 200, 201), dtype=torch.int16)  # more than two blocks
    v = Volume(noise, affine())
    write(v, tmp_path / "v.nii")
    write_nifti(v, tmp_path / "v.nii.gz", compression_level=level)

    content = (tmp_path / "v.nii.gz").read_bytes()
    member = zlib.decompressobj(31)
    inflated = member.decompress(content)

    assert member.eof
    assert not member.unused_data
    assert inflated == (tmp_path / "v.nii").read_bytes() == gzip.decompress(content)
    assert content[4:8] == bytes(4)  # no time
    assert torch.equal(read(tmp_path / "v.nii.gz").data, noise)


def test_pixdim_is_the_spacing_of_the_axes(tmp_path: Path) -> None:
    v = volume(shear=0.3)
    write_nifti(v, tmp_path / "v.nii", version=2)
    head = (tmp_path / "v.nii").read_bytes()

    assert_close(np.frombuffer(head, "<f8", 3, 112).copy(), affine_spacing(v.affine_xyz))


@pytest.mark.parametrize("version", [1, 2])
def test_unknown_orientation_stays_unknown(version, tmp_path: Path) -> None:
    (tmp_path / "in.nii").write_bytes(next(g.content for g in good() if g.name == "no orientation"))
    v = read(tmp_path / "in.nii")

    write_nifti(v.like(v.data > 3), tmp_path / "out.nii", version=version)

    back = read(tmp_path / "out.nii")
    assert [notice.code for notice in back.warnings] == ["no_orientation"]
    assert_close(back.affine, v.affine)
    assert back.spatial_shape == v.spatial_shape


def test_a_place_in_an_unknown_orientation_is_written(tmp_path: Path) -> None:
    notice = Notice("no_orientation", "sform_code and qform_code are 0")
    v = Volume(torch.rand(1, 4, 5, 6), np.diag([4.0, 3.0, 2.0, 1.0])[[2, 1, 0, 3]], "", (notice,))
    cropped = v.crop((1, 0, 2), (3, 5, 4))

    write_nifti(cropped, tmp_path / "out.nii")

    assert_close(read(tmp_path / "out.nii").affine, cropped.affine)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize("writer", [write, write_nifti])
def test_a_bare_tensor_has_no_place(writer, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^volume must be a Volume; got Tensor$"):
        writer(torch.zeros(1, 2, 3, 4), tmp_path / "a.nii")


def test_int64_stays_what_it_is_unless_told(tmp_path: Path) -> None:
    labels = volume(dtype=torch.int64)
    write(labels, tmp_path / "wide.nii")
    write(labels.like(labels.data.clamp(0, 255).to(torch.uint8)), tmp_path / "small.nii")

    assert read(tmp_path / "wide.nii").data.dtype == torch.int64
    assert read(tmp_path / "small.nii").data.dtype == torch.uint8


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"No such folder: '{tmp_path / 'none'}'$"):
        write(volume(), tmp_path / "none" / "a.nii.gz")


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(ValueError, match="got nothing: the file is empty"):
        read(tmp_path / "a.nii.gz")
