"""Spatial-reduction attention is the formula, written in NumPy here."""

import numpy as np
import pytest
import torch

from medkit.nn._spatial_reduction_attention import SpatialReductionAttention
from medkit.testing import assert_close


def linear(x: np.ndarray, layer: torch.nn.Module) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def reduced(x: np.ndarray, attention: SpatialReductionAttention, ratio: int) -> np.ndarray:
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
    x: np.ndarray, attention: SpatialReductionAttention, heads: int, ratio: int, scale: float
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
    attention = SpatialReductionAttention(
        6,
        num_heads=3,
        sr_ratio=ratio,
        scale=0.7,
        spatial_dims=len(grid),
        norm_eps=1e-5,
        dtype=torch.float64,
    )
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, *grid, 6, dtype=torch.float64)

    y = attention(x)

    for sample, found in zip(x, y, strict=True):
        assert_close(found, by_formula(sample.numpy(), attention, 3, ratio, 0.7))
