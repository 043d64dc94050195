"""CLAHE beside OpenCV, stains beside scikit-image and a construction with known stains."""

from pathlib import Path

import numpy as np
import pytest
import torch

import medkit.transforms as mt
from medkit.testing import assert_close

FILE = Path(__file__).parents[2] / "golden" / "clahe" / "clahe.npz"


@pytest.mark.parametrize("case", [0, 1, 2])
def test_clahe_equals_opencv_byte_for_byte(case: int) -> None:
    with np.load(FILE) as file:
        image, expected = (torch.tensor(file[f"{case}/{key}"]) for key in ("image", "result"))
        limit, rows, columns = file[f"{case}/options"].tolist()

    result = mt.equalize_contrast(image[None], clip_limit=limit, tiles=(int(rows), int(columns)))

    assert torch.equal((result[0] * 255).round().to(torch.uint8), expected)
    again = mt.equalize_contrast(
        image[None].float() / 255, clip_limit=limit, tiles=(int(rows), int(columns))
    )
    assert torch.equal(again, result)


def test_more_tiles_than_voxels_are_an_error() -> None:
    with pytest.raises(ValueError, match="tiles must be fewer than there are voxels"):
        mt.equalize_contrast(torch.rand(1, 3, 40))


def test_stain_jitter_equals_scikit_image() -> None:
    color = pytest.importorskip("skimage.color")
    amounts = np.random.default_rng(0).uniform(0.02, 0.15, (9, 11, 3))
    image = color.hed2rgb(amounts)
    factors, offsets = np.array([1.1, 0.8, 0.95]), np.array([0.01, -0.01, 0.02])

    expected = color.hed2rgb(color.rgb2hed(image) * factors + offsets)

    given = torch.tensor(image).permute(2, 0, 1)
    result = mt.jitter_stains(given, factors=factors.tolist(), offsets=offsets.tolist())
    assert_close(result.permute(1, 2, 0), torch.tensor(expected), atol=1e-6, rtol=0)


def test_no_jitter_changes_nothing() -> None:
    image = torch.rand(3, 8, 9, dtype=torch.float64).clamp_min(0.05)

    assert_close(mt.jitter_stains(image, factors=(1, 1, 1)), image, atol=1e-9, rtol=0)


def test_known_stains_become_those_of_the_reference() -> None:
    rng = np.random.default_rng(0)
    own = np.array([[0.65, 0.3], [0.6, 0.8], [0.4, 0.5]])
    own /= np.linalg.norm(own, axis=0)
    target = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
    target /= np.linalg.norm(target, axis=0)
    amounts = rng.uniform(0.6, 1.2, (2, 4000))
    amounts[1, :400], amounts[0, 400:800] = 0, 0  # voxels of one stain alone show its colour
    image = torch.tensor(np.exp(-own @ amounts)).reshape(3, 50, 80)

    result = mt.normalize_stains(image, maxima=(1.0, 1.0))

    tops = np.percentile(amounts, 99, axis=1, keepdims=True)
    expected = np.exp(-target @ (amounts / tops)).reshape(3, 50, 80)
    assert_close(result, torch.tensor(expected), atol=1e-6, rtol=0)


def test_images_of_one_channel_have_no_stains() -> None:
    with pytest.raises(ValueError, match=r"image must be \(3, height, width\)"):
        mt.RandomStainJitter(probability=1.0)({"image": torch.rand(1, 4, 4)})


def test_bytes_are_taken_as_light() -> None:
    image = torch.randint(20, 255, (3, 12, 12), dtype=torch.uint8)

    result = mt.jitter_stains(image, factors=(1, 1, 1))

    assert_close(result, image / 255, atol=1e-5, rtol=0)
