"""Resampling against torch, SciPy's splines, SimpleITK and known functions of position."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from medkit.ops import resample, resample_to_grid, rescale_affine, transform_points
from medkit.testing import assert_close
from unit.losses.refusals import refuses

ORDER = {"nearest": 0, "linear": 1, "cubic": 3}
TORCH = {1: "linear", 2: "bilinear", 3: "trilinear"}


def _image(*spatial: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, *spatial, dtype=torch.float64, generator=generator)


def _positions(count: int, size: int, step: float) -> np.ndarray:
    middle = (count - 1) / 2
    return np.clip(middle + step * (np.arange(size) - (size - 1) / 2), 0, count - 1)


def _by_scipy(image: np.ndarray, positions: list[np.ndarray], mode: str) -> np.ndarray:
    ndimage = pytest.importorskip("scipy.ndimage")
    grid = np.stack(np.meshgrid(*positions, indexing="ij"))
    return ndimage.map_coordinates(image, grid, order=ORDER[mode], mode="mirror")


@pytest.mark.parametrize("spatial", [(9,), (8, 5), (4, 7, 5)])
@pytest.mark.parametrize("factor", [0.4, 1.0, 2.3])
def test_linear_is_that_of_torch_with_half_pixel_centres(spatial, factor) -> None:
    x = _image(*spatial)
    size = tuple(max(1, round(factor * n)) for n in spatial)

    found = resample(x, size=size, mode="linear")

    assert_close(found, F.interpolate(x, size=size, mode=TORCH[len(spatial)]))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 10, 15, 20, 37])
def test_nearest_is_nearest_exact_of_torch(size: int) -> None:
    x = torch.arange(10.0).reshape(1, 1, 10)

    found = resample(x, size=(size,), mode="nearest")

    assert torch.equal(found, F.interpolate(x, size=size, mode="nearest-exact"))


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("new", [(0.8, 0.5, 1.0), (1.7, 3.1, 2.5), (9.0, 2.0, 1.3)])
def test_spacings_are_those_of_scipy(new, mode) -> None:
    x, old = _image(6, 7, 5), (1.5, 1.0, 2.0)

    found = resample(x, spacing=old, new_spacing=new, mode=mode)

    size = [max(1, round(n * a / b)) for n, a, b in zip(x.shape[2:], old, new, strict=True)]
    assert list(found.shape[2:]) == size
    positions = [
        _positions(n, m, b / a) for n, m, a, b in zip(x.shape[2:], size, old, new, strict=True)
    ]
    for place in np.ndindex(2, 3):
        expected = _by_scipy(x[place].numpy(), positions, mode)
        assert_close(found[place], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_cubic_passes_through_the_voxels(count: int) -> None:
    x = _image(count, 3)

    assert_close(resample(x, size=(count, 3), mode="cubic"), x)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("step", [1.5, 2.0, 4.4])
def test_smoothing_is_the_gaussian_of_scipy(step, mode) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x = _image(30, 20)

    found = resample(x, new_spacing=(step, 1.0), mode=mode, antialias=True)

    deviation = math.sqrt(step**2 - 1) / (2 * math.sqrt(2 * math.log(2)))
    radius = math.ceil(4 * deviation)
    positions = [_positions(30, found.shape[2], step), np.arange(20.0)]
    for place in np.ndindex(2, 3):
        smooth = ndimage.gaussian_filter1d(
            x[place].numpy(), deviation, axis=0, mode="nearest", radius=radius
        )
        assert_close(found[place], _by_scipy(smooth, positions, mode), rtol=1e-9, atol=1e-11)


def test_smoothing_removes_what_the_new_grid_cannot_hold() -> None:
    stripes = torch.arange(64).remainder(4).lt(2).double().reshape(1, 1, 64)
    aliased = resample(stripes, size=(15,), mode="linear")
    smooth = resample(stripes, size=(15,), mode="linear", antialias=True)

    assert (smooth - 0.5).abs().max() < 0.25 * (aliased - 0.5).abs().max()


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_smoothing_leaves_axes_that_gain_voxels(mode: str) -> None:
    x = _image(5, 6)

    assert_close(
        resample(x, size=(9, 6), mode=mode, antialias=True), resample(x, size=(9, 6), mode=mode)
    )


@given(seed=st.integers(0, 999), antialias=st.booleans(), mode=st.sampled_from(["linear", "cubic"]))
def test_constants_stay(seed, antialias, mode) -> None:
    rng = np.random.default_rng(seed)
    x = torch.full((1, 1, *rng.integers(1, 9, 3).tolist()), 0.3, dtype=torch.float64)

    found = resample(x, size=rng.integers(1, 15, 3).tolist(), mode=mode, antialias=antialias)

    assert_close(found, torch.full_like(found, 0.3))


@given(seed=st.integers(0, 9999), mode=st.sampled_from(["linear", "cubic"]))
def test_landmarks_keep_their_place_in_the_world(seed, mode) -> None:
    """Coordinates are resampled like an image, and the new affine says the same."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 9, 3) + (0 if mode == "linear" else 14)
    affine = np.eye(4)
    affine[:3] = rng.normal(size=(3, 4)) * [2.0, 1.0, 0.5, 40.0]
    old = np.sqrt(np.square(affine[:3, :3]).sum(0))
    new = old * rng.uniform(0.4, 1.6, 3)
    world = torch.from_numpy(transform_points(affine, _indices(shape))).movedim(-1, 0)[None]

    found = resample(world, spacing=old.tolist(), new_spacing=new.tolist(), mode=mode)

    moved = rescale_affine(affine, shape.tolist(), found.shape[2:], new.tolist())
    expected = transform_points(moved, _indices(found.shape[2:]))
    back = (expected - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    margin = 0.0 if mode == "linear" else 6.0  # near its edge a mirrored ramp bends
    inside = ((back >= margin) & (back <= shape - 1 - margin)).all(-1)
    error = np.linalg.norm(found[0].movedim(0, -1).numpy() - expected, axis=-1)[inside]
    assert error.max(initial=0.0) <= (1e-9 if mode == "linear" else 1e-3) * old.max()


def _indices(shape) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)


