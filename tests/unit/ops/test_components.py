"""Connected components against a flood fill, scikit-image and hand-made scenes."""

import itertools
from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medkit.ops import (
    connected_components,
    fill_holes,
    keep_largest_component,
    remove_small_components,
)

NEIGHBOURS = [(2, 4), (2, 8), (3, 6), (3, 18), (3, 26)]
REACH = {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}
SHAPES = {2: (7, 9), 3: (5, 6, 4)}


def _steps(dims: int, connectivity: int) -> list[tuple[int, ...]]:
    steps = itertools.product((-1, 0, 1), repeat=dims)
    return [s for s in steps if 0 < sum(map(abs, s)) <= REACH[connectivity]]


def _flood(mask: np.ndarray, connectivity: int) -> np.ndarray:
    """Number the parts of a mask in reading order, voxel by voxel."""
    parts, number = np.zeros(mask.shape, int), 0
    steps = _steps(mask.ndim, connectivity)
    for start in np.ndindex(mask.shape):
        if not mask[start] or parts[start]:
            continue
        number += 1
        parts[start] = number
        queue = deque([start])
        while queue:
            here = queue.popleft()
            for step in steps:
                there = tuple(a + b for a, b in zip(here, step, strict=True))
                inside = all(0 <= a < n for a, n in zip(there, mask.shape, strict=True))
                if inside and mask[there] and not parts[there]:
                    parts[there] = number
                    queue.append(there)
    return parts


def _masks(dims: int, density: float = 0.4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((2, 3, *SHAPES[dims])) < density


@pytest.mark.parametrize("density", [0.1, 0.4, 0.6])
@pytest.mark.parametrize(("dims", "connectivity"), NEIGHBOURS)
def test_parts_and_their_numbers_are_those_of_a_flood_fill(dims, connectivity, density) -> None:
    masks = _masks(dims, density)

    parts = connected_components(torch.from_numpy(masks), connectivity=connectivity)

    assert parts.dtype == torch.int32
    for place in np.ndindex(2, 3):
        assert np.array_equal(parts[place].numpy(), _flood(masks[place], connectivity))


@pytest.mark.parametrize(("dims", "connectivity"), NEIGHBOURS)
def test_parts_are_those_of_scikit_image(dims, connectivity) -> None:
    measure = pytest.importorskip("skimage.measure")
    mask = np.random.default_rng(1).random((20,) * dims) < 0.3

    parts = connected_components(torch.from_numpy(mask)[None, None], connectivity=connectivity)

    theirs = measure.label(mask, connectivity=REACH[connectivity])
    assert np.array_equal(parts[0, 0].numpy(), theirs)


def test_integers_are_masks_of_what_is_not_zero() -> None:
    mask = torch.tensor([[[[3, -1, 0, 2]]]])
    for dtype in (torch.int64, torch.int16):
        parts = connected_components(mask.to(dtype), connectivity=4)
        assert parts.tolist() == [[[[1, 1, 0, 2]]]]
    wide = connected_components(mask.abs().to(torch.uint16), connectivity=4)
    assert wide.tolist() == [[[[1, 1, 0, 2]]]]


@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks_have_no_and_one_part(value: int) -> None:
    mask = torch.full((1, 1, 3, 4, 5), value)

    assert (connected_components(mask, connectivity=6) == value).all()
    assert torch.equal(keep_largest_component(mask, connectivity=6), mask)
    assert torch.equal(fill_holes(mask > 0, connectivity=6), mask > 0)


@pytest.mark.parametrize("per", ["class", "foreground"])
@pytest.mark.parametrize("classes", [None, [1, 3]])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.uint16])
def test_the_largest_part_stays(dtype, classes, per) -> None:
    labels = np.random.default_rng(2).integers(0, 4, (2, 2, 8, 9))

    kept = keep_largest_component(
        torch.from_numpy(labels).to(dtype), connectivity=4, classes=classes, per=per
    )

    assert kept.dtype == dtype
    expected = labels.copy()
    chosen = classes or [1, 2, 3]
    for place in np.ndindex(2, 2):
        for group in [chosen] if per == "foreground" else [[c] for c in chosen]:
            parts = _flood(np.isin(labels[place], group), 4)
            sizes = [(parts == n).sum() for n in range(1, parts.max() + 1)]
            stays = 1 + sizes.index(max(sizes))  # the first of equals
            expected[place][(parts > 0) & (parts != stays)] = 0
    assert np.array_equal(kept.long().numpy(), expected)


def test_classes_may_be_negative_or_huge() -> None:
    labels = torch.tensor([[[[-5, 0, -5, -5, 70000, 0, 70000, 70000]]]])

    kept = keep_largest_component(labels, connectivity=4)

    assert kept.tolist() == [[[[0, 0, -5, -5, 0, 0, 70000, 70000]]]]


def test_the_first_of_equal_parts_stays() -> None:
    mask = torch.tensor([[[[0, 1, 1, 0, 1, 1, 0, 1]]]]) > 0

    kept = keep_largest_component(mask, connectivity=4)

    assert kept.dtype == torch.bool
    assert kept.int().tolist() == [[[[0, 1, 1, 0, 0, 0, 0, 0]]]]


def test_inputs_are_not_modified() -> None:
    labels = torch.randint(0, 3, (1, 1, 8, 8))
    before = labels.clone()

    keep_largest_component(labels, connectivity=8)
    remove_small_components(labels, connectivity=8, min_voxels=5)

    assert torch.equal(labels, before)


@given(seed=st.integers(0, 999), least=st.integers(1, 12), density=st.floats(0.2, 0.6))
def test_small_parts_are_removed_and_no_others(seed, least, density) -> None:
    mask = np.random.default_rng(seed).random((1, 1, 8, 9)) < density

    kept = remove_small_components(torch.from_numpy(mask), connectivity=8, min_voxels=least)

    parts = _flood(mask[0, 0], 8)
    sizes = np.bincount(parts.ravel())
    assert np.array_equal(kept[0, 0].numpy(), mask[0, 0] & (sizes[parts] >= least))


@pytest.mark.parametrize(("dims", "connectivity"), NEIGHBOURS)
def test_holes_are_those_of_scipy(dims, connectivity) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    masks = _masks(dims, 0.7, seed=3)

    filled = fill_holes(torch.from_numpy(masks), connectivity=connectivity)

    paths = ndimage.generate_binary_structure(dims, REACH[connectivity])
    for place in np.ndindex(2, 3):
        theirs = ndimage.binary_fill_holes(masks[place], paths)
        assert np.array_equal(filled[place].numpy(), theirs)


def test_bad_arguments_are_named() -> None:
    volume = torch.ones(1, 1, 4, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="connectivity must be one of 6, 18, 26 for 3 spatial"):
        connected_components(volume, connectivity=8)
    with pytest.raises(ValueError, match="connectivity must be one of 4, 8 for 2 spatial axes"):
        keep_largest_component(volume[0], connectivity=26)
    with pytest.raises(ValueError, match=r"labels must be \(batch, channel"):
        keep_largest_component(volume[0, 0], connectivity=6)
    with pytest.raises(ValueError, match="min_voxels must be at least 1"):
        remove_small_components(volume, connectivity=6, min_voxels=0)


def test_probabilities_are_refused() -> None:
    with pytest.raises(TypeError, match="mask must be boolean or integers"):
        connected_components(torch.rand(1, 1, 4, 4), connectivity=4)
