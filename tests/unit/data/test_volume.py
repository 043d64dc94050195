"""Volumes cannot lose their geometry, and no method moves a voxel."""

import copy
import pickle
from dataclasses import FrozenInstanceError
from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage

from medkit.data import Notice, Volume
from medkit.testing import assert_close
from unit.data.volumes import SHAPE, affine, volume, world

INDICES = list(product(*(range(size) for size in SHAPE)))


def test_geometry_cannot_be_changed() -> None:
    v = volume()

    with pytest.raises(FrozenInstanceError):
        v.affine = np.eye(4)
    with pytest.raises(ValueError, match="read-only"):
        v.affine[0, 3] = 1
    with pytest.raises(FrozenInstanceError):
        v.data = torch.zeros(1, 2, 3, 4)


def test_geometry_does_not_follow_the_array_it_was_made_from() -> None:
    matrix = affine()
    v = Volume(torch.zeros(1, 2, 3, 4), matrix)
    matrix[0, 3] = 1234

    assert v.affine[0, 3] != 1234


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))]
)
def test_copies_are_equal_and_frozen_too(copied) -> None:
    v = Volume(torch.rand(1, 2, 3, 4), affine(), "here", (Notice("a", "b"),))

    other = copied(v)

    assert torch.equal(other.data, v.data)
    assert np.array_equal(other.affine, v.affine)
    assert (other.source, other.warnings) == (v.source, v.warnings)
    assert not other.affine.flags.writeable


def test_data_is_a_plain_contiguous_tensor() -> None:
    v = Volume(torch.rand(4, 3, 2, 1).permute(3, 2, 1, 0), np.eye(4))

    assert type(v.data) is torch.Tensor
    assert v.data.is_contiguous()
    assert v.shape == (1, 2, 3, 4)
    assert v.spatial_shape == (2, 3, 4)


def test_properties_of_a_brain_template() -> None:
    v = Volume(torch.zeros(1, 189, 233, 197), np.array(
        [[0.0, 0, 1, -98], [0, 1, 0, -134], [1, 0, 0, -72], [0, 0, 0, 1]]
    ))  # fmt: skip

    assert v.axcodes == "SAR"
    assert v.spacing == (1, 1, 1)
    assert_close(v.affine_xyz[:3, 3], [-98.0, -134, -72])
    assert_close(v.affine_xyz[:3, :3], np.eye(3))
    assert_close(v.affine_lps[:3, 3], [98.0, 134, -72])
    assert repr(v) == "Volume(1x189x233x197 float32, 1x1x1 mm, SAR)"


@pytest.mark.parametrize("seed", range(5))
def test_affines_of_the_three_conventions_place_a_voxel_alike(seed: int) -> None:
    v = volume(seed)
    for d, h, w in INDICES:
        x, y, z = world(v, (d, h, w))

        assert_close((v.affine_xyz @ (w, h, d, 1))[:3], [x, y, z])
        assert_close((v.affine_lps @ (w, h, d, 1))[:3], [-x, -y, z])


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((4, 4)), "last row of affine must be 0 0 0 1"),
        (np.diag([1.0, 1, 0, 1]), "affine must be invertible"),
        (np.diag([1.0, 1, np.nan, 1]), "affine must be a finite 4 x 4 matrix"),
        (np.diag([1.0, 1, np.inf, 1]), "affine must be a finite 4 x 4 matrix"),
        (np.diag([1.0, 1, 1, 2]), "last row of affine must be 0 0 0 1; got"),
    ],
)
def test_impossible_affines_are_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Volume(torch.zeros(1, 2, 3, 4), matrix)


def test_affines_of_microscopes_are_possible() -> None:
    assert_close(
        Volume(torch.zeros(1, 2, 2, 2), np.diag([1e-6, 1e-6, 1e-6, 1])).spacing, [1e-6] * 3
    )


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 1, 2, 3, 4), (1, 0, 3, 4)])
@pytest.mark.usefixtures("unhooked")
def test_only_channel_and_three_axes_are_a_volume(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"data must be \(C, D, H, W\) with at least one voxel; got"
    ):
        Volume(torch.zeros(shape), np.eye(4))


