"""Squeeze and excitation, efficient channel attention and CBAM: formulas in NumPy, and limits."""

import numpy as np
import pytest
import torch
from torch import nn

import medkit.nn
from medkit.nn import CBAM3D, EfficientChannelAttention3D, SqueezeExcite3D
from medkit.testing import assert_close
from unit.nn.blocks import linear, numbers, settled, sigmoid, tokens_of


@pytest.mark.parametrize("dims", [2, 3])
def test_squeeze_excite_equals_the_formula(dims: int) -> None:
    kind = getattr(medkit.nn, f"SqueezeExcite{dims}D")
    block = settled(kind(6, reduced_channels=4, activation=nn.Tanh)).double()
    x = torch.randn(2, 6, *(4, 3, 5)[:dims], dtype=torch.float64)

    for sample, found in zip(x, block(x), strict=True):
        tokens = tokens_of(sample)
        hidden = np.tanh(linear(tokens.mean(0), block.reduce))
        assert_close(tokens_of(found), tokens * sigmoid(linear(hidden, block.expand)))


@pytest.mark.parametrize("channels", [6, 130])
@pytest.mark.parametrize("dims", [2, 3])
def test_efficient_channel_attention_equals_the_formula(channels: int, dims: int) -> None:
    block = settled(getattr(medkit.nn, f"EfficientChannelAttention{dims}D")(channels)).double()
    weight = numbers(block.conv.weight).ravel()
    x = torch.randn(2, channels, *(4, 3, 2)[:dims], dtype=torch.float64)

    for sample, found in zip(x, block(x), strict=True):
        tokens = tokens_of(sample)
        means = np.pad(tokens.mean(0), len(weight) // 2)
        logits = [weight @ means[c : c + len(weight)] for c in range(channels)]
        assert_close(tokens_of(found), tokens * sigmoid(np.array(logits)))


def test_cbam_equals_the_formula() -> None:
    block = settled(CBAM3D(6, reduced_channels=2, kernel_size=3)).double()
    x = torch.randn(2, 6, 4, 3, 5, dtype=torch.float64)
    kernel, norm = numbers(block.conv.weight)[0], block.norm

    for sample, found in zip(x, block(x), strict=True):
        tokens = tokens_of(sample)
        logits = [
            linear(np.maximum(linear(pooled, block.reduce), 0), block.expand)
            for pooled in (tokens.mean(0), tokens.max(0))
        ]
        scaled = (tokens * sigmoid(sum(logits))).T.reshape(sample.shape)
        pooled = np.pad(np.stack([scaled.mean(0), scaled.max(0)]), ((0, 0), *((1, 1),) * 3))
        response = np.empty(sample.shape[1:])
        for d, h, w in np.ndindex(*response.shape):
            response[d, h, w] = (kernel * pooled[:, d : d + 3, h : h + 3, w : w + 3]).sum()
        scale = numbers(norm.weight) / np.sqrt(numbers(norm.running_var) + norm.eps)
        normal = (response - numbers(norm.running_mean)) * scale + numbers(norm.bias)
        assert_close(found, scaled * sigmoid(normal))


@pytest.mark.parametrize(
    ("channels", "kernel"), [(1, 3), (16, 3), (64, 3), (127, 3), (128, 5), (1024, 5), (2048, 7)]
)
def test_more_channels_have_wider_kernels(channels: int, kernel: int) -> None:
    assert EfficientChannelAttention3D(channels).conv.kernel_size == (kernel,)


@pytest.mark.parametrize(
    ("block", "options", "message"),
    [
        (SqueezeExcite3D, {"channels": 0}, "channels must be at least 1; got 0"),
        (SqueezeExcite3D, {"reduced_channels": 0}, "reduced_channels must be at least 1; got 0"),
        (EfficientChannelAttention3D, {"channels": 0}, "channels must be at least 1; got 0"),
        (EfficientChannelAttention3D, {"kernel_size": 4}, "kernel_size must be odd; got 4"),
        (CBAM3D, {"channels": 0}, "channels must be at least 1; got 0"),
        (CBAM3D, {"kernel_size": 2}, "kernel_size must be odd; got 2"),
        (CBAM3D, {"reduced_channels": 0}, "reduced_channels must be at least 1; got 0"),
    ],
)
def test_wrong_arguments_are_named(
    block: type[nn.Module], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        block(**{"channels": 8, **options})