# Any grid in space


def _turned(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation * rng.uniform(0.5, 2.0, 3)
    affine[:3, 3] = rng.uniform(-2, 2, 3)
    return affine


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("seed", range(4))
def test_any_grid_is_that_of_scipy(seed, mode) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x, affine, new = _image(6, 7, 8), _turned(seed), _turned(seed + 10)
    size = (5, 6, 4)

    found = resample_to_grid(x, affine, new, size=size, mode=mode, fill=-1.0)

    places = transform_points(np.linalg.inv(affine) @ new, _indices(size)).reshape(-1, 3).T
    last = np.array(x.shape[2:])[:, None] - 1
    outside = ((places < -0.5) | (places > last + 0.5)).any(0)
    clipped = np.clip(places, 0, last)
    clipped = np.floor(clipped + 0.5) if mode == "nearest" else clipped
    for place in np.ndindex(2, 3):
        expected = ndimage.map_coordinates(
            x[place].numpy(), clipped, order=ORDER[mode], mode="mirror"
        )
        expected[outside] = -1.0
        assert_close(found[place].reshape(-1), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("seed", range(4))
def test_any_grid_is_that_of_simpleitk(seed, mode) -> None:
    sitk = pytest.importorskip("SimpleITK")
    x, affine, new, size = _image(6, 7, 8), _turned(seed), _turned(seed + 10), (9, 6, 7)
    image = sitk.GetImageFromArray(x[0, 0].numpy())
    image = _placed(image, affine)
    like = _placed(sitk.Image(size[::-1], sitk.sitkFloat64), new)
    interpolator = sitk.sitkLinear if mode == "linear" else sitk.sitkNearestNeighbor

    theirs = sitk.GetArrayFromImage(sitk.Resample(image, like, sitk.Transform(), interpolator, 9.0))

    found = resample_to_grid(x, affine, new, size=size, mode=mode, fill=9.0)[0, 0].numpy()
    assert_close(found, theirs, rtol=1e-9, atol=1e-9)


def _placed(image, affine: np.ndarray):
    """Give an image of SimpleITK, whose indices are (w, h, d), an affine of (d, h, w)."""
    spacing = np.sqrt(np.square(affine[:3, :3]).sum(0))
    image.SetSpacing(spacing[::-1].tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing)[:, ::-1].ravel().tolist())
    return image


@given(seed=st.integers(0, 9999))
def test_landmarks_keep_their_place_on_any_grid(seed) -> None:
    rng = np.random.default_rng(seed)
    affine, new = _turned(seed), _turned(seed + 1)
    world = torch.from_numpy(transform_points(affine, _indices((6, 7, 8)))).movedim(-1, 0)[None]
    size = rng.integers(1, 6, 3).tolist()

    found = resample_to_grid(world, affine, new, size=size, mode="linear", fill=math.nan)

    expected = transform_points(new, _indices(size))
    back = transform_points(np.linalg.inv(affine), expected)
    inside = ((back >= 0) & (back <= [5, 6, 7])).all(-1)
    error = np.abs(found[0].movedim(0, -1).numpy() - expected)[inside]
    assert error.max(initial=0.0) <= 1e-9


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_complex_volumes_are_their_parts(mode: str) -> None:
    real, imaginary, new = _image(3, 4, 5), _image(3, 4, 5, seed=1), _turned(3)
    options = {"size": (4, 3, 2), "mode": mode}

    found = resample_to_grid(torch.complex(real, imaginary), np.eye(4), new, **options)

    assert_close(found.real, resample_to_grid(real, np.eye(4), new, **options))
    assert_close(found.imag, resample_to_grid(imaginary, np.eye(4), new, **options))


@given(seed=st.integers(0, 9999))
def test_float32_keeps_the_place_of_landmarks(seed: int) -> None:
    """A ramp of one per voxel over 300 voxels is found to 1e-3 voxel."""
    rng = np.random.default_rng(seed)
    ramp = torch.arange(300.0).reshape(1, 1, 1, 1, 300)
    moved = np.eye(4)
    moved[2, 3], moved[2, 2] = rng.uniform(0, 20), rng.uniform(0.1, 2.5)

    found = resample_to_grid(ramp, np.eye(4), moved, size=(1, 1, 100), mode="linear")

    expected = moved[2, 3] + moved[2, 2] * np.arange(100)
    assert np.abs(found[0, 0, 0, 0].numpy() - expected).max() < 1e-3


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_a_parallel_grid_is_resampled_alike(mode: str) -> None:
    x, affine = _image(6, 7, 8), _turned(0)
    size, step = (4, 9, 8), (1.3, 0.8, 1.1)
    spacing = np.sqrt(np.square(affine[:3, :3]).sum(0))
    new = rescale_affine(affine, (6, 7, 8), size, (spacing * step).tolist())

    found = resample_to_grid(x, affine, new, size=size, mode=mode, fill=None)

    assert_close(found, resample(x, size=size, new_spacing=step, mode=mode))


# Types, gradients, arguments


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_gradients_are_exact(mode, antialias) -> None:
    x = _image(4, 3).requires_grad_()

    assert torch.autograd.gradcheck(
        lambda x: resample(x, size=(2, 5), mode=mode, antialias=antialias), x
    )


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_gradients_on_any_grid_are_exact(mode) -> None:
    x = _image(3, 2, 3).requires_grad_()

    assert torch.autograd.gradcheck(
        lambda x: resample_to_grid(x, np.eye(4), _turned(1), size=(2, 3, 2), mode=mode), x
    )


@pytest.mark.parametrize(
    ("dtype", "between"),
    [
        (torch.uint8, torch.float32),
        (torch.int16, torch.float32),
        (torch.uint16, torch.float32),
        (torch.bool, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
        (torch.complex64, torch.complex64),
    ],
)
def test_types(dtype, between) -> None:
    x = (5 * torch.rand(1, 2, 3, 4, 5)).to(dtype)

    for mode, expected in (("nearest", dtype), ("linear", between), ("cubic", between)):
        assert resample(x, size=(2, 3, 4), mode=mode).dtype == expected
        grid = resample_to_grid(x, np.eye(4), np.eye(4), size=(2, 3, 4), mode=mode, fill=0)
        assert grid.dtype == expected
        assert_close(grid, x[..., :2, :3, :4].to(expected), rtol=1e-6, atol=1e-6)


def test_bad_arguments_are_named() -> None:
    x = torch.rand(1, 1, 4, 4)
    with pytest.raises(ValueError, match="size or new_spacing must be given"):
        resample(x, mode="linear")
    with pytest.raises(ValueError, match="size must be one value or 2"):
        resample(x, size=(4,), mode="linear")
    with pytest.raises(ValueError, match="new_spacing must be positive"):
        resample(x, new_spacing=-1.0, mode="linear")
    with pytest.raises(ValueError, match="antialias must be False for mode 'nearest'"):
        resample(x, size=(2, 2), mode="nearest", antialias=True)
    with refuses("input"):
        resample_to_grid(x, np.eye(4), np.eye(4), size=(2, 2, 2), mode="linear")
