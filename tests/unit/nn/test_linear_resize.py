"""Resizing by matrix products is linear interpolation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.nn._linear_resize import add_resized, interpolation_matrix, resize_linear
from medkit.ops import channels_first, channels_last
from medkit.testing import assert_close

MODES = {2: "bilinear", 3: "trilinear"}
CPU = torch.device("cpu")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 30)), min_size=2, max_size=3))
def test_equals_interpolate(sizes: list[tuple[int, int]]) -> None:
    source, target = zip(*sizes, strict=True)
    x = torch.randn(2, 3, *source, dtype=torch.float64)

    expected = F.interpolate(x, size=target, mode=MODES[len(sizes)])

    assert_close(resize_linear(x, target), expected)


def test_equals_interpolation_by_numpy() -> None:
    """One axis by ``numpy.interp`` at half-pixel centres, which it clamps at the ends."""
    values = np.random.default_rng(0).standard_normal(7)
    centres = (np.arange(23) + 0.5) * 7 / 23 - 0.5

    matrix = interpolation_matrix(7, 23, dtype=torch.float64, device=CPU)

    assert_close(matrix @ torch.from_numpy(values), np.interp(centres, np.arange(7), values))


@pytest.mark.parametrize("size", [(96, 96, 96), (50, 61, 47)])
def test_float32_is_as_exact_as_interpolate(size: tuple[int, ...]) -> None:
    x = torch.randn(1, 2, *(math.ceil(n / 4) for n in size))
    exact = F.interpolate(x.double(), size=size, mode="trilinear")

    off = (resize_linear(x, size) - exact).abs().max()
    theirs = (F.interpolate(x, size=size, mode="trilinear") - exact).abs().max()

    assert off <= 2 * theirs


def test_the_published_factor_of_four_is_resizing_to_the_input() -> None:
    """For sizes that 4 divides the published scale_factor=4 gives the same bits as a size."""
    x = torch.randn(1, 2, 5, 8, 6)

    by_factor = F.interpolate(x, scale_factor=4, mode="trilinear")

    assert torch.equal(by_factor, F.interpolate(x, size=(20, 32, 24), mode="trilinear"))
    assert_close(resize_linear(x, (20, 32, 24)), by_factor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_once(dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, 5, 6, 7, dtype=dtype)

    y = resize_linear(x, (20, 21, 22))

    assert y.dtype == dtype
    assert torch.equal(y, resize_linear(x.float(), (20, 21, 22)).to(dtype))


def test_autocast_changes_nothing() -> None:
    x = torch.randn(1, 2, 5, 6, 7)

    with torch.autocast("cpu", torch.bfloat16):
        y = resize_linear(x, (20, 21, 22))

    assert torch.equal(y, resize_linear(x, (20, 21, 22)))


def test_gradient_equals_that_of_interpolate() -> None:
    x = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 7, 9, 12, dtype=torch.float64)

    (found,) = torch.autograd.grad((resize_linear(x, (7, 9, 12)) * weight).sum(), x)

    y = F.interpolate(x, size=(7, 9, 12), mode="trilinear")
    (expected,) = torch.autograd.grad((y * weight).sum(), x)
    assert_close(found, expected)


@pytest.mark.parametrize("grid", [(9, 7), (8, 6, 11)])
def test_coarse_maps_are_resized_and_added_in_place(grid: tuple[int, ...]) -> None:
    fine = torch.randn(2, *grid, 4, dtype=torch.float64)
    coarse = [
        torch.randn(2, *(math.ceil(n / k) for n in grid), 4, dtype=torch.float64) for k in (2, 4, 8)
    ]
    expected = fine + sum(
        channels_last(F.interpolate(channels_first(part), size=grid, mode=MODES[len(grid)]))
        for part in coarse
    )
    rows = fine.flatten(0, -3)

    total = add_resized(rows, coarse, grid)

    assert_close(total, expected)
    assert total.data_ptr() == rows.data_ptr()
