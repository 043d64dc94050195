"""Axial attention is full attention under a mask that leaves the lines of one axis."""

import numpy as np
import pytest
import torch

import medkit.nn
from medkit.nn import AxialAttention3D
from medkit.testing import assert_close
from unit.losses.refusals import refuses
from unit.nn.blocks import attention_by_formula, image_of, settled, tokens_of


def same_line(grid: tuple[int, ...], axis: int) -> np.ndarray:
    """Return 0 for positions that differ along one axis at most, and minus infinity for others."""
    places = np.delete(np.array(list(np.ndindex(*grid))), axis, axis=1)
    return np.where((places[:, None] == places).all(-1), 0.0, -np.inf)


@pytest.mark.parametrize("combine", ["sequence", "sum"])
@pytest.mark.parametrize("grid", [(4, 5), (3, 2, 4)])
def test_equals_full_attention_with_a_mask(grid: tuple[int, ...], combine: str) -> None:
    kind = getattr(medkit.nn, f"AxialAttention{len(grid)}D")
    block = settled(kind(6, num_heads=2, combine=combine)).double()
    x = torch.randn(2, 6, *grid, dtype=torch.float64)

    for sample, found in zip(x, block(x), strict=True):
        tokens = tokens_of(sample)
        total, expected = np.zeros_like(tokens), tokens
        for axis, line in enumerate(block.lines):
            given = expected if combine == "sequence" else tokens
            expected = attention_by_formula(given, line, 2, same_line(grid, axis))
            total += expected
        assert_close(found, image_of(expected if combine == "sequence" else total, sample))


@pytest.mark.parametrize(("combine", "reached"), [("sequence", 60), ("sum", 3 + 4 + 5 - 2)])
def test_how_far_a_position_is_heard(combine: str, reached: int) -> None:
    block = settled(AxialAttention3D(4, num_heads=1, combine=combine))
    x = torch.randn(1, 4, 3, 4, 5, requires_grad=True)

    block(x)[0, :, 1, 2, 3].sum().backward()

    assert x.grad is not None
    assert int((x.grad != 0).any(1).sum()) == reached


def test_an_unknown_combination_is_refused() -> None:
    with refuses("combine"):
        AxialAttention3D(8, combine="product")
