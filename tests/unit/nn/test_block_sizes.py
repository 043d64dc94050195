"""Parameters and multiply-adds of the blocks are those that their documentation states."""

import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medkit.nn import (
    CBAM3D,
    AttentionGate3D,
    AxialAttention3D,
    DepthwiseSeparableConv3D,
    EfficientChannelAttention3D,
    FusedMBConv3D,
    HybridEncoderBlock3D,
    MBConv3D,
    MultiHeadSelfAttention3D,
    ShuffleAttention3D,
    SpatialReductionAttention3D,
    SqueezeExcite3D,
    WindowAttention3D,
)

SIZES = [
    (partial(MBConv3D, 32, 32), 21_576),
    (partial(FusedMBConv3D, 32, 32), 115_008),
    (partial(DepthwiseSeparableConv3D, 32, 32), 2_016),
    (partial(SqueezeExcite3D, 64), 580),
    (partial(EfficientChannelAttention3D, 64), 3),
    (partial(CBAM3D, 64), 1_200),
    (partial(ShuffleAttention3D, 64), 24),
    (partial(MultiHeadSelfAttention3D, 64), 16_640),
    (partial(WindowAttention3D, 64), 34_216),
    (partial(AxialAttention3D, 64), 49_920),
    (partial(SpatialReductionAttention3D, 64), 49_600),
    (partial(AttentionGate3D, 64, 128), 6_371),
    (partial(HybridEncoderBlock3D, 32, 64), 67_864),
]


@pytest.mark.parametrize(("make", "parameters"), SIZES, ids=lambda v: getattr(v, "func", v))
def test_parameters_are_as_documented(make: partial[nn.Module], parameters: int) -> None:
    assert sum(p.numel() for p in make().parameters()) == parameters
    assert re.search(rf"\b{parameters:,}\b", make.func.__doc__ or "")


def multiply_adds(block: nn.Module, *shapes: tuple[int, ...]) -> float:
    """Return the multiply-adds of convolutions and products, in millions."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block.eval().to("meta")(*(torch.empty(shape, device="meta") for shape in shapes))
    return counter.get_total_flops() / 2e6


VOLUME = (1, 32, 32, 32, 32)


@pytest.mark.parametrize(
    ("block", "shapes", "millions", "said"),
    [
        (MBConv3D(32, 32), [VOLUME], 572.5, "0.57 billion"),
        (FusedMBConv3D(32, 32), [VOLUME], 3758.1, "3.76 billion"),
        (DepthwiseSeparableConv3D(32, 32), [VOLUME], 61.9, "62 million"),
        (HybridEncoderBlock3D(32, 64), [VOLUME], 1816.1, "1.8 billion"),
        (
            AttentionGate3D(64, 128),
            [(1, 64, 32, 32, 32), (1, 128, 16, 16, 16)],
            114.3,
            "114 million",
        ),
        (MultiHeadSelfAttention3D(64), [(1, 64, 16, 16, 16)], 67.1 + 2147.5, "2.2 billion"),
        (WindowAttention3D(64), [(1, 64, 28, 28, 28)], 359.7 + 963.8, "1.32 billion"),
        (AxialAttention3D(64), [(1, 64, 16, 16, 16)], 201.3 + 25.2, "0.23 billion"),
        (SpatialReductionAttention3D(64), [(1, 64, 16, 16, 16)], 54.5 + 268.4, "0.32 billion"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_multiply_adds_are_as_documented(
    block: nn.Module, shapes: list[tuple[int, ...]], millions: float, said: str
) -> None:
    """On the meta device attention is written out as two products, so that they count."""
    assert multiply_adds(block, *shapes) == pytest.approx(millions, rel=0.01)
    assert said in " ".join((type(block).__doc__ or "").split())
