"""The attention gate is the formula of Attention U-Net, written in NumPy here."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import medkit.nn
from medkit.nn import AttentionGate2D, AttentionGate3D
from medkit.testing import assert_close
from unit.nn.blocks import linear, numbers, settled, sigmoid


def normalised(tokens: np.ndarray, norm: nn.Module) -> np.ndarray:
    if isinstance(norm, nn.Identity):
        return tokens
    mean, variance = numbers(norm.running_mean), numbers(norm.running_var)
    scaled = (tokens - mean) / np.sqrt(variance + norm.eps)
    return scaled * numbers(norm.weight) + numbers(norm.bias)


def by_formula(x: np.ndarray, signal: np.ndarray, gate: AttentionGate3D) -> np.ndarray:
    """Return the gated map; all are channels last, the signal at the size of the map."""
    layers = ((gate.gate_layer, signal), (gate.input_layer, x))
    hidden = sum(normalised(linear(tokens, layer[0]), layer[1]) for layer, tokens in layers)
    psi = gate.psi
    return x * sigmoid(normalised(linear(np.maximum(hidden, 0), psi[0]), psi[1]))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", [None, nn.Identity])
def test_equals_the_formula(dims: int, norm: type[nn.Module] | None) -> None:
    kind = getattr(medkit.nn, f"AttentionGate{dims}D")
    gate = settled(kind(6, 4, hidden_channels=5, norm=norm)).double()
    size = (4, 5, 3)[:dims]
    x, g = (torch.randn(2, c, *size, dtype=torch.float64) for c in (6, 4))

    expected = by_formula(numbers(x.movedim(1, -1)), numbers(g.movedim(1, -1)), gate)

    assert_close(gate(x, g).movedim(1, -1), expected)


@pytest.mark.parametrize("coarse", [(4, 3, 5), (3, 2, 4), (1, 1, 1), (8, 9, 10)])
def test_a_signal_of_another_size_is_resized_linearly(coarse: tuple[int, ...]) -> None:
    """Projection and resizing commute, so the signal may as well be resized before."""
    gate = settled(AttentionGate3D(6, 4)).double()
    x = torch.randn(2, 6, 8, 6, 10, dtype=torch.float64)
    g = torch.randn(2, 4, *coarse, dtype=torch.float64)

    expected = gate(x, F.interpolate(g, size=x.shape[2:], mode="trilinear"))

    assert_close(gate(x, g), expected)


def test_attention_is_what_scales_each_position() -> None:
    gate = settled(AttentionGate2D(6, 4))
    x, g = torch.randn(2, 6, 8, 6), torch.randn(2, 4, 4, 3)

    attention = gate.attention(x, g)

    assert attention.shape == (2, 1, 8, 6)
    assert ((attention > 0) & (attention < 1)).all()
    assert torch.equal(gate(x, g), x * attention)


def test_parameters_are_counted_in_closed_form() -> None:
    """64 channels gated by 128 in 64, as in an edge attention of 50,371 without its convolution."""
    gate = AttentionGate2D(64, 128, hidden_channels=64)
    edge_convolution = 65 * 64 * 9 + 64 + 2 * 64

    assert sum(p.numel() for p in gate.parameters()) == 50_371 - edge_convolution


@pytest.mark.parametrize("options", ["in_channels", "gate_channels", "hidden_channels"])
def test_wrong_arguments_are_named(options: str) -> None:
    with pytest.raises(ValueError, match=f"{options} must be at least 1; got 0"):
        AttentionGate3D(**{"in_channels": 4, "gate_channels": 4, options: 0})


def test_a_gate_of_another_shape_is_named() -> None:
    gate = AttentionGate3D(4, 6)
    with pytest.raises(ValueError, match=r"gate must be \(batch, 6, depth, height, width\); got"):
        gate(torch.zeros(1, 4, 4, 4, 4), torch.zeros(1, 5, 2, 2, 2))
