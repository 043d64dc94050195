"""Images that other libraries make become volumes with every corner where they say it is."""

import numpy as np
import pytest
import torch

from medkit.data import GeometryError, from_monai, from_nibabel, from_sitk, from_torchio
from medkit.ops import corner_indices
from medkit.testing import assert_close
from unit.data.volumes import DTYPES, affine, volume, world

SEEDS = range(4)
PLACES = [(seed, channels) for seed in SEEDS for channels in (1, 3)]


def _array(channels: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 4, 3, channels)).astype("f4")


def _assert_same(v, array: np.ndarray, matrix: np.ndarray) -> None:
    """Compare with an array (W, H, D, C) and its affine to RAS+."""
    assert v.shape == array.shape[::-1]
    for d, h, w in corner_indices(v.spatial_shape).tolist():
        assert np.array_equal(v.data[:, d, h, w].numpy(), array[w, h, d])
        assert_close(world(v, (d, h, w)), (matrix @ (w, h, d, 1))[:3], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("seed", "channels"), PLACES)
def test_nibabel(seed: int, channels: int) -> None:
    nibabel = pytest.importorskip("nibabel")
    array, matrix = _array(channels), affine(seed, shear=0.2)
    stored = array[..., 0] if channels == 1 else array

    _assert_same(from_nibabel(nibabel.Nifti1Image(stored, matrix)), array, matrix)
    vectors = nibabel.Nifti1Image(array[:, :, :, None], matrix)
    _assert_same(from_nibabel(vectors), array, matrix)
    _assert_same(from_nibabel(nibabel.MGHImage(stored, matrix)), array, matrix)


@pytest.mark.parametrize(("seed", "channels"), PLACES)
def test_sitk(seed: int, channels: int) -> None:
    sitk = pytest.importorskip("SimpleITK")
    array = _array(channels)
    pixels = array.transpose(2, 1, 0, 3)
    image = sitk.GetImageFromArray(pixels if channels > 1 else pixels[..., 0], channels > 1)
    generator = np.random.default_rng(seed)
    image.SetSpacing(generator.uniform(0.3, 5, 3).tolist())
    image.SetOrigin(generator.uniform(-200, 200, 3).tolist())
    image.SetDirection(np.linalg.qr(generator.normal(size=(3, 3)))[0].ravel().tolist())
    v = from_sitk(image)

    assert v.shape == array.shape[::-1]
    for d, h, w in corner_indices(v.spatial_shape).tolist():
        assert np.array_equal(v.data[:, d, h, w].numpy(), array[w, h, d])
        left, posterior, superior = image.TransformIndexToPhysicalPoint((w, h, d))
        assert_close(world(v, (d, h, w)), [-left, -posterior, superior], rtol=1e-9)


@pytest.mark.parametrize(("seed", "channels"), PLACES)
def test_monai_and_torchio(seed: int, channels: int) -> None:
    meta = pytest.importorskip("monai.data.meta_tensor")
    torchio = pytest.importorskip("torchio")
    array, matrix = _array(channels), affine(seed)
    tensor = torch.as_tensor(np.moveaxis(array, -1, 0).copy())

    _assert_same(from_monai(meta.MetaTensor(tensor, affine=torch.as_tensor(matrix))), array, matrix)
    _assert_same(from_torchio(torchio.ScalarImage(tensor=tensor, affine=matrix)), array, matrix)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if not dtype.is_complex])
def test_there_and_back_again(dtype: torch.dtype) -> None:
    for name in ("nibabel", "SimpleITK", "monai", "torchio"):
        pytest.importorskip(name)
    v = volume(3, channels=2, dtype=dtype)
    for again in (
        from_nibabel(v.to_nibabel()),
        from_sitk(v.to_sitk()),
        from_monai(v.to_monai()),
        from_torchio(v.to_torchio()),
    ):
        assert again.data.dtype == dtype
        assert torch.equal(again.data, v.data)
        assert_close(again.affine.copy(), v.affine.copy(), rtol=1e-12, atol=1e-12)


def test_images_that_are_no_volume_are_refused() -> None:
    nibabel = pytest.importorskip("nibabel")
    sitk = pytest.importorskip("SimpleITK")
    meta = pytest.importorskip("monai.data.meta_tensor")

    with pytest.raises(ValueError, match=r"image must be of axes \(W, H, D\)"):
        from_nibabel(nibabel.Nifti1Image(np.zeros((2, 3), "f4"), np.eye(4)))
    with pytest.raises(GeometryError, match="invertible"):
        from_monai(
            meta.MetaTensor(
                torch.zeros(1, 2, 3, 4), affine=torch.diag(torch.tensor([1.0, 1, 0, 1]))
            )
        )
    with pytest.raises(GeometryError, match="affine of the image must be there"):
        from_nibabel(nibabel.Nifti1Pair(np.zeros((2, 3, 4), "f4"), None))
    with pytest.raises(ValueError, match="image must be of three axes; got 2 axes"):
        from_sitk(sitk.Image(4, 4, sitk.sitkFloat32))
    with pytest.raises(ValueError, match=r"image must be of axes \(C, W, H, D\)"):
        from_monai(meta.MetaTensor(torch.zeros(1, 2, 3)))