def test_like_keeps_the_grid_and_takes_any_channels() -> None:
    v = volume()
    mask = v.like(torch.ones(3, *SHAPE, dtype=torch.bool))

    assert mask.shape == (3, *SHAPE)
    assert np.array_equal(mask.affine, v.affine)
    with pytest.raises(
        ValueError, match=r"shape of data must be \(C, 3, 4, 5\); got \(1, 3, 4, 6\)"
    ):
        v.like(torch.zeros(1, 3, 4, 6))


def test_crop_moves_no_voxel() -> None:
    v = volume()
    part = v.crop((1, 0, 2), (2, 3, 3))

    assert torch.equal(part.data, v.data[:, 1:3, 0:3, 2:5])
    assert_close(world(part, (0, 0, 0)), world(v, (1, 0, 2)))
    assert_close(world(part, (1, 2, 2)), world(v, (2, 2, 4)))


def test_crop_is_a_copy() -> None:
    v = volume()
    before = v.data.clone()
    v.crop((0, 0, 0), SHAPE).data.zero_()

    assert torch.equal(v.data, before)


def test_crop_fills_what_lies_outside() -> None:
    v = volume(dtype=torch.float32)
    part = v.crop((-1, 2, -2), (5, 4, 9), fill=-1.0)

    expected = np.pad(
        v.data.numpy()[:, :, 2:], ((0, 0), (1, 1), (0, 2), (2, 2)), constant_values=-1
    )
    assert np.array_equal(part.data.numpy(), expected)
    assert_close(world(part, (1, 0, 2)), world(v, (0, 2, 0)))


@pytest.mark.parametrize(
    ("start", "size", "fill"),
    [((0, 0, 0), (3, 4, 6), None), ((-1, 0, 0), (1, 1, 1), None), ((3, 0, 0), (1, 1, 1), 0.0),
     ((-1, 0, 0), (1, 1, 1), 0.0), ((0, 0, 0), (0, 1, 1), None)],
)  # fmt: skip
def test_crop_beyond_the_volume_is_an_error(start, size, fill: float | None) -> None:
    with pytest.raises(ValueError, match="start and size must be"):
        volume().crop(start, size, fill=fill)


@pytest.mark.parametrize("start", [(0, 0), (0, 0, 0, 0)])
def test_crop_wants_three_numbers(start: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"start must be three whole numbers \(d, h, w\)"):
        volume().crop(start, (1, 1, 1))


@pytest.mark.parametrize("axes", ["", "d", "h", "w", "dw", "whd"])
def test_flip_moves_no_voxel(axes: str) -> None:
    v = volume(3)
    flipped = v.flip(axes)

    for index in INDICES:
        there = tuple(
            n - 1 - i if a in axes else i for i, n, a in zip(index, SHAPE, "dhw", strict=True)
        )
        assert flipped.data[0][there] == v.data[0][index]
        assert_close(world(flipped, there), world(v, index))


@pytest.mark.parametrize("axes", ["x", "dd", "L"])
def test_flip_knows_its_axes(axes: str) -> None:
    with pytest.raises(ValueError, match="axes must be letters out of 'dhw', each once; got"):
        volume().flip(axes)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "IPL", "ASL", "PIR"])
