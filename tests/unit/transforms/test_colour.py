"""CLAHE beside OpenCV, colours beside HistomicsTK, stains beside scikit-image and known ones."""

from pathlib import Path

import numpy as np
import pytest
import torch

import medkit.transforms as mt
from medkit.testing import assert_close

GOLDEN = Path(__file__).parents[2] / "golden"
FILE = GOLDEN / "clahe" / "clahe.npz"


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


@pytest.fixture(scope="module")
def histomicstk() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "reinhard" / "reinhard.npz") as file:
        return {key: torch.tensor(file[key]) for key in file.files}


def test_colour_statistics_equal_histomicstk(histomicstk: dict[str, torch.Tensor]) -> None:
    image, tissue = histomicstk["image"], histomicstk["tissue"]
    bright = torch.tensor([np.sqrt(3) * np.log(255), 0, 0])  # its light goes up to 255

    for mask, name in ((None, ""), (tissue, "tissue_")):
        found = mt.colour_statistics(image, mask=mask)
        means = torch.tensor(found.means, dtype=torch.float64) + bright
        deviations = torch.tensor(found.deviations, dtype=torch.float64)
        # light is divided by 255 in float32
        assert_close(means, histomicstk[name + "means"], atol=1e-6, rtol=0)
        assert_close(deviations, histomicstk[name + "deviations"], atol=1e-6, rtol=0)


def test_normalized_colours_equal_histomicstk_byte_for_byte(
    histomicstk: dict[str, torch.Tensor],
) -> None:
    result = mt.normalize_colours(histomicstk["image"])

    assert torch.equal((result * 255).floor().to(torch.uint8), histomicstk["result"])


def test_colours_get_the_statistics_of_another_image() -> None:
    first, second = (torch.rand(3, 16, 18, dtype=torch.float64) / 4 + 0.4 for _ in range(2))
    reference = mt.colour_statistics(second)

    result = mt.normalize_colours(first, target=reference)

    again = mt.normalize_colours(first, target=reference, source=mt.colour_statistics(first))
    found = mt.colour_statistics(result)
    assert torch.equal(again, result)
    assert ((result > 0) & (result < 1)).all()
    np.testing.assert_allclose(found.means, reference.means, atol=1e-9)
    np.testing.assert_allclose(found.deviations, reference.deviations, atol=1e-9)


def test_one_colour_becomes_the_mean_of_the_reference() -> None:
    reference = mt.ColourStatistics((-0.8, -0.1, 0.05), (0.5, 0.1, 0.02))

    result = mt.normalize_colours(torch.full((3, 4, 5), 0.5), target=reference)

    found = mt.colour_statistics(result)
    np.testing.assert_allclose(found.means, reference.means, atol=1e-6)


def test_statistics_of_no_pixel_are_refused() -> None:
    with pytest.raises(ValueError, match="mask must be true somewhere; got no pixel"):
        mt.colour_statistics(torch.rand(3, 2, 2), mask=torch.zeros(2, 2, dtype=torch.bool))
