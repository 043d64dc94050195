"""In every other library the corner voxels are where they were, and the voxels the same."""

import numpy as np
import pytest
import torch

from medkit.data import GeometryError, Volume
from medkit.ops import corner_indices
from medkit.testing import assert_close
from unit.data.volumes import DTYPES, affine, volume, world

SEEDS = range(6)


def _corners(v: Volume) -> list[tuple[int, int, int]]:
    return [(d, h, w) for d, h, w in corner_indices(v.spatial_shape).tolist()]


@pytest.mark.parametrize("shear", [0.0, 0.3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_nibabel_sees_every_corner_where_it_is(seed: int, channels: int, shear: float) -> None:
    pytest.importorskip("nibabel")
    v = volume(seed, channels=channels, shear=shear)
    image = v.to_nibabel()

    array = np.asarray(image.dataobj).reshape(*v.spatial_shape[::-1], channels)
    for d, h, w in _corners(v):
        assert np.array_equal(array[w, h, d], v.data[:, d, h, w].numpy())
        assert_close((image.affine @ (w, h, d, 1))[:3], world(v, (d, h, w)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_simpleitk_sees_every_corner_where_it_is(seed: int, channels: int) -> None:
    pytest.importorskip("SimpleITK")
    v = volume(seed, channels=channels, dtype=torch.float32)
    image = v.to_sitk()

    assert image.GetNumberOfComponentsPerPixel() == channels
    for d, h, w in _corners(v):
        assert np.array_equal(image.GetPixel(w, h, d), np.squeeze(v.data[:, d, h, w].numpy()))
        left, posterior, superior = image.TransformIndexToPhysicalPoint((w, h, d))
        assert_close([-left, -posterior, superior], world(v, (d, h, w)), rtol=1e-9)


def test_simpleitk_refuses_what_it_cannot_hold() -> None:
    pytest.importorskip("SimpleITK")

    with pytest.raises(GeometryError, match="axes of the affine must be at right angles"):
        volume(shear=0.1).to_sitk()


@pytest.mark.parametrize("shear", [0.0, 0.3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_monai_sees_every_corner_where_it_is(seed: int, channels: int, shear: float) -> None:
    pytest.importorskip("monai")
    v = volume(seed, channels=channels, shear=shear)
    image = v.to_monai()

    for d, h, w in _corners(v):
        assert torch.equal(image.as_tensor()[:, w, h, d], v.data[:, d, h, w])
        assert_close(image.affine.numpy() @ (w, h, d, 1), [*world(v, (d, h, w)), 1.0])


@pytest.mark.parametrize("shear", [0.0, 0.3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_torchio_sees_every_corner_where_it_is(seed: int, channels: int, shear: float) -> None:
    pytest.importorskip("torchio")
    v = volume(seed, channels=channels, shear=shear)
    image = v.to_torchio()

    for d, h, w in _corners(v):
        assert torch.equal(image.data[:, w, h, d], v.data[:, d, h, w])
        assert_close(np.asarray(image.affine) @ (w, h, d, 1), [*world(v, (d, h, w)), 1.0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_nibabel_and_simpleitk_get_the_dtype(dtype: torch.dtype) -> None:
    pytest.importorskip("nibabel")
    sitk = pytest.importorskip("SimpleITK")
    v = volume(dtype=dtype)

    assert v.to_nibabel().get_data_dtype() == v.data.numpy().dtype
    assert sitk.GetArrayViewFromImage(v.to_sitk()).dtype == v.data.numpy().dtype


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [(torch.bool, "u1"), (torch.float16, "f4"), (torch.bfloat16, "f4")],
)
def test_types_that_files_lack_are_widened(dtype: torch.dtype, stored: str) -> None:
    pytest.importorskip("nibabel")
    v = Volume(torch.ones(1, 2, 3, 4, dtype=dtype), affine())

    assert v.to_nibabel().get_data_dtype() == np.dtype(stored)
