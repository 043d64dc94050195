"""Blocks for images give the numbers of timm's, with the same weights, run beside them."""

import importlib
from collections.abc import Callable
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import _torchvision_shim
from contract.test_peer_defects import require
from medkit.nn import (
    CBAM2D,
    DepthwiseSeparableConv2D,
    EfficientChannelAttention2D,
    FusedMBConv2D,
    MBConv2D,
    MultiHeadSelfAttention2D,
    SqueezeExcite2D,
    WindowAttention2D,
)
from medkit.testing import assert_close
from unit.nn.blocks import copy_in_order, settled

ROUNDING = 5e-7
"""Difference that is left in float32, relative and as a part of the largest value."""

EFFICIENT_NORM = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


@pytest.fixture(autouse=True)
def _timm() -> None:
    _torchvision_shim.install()
    require("timm")


def timm(name: str) -> ModuleType:
    return importlib.import_module(f"timm.{name}")


def same(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Compare outputs in float32, and outputs and gradients in float64, in both modes."""
    copy_in_order(settled(theirs), ours)
    for mode in (False, True):
        y, expected = (module.train(mode)(x).detach() for module in (ours, theirs))
        assert_close(y, expected, rtol=ROUNDING, atol=ROUNDING * float(expected.abs().max()))
    ours, theirs = ours.double(), theirs.double()
    copy_in_order(theirs, ours)  # statistics moved by the training pass differ by its rounding
    for mode in (False, True):
        found, wanted = (_values(module.train(mode), x.double()) for module in (ours, theirs))
        for a, e in zip(found, wanted, strict=True):
            assert_close(
                a.flatten(), e.flatten(), rtol=1e-9, atol=1e-12 * float(e.detach().abs().max())
            )


def _values(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Return the output and the gradients of the input and of all parameters."""
    image = x.clone().requires_grad_()
    y = module(image)
    weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).cos().reshape(y.shape)
    return (y, *torch.autograd.grad((y * weight).sum(), [image, *module.parameters()]))


@pytest.mark.parametrize("channels", [32, 64, 256])
def test_squeeze_excite_with_the_reduced_width_that_timm_rounds(channels: int) -> None:
    theirs = timm("layers").SEModule(channels)

    ours = SqueezeExcite2D(channels, reduced_channels=theirs.fc1.out_channels)

    same(ours, theirs, torch.randn(2, channels, 9, 7))


@pytest.mark.parametrize("channels", [8, 64, 127, 128, 1024])
def test_efficient_channel_attention(channels: int) -> None:
    theirs = timm("layers").EcaModule(channels)

    same(EfficientChannelAttention2D(channels), theirs, torch.randn(2, channels, 4, 3))


@pytest.mark.parametrize(("channels", "kernel_size"), [(32, 7), (8, 3)])
def test_cbam(channels: int, kernel_size: int) -> None:
    theirs = timm("layers.cbam").CbamModule(channels, spatial_kernel_size=kernel_size)

    same(CBAM2D(channels, kernel_size=kernel_size), theirs, torch.randn(2, channels, 9, 7))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("squeeze_ratio", [0.0, 0.25])
def test_mbconv(stride: int, kernel_size: int, squeeze_ratio: float) -> None:
    blocks = timm("models._efficientnet_blocks")
    squeeze = partial(blocks.SqueezeExcite, rd_channels=4) if squeeze_ratio else None
    theirs = blocks.InvertedResidual(
        16,
        16,
        dw_kernel_size=kernel_size,
        stride=stride,
        exp_ratio=6.0,
        act_layer=nn.SiLU,
        norm_layer=EFFICIENT_NORM,
        se_layer=squeeze,
    )
    ours = MBConv2D(16, 16, kernel_size=kernel_size, stride=stride, squeeze_ratio=squeeze_ratio)

    same(ours, theirs, torch.randn(2, 16, 9, 8))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("out_channels", [16, 24])
def test_fused_mbconv(stride: int, out_channels: int) -> None:
    theirs = timm("models._efficientnet_blocks").EdgeResidual(
        16,
        out_channels,
        stride=stride,
        exp_ratio=4.0,
        act_layer=nn.SiLU,
        norm_layer=EFFICIENT_NORM,
    )

    same(FusedMBConv2D(16, out_channels, stride=stride), theirs, torch.randn(2, 16, 9, 8))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("out_channels", [16, 24])
def test_depthwise_separable_conv(stride: int, out_channels: int) -> None:
    theirs = timm("models._efficientnet_blocks").DepthwiseSeparableConv(
        16, out_channels, stride=stride, act_layer=nn.ReLU, norm_layer=EFFICIENT_NORM
    )

    ours = DepthwiseSeparableConv2D(16, out_channels, stride=stride)

    same(ours, theirs, torch.randn(2, 16, 9, 8))


class OverGrid(nn.Module):
    """A block of tokens that takes a grid."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, input: Tensor) -> Tensor:
        tokens = self.block(input.flatten(2).mT)
        return tokens.mT.reshape(input.shape)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_self_attention(qkv_bias: bool) -> None:
    theirs = OverGrid(timm("layers").Attention(24, num_heads=3, qkv_bias=qkv_bias))

    same(
        MultiHeadSelfAttention2D(24, num_heads=3, qkv_bias=qkv_bias),
        theirs,
        torch.randn(2, 24, 5, 6),
    )


class SwinAttention(nn.Module):
    """timm's window attention with the shift, partition and mask of its block, without the rest."""

    def __init__(self, window_size: int, shift_size: int) -> None:
        super().__init__()
        swin = timm("models.swin_transformer")
        block = swin.SwinTransformerBlock(
            24, (12, 8), num_heads=3, window_size=window_size, shift_size=shift_size
        )
        self.attend: Callable[[Tensor], Tensor] = block._attn
        self.attn = block.attn

    def forward(self, input: Tensor) -> Tensor:
        return self.attend(input.movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize("shift_size", [0, 2])
def test_window_attention(shift_size: int) -> None:
    ours = WindowAttention2D(24, window_size=4, shift_size=shift_size, num_heads=3)

    same(ours, SwinAttention(4, shift_size), torch.randn(2, 24, 12, 8))
