"""Parts above the lower threshold stay where a voxel of theirs is above the higher one."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from medkit.ops import hysteresis_threshold


@pytest.mark.parametrize(("dims", "connectivity", "rank"), [(2, 8, 2), (3, 18, 2), (3, 26, 3)])
def test_weak_voxels_are_reached_from_strong_ones(dims: int, connectivity: int, rank: int) -> None:
    scores = torch.rand(2, 2, *(14, 11, 9)[:dims])
    scores[1, 1] *= 0.9  # nothing strong
    kept = hysteresis_threshold(scores, low=0.7, high=0.95, connectivity=connectivity)
    structure = ndimage.generate_binary_structure(dims, rank)
    for place in np.ndindex(2, 2):
        weak, strong = (scores[place].numpy() > t for t in (0.7, 0.95))
        expected = ndimage.binary_propagation(strong, structure, mask=weak)

        assert np.array_equal(kept[place], expected)
    assert not kept[1, 1].any()
    assert kept[0, 0].any()


@pytest.mark.parametrize(("dims", "connectivity"), [(2, 4), (3, 6)])
@pytest.mark.parametrize(("low", "high"), [(0.5, 0.9), (0.35, 0.85), (0.6, 0.6)])
def test_values_are_those_of_scikit_image(
    dims: int, connectivity: int, low: float, high: float
) -> None:
    filters = pytest.importorskip("skimage.filters")
    scores = torch.rand(1, 1, *(17, 12, 9)[:dims], dtype=torch.float64)
    kept = hysteresis_threshold(scores, low=low, high=high, connectivity=connectivity)

    assert np.array_equal(
        kept[0, 0], filters.apply_hysteresis_threshold(scores[0, 0].numpy(), low, high)
    )


def test_thresholds_are_exclusive_and_nan_is_above_nothing() -> None:
    scores = torch.tensor([[[[0.5, 0.75, 0.5, float("nan"), 1.0, 0.75, 0.5]]]])

    kept = hysteresis_threshold(scores, low=0.5, high=0.75, connectivity=8)

    assert kept.flatten().tolist() == [False, False, False, False, True, True, False]


def test_thresholds_in_the_wrong_order_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"high must be at least low, 0.9; got 0.5"):
        hysteresis_threshold(torch.rand(1, 1, 4, 4), low=0.9, high=0.5, connectivity=8)
