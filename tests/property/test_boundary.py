"""Laws of layer boundaries: masks and rows undo each other, results are in order and in range."""

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medkit.ops import (
    boundaries_from_probabilities,
    boundaries_to_mask,
    mask_to_boundaries,
    rescale_boundaries,
)
from medkit.testing import assert_close

HEIGHT = 9
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5))


@given(
    rows=SHAPES.flatmap(
        lambda shape: arrays.arrays("f8", shape, elements=st.floats(-2, HEIGHT + 2))
    )
)
def test_rounded_boundaries_come_back_from_their_mask(rows) -> None:
    boundaries = torch.from_numpy(rows)

    mask = boundaries_to_mask(boundaries, height=HEIGHT)
    back = mask_to_boundaries(mask, num_classes=len(rows) + 1, missing="bottom")

    assert_close(back, boundaries.round().clamp(0, HEIGHT).sort(0).values)


@given(mask=arrays.arrays("i8", (HEIGHT, 4), elements=st.integers(0, 3)))
def test_a_mask_in_order_comes_back_from_its_boundaries(mask) -> None:
    ordered = torch.from_numpy(mask).sort(0).values

    boundaries = mask_to_boundaries(ordered, num_classes=4, missing="bottom")

    assert torch.equal(boundaries_to_mask(boundaries, height=HEIGHT), ordered)


@given(
    p=arrays.arrays("f8", (3, HEIGHT, 2), elements=st.sampled_from([0.0, 1e-300, 1e-9, 0.3, 1.0])),
    method=st.sampled_from(["sum", "posterior", "map"]),
)
def test_decoded_boundaries_are_in_order_and_inside(p, method) -> None:
    total = p.sum(0, keepdims=True)
    p = torch.from_numpy(p / (total + (total == 0)) + (total == 0) / 3)

    rows = boundaries_from_probabilities(p, method=method)

    assert bool((rows[0] <= rows[1] + 1e-9).all())
    assert bool(((rows >= -1e-9) & (rows <= HEIGHT + 1e-9)).all())


def lead_of_the_best_placement(p: np.ndarray) -> float:
    """Return by how much the log likelihood of the best placement exceeds the next one's."""
    likelihoods = sorted(
        float(np.log(p[0, :a]).sum() + np.log(p[1, a:b]).sum() + np.log(p[2, b:]).sum())
        for a in range(HEIGHT + 1)
        for b in range(a, HEIGHT + 1)
    )
    return likelihoods[-1] - likelihoods[-2]


@given(seed=st.integers(0, 10_000))
def test_a_cold_posterior_is_the_most_probable_placement(seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(3, HEIGHT, 1, generator=generator, dtype=torch.float64).softmax(0)
    assume(lead_of_the_best_placement(p.numpy()[..., 0]) > 1e-3)

    cold = boundaries_from_probabilities(p, method="posterior", temperature=1e-4)
    best = boundaries_from_probabilities(p, method="map")

    assert_close(cold, best, atol=0.05)


@given(
    rows=arrays.arrays("f8", (2, 4), elements=st.floats(0, 100)),
    height=st.integers(1, 900),
    origin=st.sampled_from(["edge", "center"]),
)
def test_rescaling_there_and_back_changes_nothing(rows, height, origin) -> None:
    boundaries = torch.from_numpy(rows)

    there = rescale_boundaries(boundaries, from_shape=(100, 4), to_shape=(height, 4), origin=origin)
    back = rescale_boundaries(there, from_shape=(height, 4), to_shape=(100, 4), origin=origin)

    assert_close(back, boundaries, atol=1e-9)
