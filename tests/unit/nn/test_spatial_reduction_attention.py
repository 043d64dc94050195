"""Spatial-reduction attention is the formula, written in NumPy here."""

import numpy as np
import pytest
import torch

import medkit.nn
from medkit.nn import (
    MultiHeadSelfAttention3D,
    SpatialReductionAttention3D,
)
from medkit.testing import assert_close
from unit.nn.blocks import linear, settled


def reduced(x: np.ndarray, attention: SpatialReductionAttention3D, ratio: int) -> np.ndarray:
    """Return the tokens of whole cells of ``ratio`` positions; what is left over is left out."""
    weight, bias = (t.detach().numpy() for t in attention.sr.parameters())
    cells = [n // ratio for n in x.shape[:-1]]
    output = np.empty((*cells, x.shape[-1]))
    for place in np.ndindex(*cells):
        cell = x[tuple(slice(ratio * i, ratio * (i + 1)) for i in place)]
        y = np.tensordot(weight, np.moveaxis(cell, -1, 0), cell.ndim) + bias
        output[place] = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
    return (
        output * attention.sr_norm.weight.detach().numpy() + attention.sr_norm.bias.detach().numpy()
    )


def by_formula(
    x: np.ndarray, attention: SpatialReductionAttention3D, heads: int, ratio: int, scale: float
) -> np.ndarray:
    source = x if ratio == 1 else reduced(x, attention, ratio)
    dim = x.shape[-1]
    query = linear(x, attention.query).reshape(-1, heads, dim // heads)
    key_value = linear(source, attention.key_value).reshape(-1, 2, heads, dim // heads)
    output = np.empty_like(query)
    for head in range(heads):
        key, value = key_value[:, 0, head], key_value[:, 1, head]
        weights = np.exp(scale * query[:, head] @ key.T)
        output[:, head] = weights / weights.sum(1, keepdims=True) @ value
    return linear(output.reshape(x.shape), attention.proj)


@pytest.mark.parametrize(
    ("grid", "ratio"), [((4, 4, 4), 2), ((5, 4, 7), 2), ((4, 6, 9), 4), ((2, 3, 1), 1), ((5, 7), 2)]
)
def test_equals_the_formula(grid: tuple[int, ...], ratio: int) -> None:
    kind = getattr(medkit.nn, f"SpatialReductionAttention{len(grid)}D")
    attention = kind(6, num_heads=3, sr_ratio=ratio, scale=0.7, dtype=torch.float64)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 6, *grid, dtype=torch.float64)

    y = attention(x)

    for sample, found in zip(x.movedim(1, -1), y.movedim(1, -1), strict=True):
        assert_close(found, by_formula(sample.numpy(), attention, 3, ratio, 0.7))


def test_without_reduction_it_is_self_attention() -> None:
    reduced_by_one = settled(SpatialReductionAttention3D(8, num_heads=2, sr_ratio=1)).double()
    full = MultiHeadSelfAttention3D(8, num_heads=2, dtype=torch.float64)
    state = reduced_by_one.state_dict()
    for part in ("weight", "bias"):
        both = state.pop(f"query.{part}"), state.pop(f"key_value.{part}")
        state[f"qkv.{part}"] = torch.cat(both)
    full.load_state_dict(state)
    x = torch.randn(2, 8, 3, 4, 5, dtype=torch.float64)

    assert_close(reduced_by_one(x), full(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sr_ratio": 0}, "sr_ratio must be at least 1; got 0"),
        ({"scale": 0.0}, "scale must be positive; got 0.0"),
        ({"norm_eps": 0.0}, "norm_eps must be positive; got 0.0"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpatialReductionAttention3D(8, num_heads=2, **options)


def test_a_grid_below_the_reduction_is_refused() -> None:
    message = r"input must be at least 4 along depth, height, width; got shape"
    with pytest.raises(ValueError, match=message):
        SpatialReductionAttention3D(8, num_heads=2, sr_ratio=4)(torch.zeros(1, 8, 4, 3, 4))