def test_to_axcodes_is_what_nibabel_makes_of_the_same_image(codes: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    v = volume(4, channels=1, shear=0.2)
    image = nibabel.Nifti1Image(v.data[0].numpy(), v.affine)
    wanted = nibabel.orientations.axcodes2ornt(codes)
    start = nibabel.orientations.io_orientation(v.affine)
    theirs = image.as_reoriented(nibabel.orientations.ornt_transform(start, wanted))

    ours = v.to_axcodes(codes)

    assert ours.axcodes == codes
    assert ours.data.is_contiguous()
    assert np.array_equal(ours.data[0].numpy(), theirs.get_fdata())
    assert_close(ours.affine.copy(), theirs.affine)


@pytest.mark.parametrize("spacing", [(2.5, 1.25, 0.8), (1.0, 1.0, 1.0), (5.0, 0.4, 2.0)])
def test_linear_resampling_is_that_of_scipy(spacing: tuple[float, float, float]) -> None:
    v = volume(1, channels=2, shape=(7, 8, 9), dtype=torch.float64)
    out = v.resample(spacing, mode="linear")

    assert_close(out.spacing, spacing)
    to_old = np.linalg.inv(v.affine) @ out.affine
    grid = np.indices(out.spatial_shape).reshape(3, -1)
    positions = to_old[:3, :3] @ grid + to_old[:3, 3:]
    for ours, theirs in zip(out.data, v.data, strict=True):
        expected = ndimage.map_coordinates(theirs.numpy(), positions, order=1, mode="nearest")
        assert_close(ours.flatten(), expected, rtol=1e-9, atol=1e-9)


def test_linear_resampling_is_that_of_itk() -> None:
    sitk = pytest.importorskip("SimpleITK")
    v = volume(2, shape=(7, 8, 9), dtype=torch.float32)
    out = v.resample((1.0, 2.0, 0.6), mode="linear")

    theirs = sitk.Resample(v.to_sitk(), out.to_sitk(), sitk.Transform(), sitk.sitkLinear, -1.0)

    expected = sitk.GetArrayFromImage(theirs)
    inside = expected != -1
    assert inside.mean() > 0.5
    assert_close(
        out.data[0].numpy()[inside], expected[inside], rtol=1e-4, atol=1e-3
    )  # float32 grid


def test_nearest_resampling_keeps_labels() -> None:
    v = volume(1, shape=(7, 8, 9), dtype=torch.uint8)
    out = v.resample(1.0, mode="nearest")

    assert out.data.dtype == torch.uint8
    to_old = np.linalg.inv(v.affine) @ out.affine
    positions = to_old[:3, :3] @ np.indices(out.spatial_shape).reshape(3, -1) + to_old[:3, 3:]
    upper = np.reshape(v.spatial_shape, (3, 1)) - 1
    d, h, w = np.clip(np.floor(positions + 0.5 + 1e-9), 0, upper).astype(int)
    assert np.array_equal(out.data[0].numpy().ravel(), v.data[0].numpy()[d, h, w])


def test_resampling_to_its_own_spacing_changes_nothing() -> None:
    v = volume(1, shape=(7, 8, 9), dtype=torch.float32)
    out = v.resample(v.spacing, mode="linear")

    assert_close(out.data, v.data, rtol=1e-6, atol=1e-5)
    assert_close(out.affine.copy(), v.affine.copy())


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.int16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64),
     (torch.complex64, torch.complex64)],
)  # fmt: skip
def test_linear_resampling_computes_in_float32_or_better(dtype, expected) -> None:
    out = volume(dtype=dtype).resample(1.0, mode="linear")

    assert out.data.dtype == expected


def test_one_slice_can_be_resampled() -> None:
    flat = Volume(torch.ones(1, 1, 4, 4), np.diag([5.0, 1, 1, 1]))

    assert flat.resample((1.0, 2.0, 2.0), mode="linear").shape == (1, 5, 2, 2)
    assert flat.resample(50.0, mode="nearest").shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("spacing", "mode", "message"),
    [(0.0, "linear", "spacing must be positive"), ((1.0,), "linear", "spacing must be one value")],
)  # fmt: skip
def test_resample_checks_its_arguments(spacing, mode, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        volume().resample(spacing, mode=mode)


@pytest.mark.usefixtures("unhooked")
def test_an_array_is_no_tensor() -> None:
    with pytest.raises(TypeError, match=r"^data must be a tensor .*; got ndarray$"):
        Volume(np.zeros((1, 2, 3, 4)), np.eye(4))
