"""The hybrid block is its parts, one after another."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import medkit.nn
from medkit.nn import DropPath, HybridEncoderBlock3D, MBConv3D, ShuffleAttention3D
from medkit.testing import assert_close
from unit.losses.refusals import refuses
from unit.nn.blocks import settled

ATTENTION = {
    "full": partial(dict),
    "window": partial(dict, window_size=2),
    "axial": partial(dict),
    "reduced": partial(dict, sr_ratio=2),
}
CLASSES = {
    "full": "MultiHeadSelfAttention",
    "window": "WindowAttention",
    "axial": "AxialAttention",
    "reduced": "SpatialReductionAttention",
}
INSTANCE_NORM = partial(nn.InstanceNorm3d, affine=True)


@pytest.mark.parametrize("transformer", ATTENTION)
def test_equals_its_parts_in_a_row(transformer: str) -> None:
    options = ATTENTION[transformer]()
    block = settled(
        HybridEncoderBlock3D(
            4, 8, transformer=transformer, num_heads=2, shuffle_groups=2, **options
        )
    ).double()
    first, second = (MBConv3D(c, 8, expand_ratio=4, norm=INSTANCE_NORM) for c in (4, 8))
    attention = getattr(medkit.nn, f"{CLASSES[transformer]}3D")(8, num_heads=2, **options)
    shuffle = ShuffleAttention3D(8, groups=2)
    layer = block.transformer
    for part, twin in (
        (block.mbconv1, first),
        (block.mbconv2, second),
        (layer.attention, attention),
        (block.shuffle_attention, shuffle),
    ):
        twin.double().eval().load_state_dict(part.state_dict())
    x = torch.randn(2, 4, 4, 5, 3, dtype=torch.float64)

    y = second(first(x))
    y = y + attention(F.group_norm(y, 8, layer.norm1.weight, layer.norm1.bias))
    z = F.group_norm(y, 8, layer.norm2.weight, layer.norm2.bias).movedim(1, -1)
    z = layer.mlp[2](F.gelu(layer.mlp[0](z)))

    assert_close(block(x), shuffle(y + z.movedim(-1, 1)))


@pytest.mark.parametrize(("channels", "groups"), [(32, 32), (48, 16), (8, 8), (20, 4)])
def test_norm_groups_divide_the_channels(channels: int, groups: int) -> None:
    block = HybridEncoderBlock3D(4, channels, transformer="full", num_heads=4)

    assert block.transformer.norm1.num_groups == groups


def test_all_branches_can_be_dropped() -> None:
    block = HybridEncoderBlock3D(
        8, 8, transformer="full", num_heads=2, drop=partial(DropPath, 0.999999)
    ).train()
    x = torch.randn(3, 8, 4, 4, 4)

    assert torch.equal(block(x), x)


def test_without_options_it_is_two_bottlenecks() -> None:
    block = HybridEncoderBlock3D(4, 8)

    assert isinstance(block.transformer, nn.Identity)
    assert isinstance(block.shuffle_attention, nn.Identity)


def test_an_unknown_transformer_is_refused() -> None:
    with refuses("transformer"):
        HybridEncoderBlock3D(4, 8, transformer="linear")
