"""Window attention, position by position: who sees whom, with which bias."""

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

import medkit.nn
from medkit.nn import MultiHeadSelfAttention3D, WindowAttention2D, WindowAttention3D
from medkit.testing import assert_close
from unit.nn.blocks import attention_by_formula, image_of, numbers, settled, tokens_of

CASES = [
    ((8, 6), (4, 3), (0, 0)),
    ((8, 6), (4, 3), (2, 1)),
    ((7, 5), (4, 3), (0, 0)),
    ((7, 5), (4, 3), (3, 2)),
    ((9, 2), (4, 3), (1, 1)),
    ((3, 5, 4), (2, 3, 2), (1, 1, 1)),
    ((4, 3, 5), (2, 3, 2), (0, 0, 1)),
    ((1, 1, 1), (2, 2, 2), (1, 1, 1)),
]
"""Sizes of grid, window and shift: multiples and not, shifted and not, windows above the grid."""


def window_of(place: tuple[int, ...], block: WindowAttention3D, grid: tuple[int, ...]) -> tuple:
    """Return which window holds a position: shifted windows start at ``shift - window``."""
    return tuple(
        (i - shift) // window if n > window else 0
        for i, n, window, shift in zip(
            place, grid, block.window_size, block.shift_size, strict=True
        )
    )


def bias_by_formula(block: WindowAttention3D, grid: tuple[int, ...]) -> np.ndarray:
    """Return what is added to the logits of each pair of positions of a grid."""
    table = numbers(block.relative_position_bias_table)
    places = list(np.ndindex(*grid))
    spans = [2 * window - 1 for window in block.window_size]
    bias = np.full((block.num_heads, len(places), len(places)), -np.inf)
    for row, i in enumerate(places):
        for column, j in enumerate(places):
            if window_of(i, block, grid) == window_of(j, block, grid):
                offset = [a - b + m - 1 for a, b, m in zip(i, j, block.window_size, strict=True)]
                bias[:, row, column] = table[np.ravel_multi_index(offset, spans)]
    return bias


@pytest.mark.parametrize(("grid", "window", "shift"), CASES)
def test_equals_full_attention_with_a_mask(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]
) -> None:
    kind = getattr(medkit.nn, f"WindowAttention{len(grid)}D")
    block = settled(kind(6, window_size=window, shift_size=shift, num_heads=2)).double()
    x = torch.randn(2, 6, *grid, dtype=torch.float64)
    bias = bias_by_formula(block, grid)

    for sample, found in zip(x, block(x), strict=True):
        expected = attention_by_formula(tokens_of(sample), block, 2, bias)
        assert_close(found, image_of(expected, sample))


def test_one_window_without_bias_is_self_attention() -> None:
    block = settled(WindowAttention3D(8, window_size=5, shift_size=2, num_heads=2)).double()
    torch.nn.init.zeros_(block.relative_position_bias_table)
    full = MultiHeadSelfAttention3D(8, num_heads=2, dtype=torch.float64)
    full.load_state_dict(block.state_dict(), strict=False)
    x = torch.randn(2, 8, 5, 3, 4, dtype=torch.float64)

    assert_close(block(x), full(x))


def test_windows_do_not_see_each_other() -> None:
    block = settled(WindowAttention2D(4, window_size=3, num_heads=1))
    x = torch.randn(1, 4, 9, 7)
    changed = x.clone()
    changed[:, :, 3:6, 3:6] += 1

    moved = (block(changed) != block(x)).any(1)[0]

    assert moved[3:6, 3:6].all()
    assert not moved[:3].any()
    assert not moved[6:].any()
    assert not moved[:, :3].any()
    assert not moved[:, 6:].any()


def test_the_table_is_as_long_as_there_are_offsets() -> None:
    block = WindowAttention3D(8, window_size=(2, 3, 4), num_heads=2)

    assert block.relative_position_bias_table.shape == (3 * 5 * 7, 2)
    assert sorted(block.relative_position_index.unique().tolist()) == list(range(3 * 5 * 7))
    assert "relative_position_index" not in block.state_dict()


def test_one_mask_serves_all_windows() -> None:
    """What is kept grows with the map alone: no bias or mask for each window."""
    block = WindowAttention2D(4, window_size=8, shift_size=4, num_heads=1).requires_grad_(False)

    def saved(size: int) -> int:
        kept: list[int] = []
        with saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
            block(torch.randn(1, 4, size, size, requires_grad=True))
        return sum(kept)

    matrices = 8 * (8 * 8) ** 2 * 4 * 8

    assert saved(64) < 4 * saved(32) + matrices


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"window_size": 0}, "window_size must be at least 1; got 0"),
        ({"window_size": (2, 2)}, r"window_size must be one value or 3, one per spatial axis"),
        ({"window_size": 3, "shift_size": 3}, "shift_size must be from 0 to below window_size"),
        ({"shift_size": -1}, "shift_size must be from 0 to below window_size"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        WindowAttention3D(8, **options)
