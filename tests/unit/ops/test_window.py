"""Windows and their weights are those of MONAI, of medicai and of the formulas."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medkit.ops import gaussian_importance, patch_grid
from medkit.testing import assert_close

GOLDEN = Path(__file__).parents[2] / "golden" / "swi" / "swi.npz"


def test_gaussian_importance_equals_medicai() -> None:
    with np.load(GOLDEN) as stored:
        assert_close(gaussian_importance((16, 16, 16)), stored["importance16"], rtol=1e-6)


@pytest.mark.parametrize("size", [(9,), (16, 21), (8, 12, 5), (1, 64, 64)])
@pytest.mark.parametrize("sigma_scale", [0.125, 0.3])
def test_gaussian_importance_equals_monai(size: tuple[int, ...], sigma_scale: float) -> None:
    monai = pytest.importorskip("monai.data.utils")
    theirs = monai.compute_importance_map(size, mode="gaussian", sigma_scale=sigma_scale)

    assert_close(gaussian_importance(size, sigma_scale=sigma_scale), theirs, rtol=1e-6)


def test_gaussian_importance_follows_its_formula_along_each_axis() -> None:
    weight = gaussian_importance((7, 4), sigma_scale=(0.5, 1.0), dtype=torch.float64)
    d, h = np.arange(7) - 3.0, np.arange(4) - 1.5
    expected = np.exp(-(d[:, None] ** 2) / (2 * 3.5**2) - h**2 / (2 * 4.0**2))

    assert weight.dtype == torch.float64
    assert_close(weight, expected)


def test_gaussian_importance_never_falls_below_its_minimum() -> None:
    assert_close(gaussian_importance((64, 64), minimum=0.02).min(), 0.02)


def test_gaussian_importance_is_symmetric() -> None:
    weight = gaussian_importance((6, 9))

    assert torch.equal(weight, weight.flip(0))
    assert torch.equal(weight, weight.flip(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma_scale": 0.0}, "sigma_scale must be positive; got 0.0"),
        ({"sigma_scale": (0.1,)}, "sigma_scale must be one value or 2"),
        ({"minimum": 0.0}, "minimum must be positive; got 0.0"),
    ],
)
def test_gaussian_importance_refuses(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gaussian_importance((4, 4), **options)


def test_gaussian_importance_refuses_an_empty_window() -> None:
    with pytest.raises(ValueError, match="patch_size must be at least 1; got 0"):
        gaussian_importance((4, 0))


@pytest.mark.parametrize(
    ("size", "patch", "overlap"),
    [
        ((40, 36, 50), (16, 16, 16), 0.5),
        ((40, 36, 50), (16, 36, 7), (0.25, 0.9, 0.0)),
        ((33, 47), (16, 8), (0.6, 0.7)),
        ((64, 10), (8, 10), 0.99),
        ((17,), (5,), 0.2),
    ],
)
def test_patch_grid_equals_monai(
    size: tuple[int, ...], patch: tuple[int, ...], overlap: float | tuple[float, ...]
) -> None:
    utils = pytest.importorskip("monai.data.utils")
    inferers = pytest.importorskip("monai.inferers.utils")
    shares = overlap if isinstance(overlap, tuple) else (overlap,) * len(size)
    steps = inferers._get_scan_interval(size, patch, len(size), shares)
    theirs = [tuple(a.start for a in p) for p in utils.dense_patch_slices(size, patch, steps)]

    assert list(product(*patch_grid(size, patch_size=patch, overlap=overlap))) == theirs


@given(
    size=st.integers(1, 200),
    patch=st.integers(1, 80),
    overlap=st.floats(0, 1, exclude_max=True),
)
def test_patch_grid_covers_every_voxel_with_the_overlap_asked_for(
    size: int, patch: int, overlap: float
) -> None:
    (starts,) = patch_grid((size,), patch_size=patch, overlap=overlap)
    steps = np.diff(starts)

    assert starts[0] == 0
    assert starts[-1] == max(size - patch, 0)
    assert (steps > 0).all()
    assert (steps <= max(int(patch * (1 - overlap)), 1)).all()


def test_an_axis_shorter_than_the_window_has_one() -> None:
    assert patch_grid((5, 20), patch_size=8, overlap=0.5) == ((0,), (0, 4, 8, 12))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 4, "overlap": 1.0}, r"overlap must be in \[0, 1\); got 1.0"),
        ({"patch_size": 4, "overlap": -0.1}, r"overlap must be in \[0, 1\); got -0.1"),
        ({"patch_size": 0}, "patch_size must be at least 1; got 0"),
        ({"patch_size": (4, 4, 4)}, "patch_size must be one value or 2, one per spatial axis"),
    ],
)
def test_patch_grid_refuses(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patch_grid((8, 8), **options)
