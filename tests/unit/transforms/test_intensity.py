"""Intensity formulas beside SciPy, NumPy, scikit-image and TorchIO."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

import medkit.transforms as mt
from medkit.testing import assert_close

SURE = {"probability": 1.0}
IMAGE = torch.rand(2, 9, 12, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sigma", [0.4, (0.5, 0.0, 2.5)])
def test_blur_equals_scipy(sigma) -> None:
    expected = np.stack([gaussian_filter(c, sigma, truncate=4) for c in IMAGE.numpy()])

    assert_close(mt.gaussian_blur(IMAGE, sigma=sigma), torch.tensor(expected))


def test_blur_wider_than_the_image_equals_scipy() -> None:
    expected = gaussian_filter(IMAGE[0, 0, 0].numpy(), 20)

    assert_close(mt.gaussian_blur(IMAGE[:1, 0, 0], sigma=20)[0], torch.tensor(expected))


def test_cut_off_gaussian_is_a_kernel_of_five() -> None:
    expected = gaussian_filter(IMAGE[0, 0].numpy(), 1, truncate=2)

    blurred = mt.gaussian_blur(IMAGE[:1, 0], sigma=1, truncate=2)
    impulse = mt.gaussian_blur(torch.eye(1, 9).roll(4, 1), sigma=1, truncate=2)

    assert_close(blurred[0], torch.tensor(expected))
    assert (impulse > 0).sum() == 5


@pytest.mark.parametrize("nonzero", [False, True])
def test_percentiles_equal_numpy(nonzero: bool) -> None:
    image = IMAGE.where(IMAGE > 0.3, torch.zeros(()).double())
    counted = image[0][image[0] != 0] if nonzero else image[0]
    low, high = np.percentile(counted.numpy(), [2.5, 90])

    result = mt.normalize_percentiles(image, lower=2.5, upper=90, nonzero=nonzero)

    assert_close(result[0], ((image[0] - low) / (high - low)).clamp(0, 1))


def test_gamma_equals_scikit_image() -> None:
    exposure = pytest.importorskip("skimage.exposure")
    image = IMAGE[:1] - IMAGE[:1].min()
    image /= image.max()

    expected = exposure.adjust_gamma(image.numpy(), 1.7)

    assert_close(mt.adjust_gamma(image, gamma=1.7), torch.tensor(expected))


@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_with_statistics_equals_monai(inverted: bool) -> None:
    monai = pytest.importorskip("monai.transforms")
    image = IMAGE[:1].float() * 7 - 2

    adjust = monai.AdjustContrast(0.6, invert_image=inverted, retain_stats=True)

    ours = mt.adjust_gamma(image, gamma=0.6, inverted=inverted, keeps_statistics=True)
    # MONAI adds 1e-7 to the range, and its values reach 5
    assert_close(ours, torch.as_tensor(adjust(image)), atol=2e-5, rtol=0)


@pytest.mark.parametrize("keeps_range", [False, True])
def test_contrast_is_the_distance_from_the_mean(keeps_range: bool) -> None:
    array = IMAGE.numpy()
    mean = array.mean(axis=(1, 2, 3), keepdims=True)
    expected = mean + 1.6 * (array - mean)
    if keeps_range:
        ends = (array.min(axis=(1, 2, 3), keepdims=True), array.max(axis=(1, 2, 3), keepdims=True))
        expected = expected.clip(*ends)

    result = mt.adjust_contrast(IMAGE, factor=1.6, keeps_range=keeps_range)

    assert_close(result, torch.tensor(expected))


def test_gamma_and_contrast_equal_batchgenerators() -> None:
    gamma = pytest.importorskip("batchgeneratorsv2.transforms.intensity.gamma")
    contrast = pytest.importorskip("batchgeneratorsv2.transforms.intensity.contrast")
    image = IMAGE.float()
    theirs = gamma.GammaTransform(
        (1.3, 1.3), p_invert_image=1, synchronize_channels=True, p_per_channel=1, p_retain_stats=1
    )
    expected = theirs(image=image.clone())["image"]
    ours = mt.adjust_gamma(image, gamma=1.3, inverted=True, keeps_statistics=True)
    assert_close(ours, expected, atol=2e-5, rtol=0)  # theirs adds 1e-7 to the range

    theirs = contrast.ContrastTransform((0.6, 0.6), True, True, p_per_channel=1)
    expected = theirs(image=image.clone())["image"]
    assert_close(mt.adjust_contrast(image, factor=0.6), expected, atol=1e-6, rtol=0)


def test_low_resolution_equals_torch() -> None:
    size = (4, 6, 8)
    small = F.interpolate(IMAGE[None], size=size, mode="nearest-exact")
    expected = F.interpolate(small, size=IMAGE.shape[1:], mode="trilinear")[0]

    zoom = [new / old for new, old in zip(size, IMAGE.shape[1:], strict=True)]

    assert_close(mt.simulate_low_resolution(IMAGE, zoom=zoom), expected)


def test_bias_field_equals_torchio() -> None:
    torchio = pytest.importorskip("torchio")
    drawn = np.random.default_rng(0).uniform(-0.5, 0.5, 20)
    image = IMAGE[:1].float()

    field = torchio.BiasField.generate_bias_field(image, 3, drawn)

    ours = mt.apply_bias_field(torch.ones_like(image), coefficients=drawn.tolist())
    assert_close(ours[0], torch.tensor(field), atol=1e-6, rtol=1e-5)


def test_bias_field_is_the_exponential_of_a_polynomial() -> None:
    coefficients = np.random.default_rng(0).uniform(-0.5, 0.5, 10)
    d, h, w = np.meshgrid(*(np.linspace(-1, 1, n) for n in IMAGE.shape[1:]), indexing="ij")
    powers = [(i, j, k) for i in range(3) for j in range(3) for k in range(3) if i + j + k <= 2]
    total = sum(c * d**i * h**j * w**k for c, (i, j, k) in zip(coefficients, powers, strict=True))

    result = mt.apply_bias_field(IMAGE, coefficients=coefficients.tolist(), order=2)

    assert_close(result, IMAGE * torch.tensor(np.exp(total)))


def test_mixup_is_the_weighted_mean() -> None:
    batch, weight = torch.rand(4, 2, 3), torch.tensor([0.0, 0.3, 0.5, 1.0])
    order = torch.tensor([1, 0, 3, 2])

    mixed = mt.mixup(batch, weight=weight, order=order)

    for i in range(4):
        assert_close(mixed[i], weight[i] * batch[i] + (1 - weight[i]) * batch[order[i]])


def test_cut_out_hides_rectangles_and_keeps_invalid_voxels() -> None:
    label = torch.zeros(1, 6, 20, 20, dtype=torch.uint8)
    label[:, :3] = 2
    cut = mt.RandomCutOut(size=(4, 6), num_cuts=1, invalid_label=2, **SURE)

    hidden = [
        cut({"image": torch.ones(1, 6, 20, 20), "label": label})["image"][0] == 0 for _ in range(30)
    ]

    assert not any(bool(mask[:3].any()) for mask in hidden)
    assert all(bool((mask[3] == mask[5]).all()) for mask in hidden)
    assert max(int(mask[3].sum()) for mask in hidden) == 24
    assert min(int(mask[3].sum()) for mask in hidden) >= 6


def test_a_quarter_of_the_voxels_cut_out_by_noise_keep_the_range() -> None:
    image = torch.rand(1, 3, 16, 16)

    result = mt.RandomCutOut(size=8, fill="noise", through="slice", **SURE)({"image": image})

    assert float(result["image"].min()) >= float(image.min())
    assert float(result["image"].max()) <= float(image.max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int16, torch.uint8])
def test_statistics_are_taken_in_float32(dtype: torch.dtype) -> None:
    image = (torch.rand(1, 40, 40, 40) * 200).to(dtype)

    result = mt.normalize_intensity(image)

    assert result.dtype == torch.float32
    assert_close(result, mt.normalize_intensity(image.double()).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("nonzero", [False, True])
@pytest.mark.parametrize("channel_wise", [False, True])
def test_bytes_are_normalized_like_the_numbers_they_are(nonzero: bool, channel_wise: bool) -> None:
    image = torch.randint(0, 256, (2, 9, 10, 11), dtype=torch.uint8)
    image[0, :4] = 0
    expected = image.double().numpy()
    for part in expected if channel_wise else (expected,):
        counted = part != 0 if nonzero else np.ones_like(part, dtype=bool)
        part[counted] = (part[counted] - part[counted].mean()) / part[counted].std()

    result = mt.normalize_intensity(image, nonzero=nonzero, channel_wise=channel_wise)

    assert result.dtype == torch.float32
    assert_close(result.double(), expected, atol=1e-6, rtol=0)


def test_bytes_of_zeros_alone_stay_zeros() -> None:
    zeros = torch.zeros(1, 3, 3, dtype=torch.uint8)

    for nonzero in (False, True):
        result = mt.normalize_intensity(zeros, nonzero=nonzero)
        assert result.dtype == torch.float32
        assert not result.any()


def test_random_crop_keeps_to_known_voxels() -> None:
    label = torch.full((1, 30, 30), 2)
    label[:, :10] = 1
    crop = mt.RandomSpatialCrop(size=8, invalid_label=2, min_valid_ratio=0.5, max_attempts=200)

    shares = [
        float((crop({"image": label.float(), "label": label})["label"] == 1).float().mean())
        for _ in range(40)
    ]

    assert min(shares) >= 0.5


@pytest.mark.parametrize("shape", [(40,), (5, 8), (4, 2, 5)])
def test_random_crop_is_even_over_known_voxels(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    label = torch.full((40,), 2)
    known = torch.tensor([0, 7, 19, 20, 39])
    label[known] = 1
    sample = {"image": torch.arange(40.0).reshape(1, *shape), "label": label.reshape(1, *shape)}
    crop = mt.RandomSpatialCrop(size=1, invalid_label=2)

    drawn = torch.stack([crop(sample, generator=rng)["image"].flatten()[0] for _ in range(2000)])

    places, counts = drawn.unique(return_counts=True)
    assert torch.equal(places, known.float())
    assert (counts - 400).abs().max() < 5 * np.sqrt(320)


def test_random_crop_is_even_over_all_places() -> None:
    rng = np.random.default_rng(0)
    crop = mt.RandomSpatialCrop(size=3)
    sample = {"image": torch.arange(6.0)[None]}

    starts = [int(crop(sample, generator=rng)["image"][0, 0]) for _ in range(4000)]

    counts = np.bincount(starts, minlength=4)
    assert counts.sum() == 4000
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(750)
