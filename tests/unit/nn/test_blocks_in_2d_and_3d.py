"""A volume of a single slice is an image: each block for volumes holds the one for images."""

from functools import partial

import pytest
import torch
from torch import nn

import medkit.nn
from medkit.testing import assert_close
from unit.nn.blocks import in_middle_slice, settled

BLOCKS = {
    "MBConv": partial(dict, in_channels=6, out_channels=6, kernel_size=5),
    "FusedMBConv": partial(dict, in_channels=6, out_channels=6, squeeze_ratio=0.5),
    "DepthwiseSeparableConv": partial(dict, in_channels=6, out_channels=4, stride=2),
    "SqueezeExcite": partial(dict, channels=6, reduced_channels=2),
    "EfficientChannelAttention": partial(dict, channels=6),
    "CBAM": partial(dict, channels=6, reduced_channels=2, kernel_size=5),
    "ShuffleAttention": partial(dict, channels=12, groups=3),
    "MultiHeadSelfAttention": partial(dict, channels=6, num_heads=3),
    "HybridEncoderBlock": partial(
        dict, in_channels=6, out_channels=8, transformer="full", num_heads=2, shuffle_groups=2
    ),
}


def pair(name: str, **options: object) -> tuple[nn.Module, nn.Module]:
    flat, solid = (
        settled(getattr(medkit.nn, f"{name}{dims}D")(**options, dtype=torch.float64))
        for dims in (2, 3)
    )
    state = solid.state_dict()
    for key, value in flat.state_dict().items():
        state[key] = in_middle_slice(value, state[key].shape)
    solid.load_state_dict(state)
    return flat, solid


@pytest.mark.parametrize("name", BLOCKS)
def test_a_single_slice_is_an_image(name: str) -> None:
    flat, solid = pair(name, **BLOCKS[name]())
    x = torch.randn(2, next(iter(BLOCKS[name]().values())), 7, 6, dtype=torch.float64)

    assert_close(solid(x[:, :, None])[:, :, 0], flat(x))


def test_gates_of_a_single_slice_are_those_of_an_image() -> None:
    flat, solid = pair("AttentionGate", in_channels=6, gate_channels=4)
    x, g = torch.randn(2, 6, 8, 6), torch.randn(2, 4, 4, 3)

    expected = flat(x.double(), g.double())

    assert_close(solid(x[:, :, None].double(), g[:, :, None].double())[:, :, 0], expected)


def test_lines_in_a_single_slice_are_those_of_an_image() -> None:
    """Along an axis of one position attention is a linear map, taken off the sum here."""
    flat, solid = (
        settled(
            getattr(medkit.nn, f"AxialAttention{dims}D")(
                6, num_heads=3, combine="sum", dtype=torch.float64
            )
        )
        for dims in (2, 3)
    )
    depth, *others = solid.lines
    for ours, theirs in zip(others, flat.lines, strict=True):
        ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 6, 7, 6, dtype=torch.float64)
    value = depth.qkv(x.movedim(1, -1))[..., -6:]

    assert_close(solid(x[:, :, None])[:, :, 0] - depth.proj(value).movedim(-1, 1), flat(x))


def test_windows_one_slice_thick_are_those_of_an_image() -> None:
    options = {"channels": 6, "num_heads": 2, "dtype": torch.float64}
    flat = settled(medkit.nn.WindowAttention2D(window_size=4, shift_size=1, **options))
    solid = medkit.nn.WindowAttention3D(window_size=(1, 4, 4), shift_size=(0, 1, 1), **options)
    solid.load_state_dict(flat.state_dict())
    x = torch.randn(2, 6, 7, 6, dtype=torch.float64)

    assert_close(solid(x[:, :, None])[:, :, 0], flat(x))


def test_a_coarse_grid_of_slices_is_that_of_an_image() -> None:
    """The kernel of the reduction is as deep as its stride: the slice twice, at half the weight."""
    flat, solid = pair_of_reductions()
    x = torch.randn(2, 6, 7, 6, dtype=torch.float64)

    y = solid(x[:, :, None].expand(-1, -1, 2, -1, -1))

    assert_close(y[:, :, 0], flat(x))
    assert_close(y[:, :, 1], flat(x))


def pair_of_reductions() -> tuple[nn.Module, nn.Module]:
    flat, solid = (
        settled(
            getattr(medkit.nn, f"SpatialReductionAttention{dims}D")(
                6, num_heads=2, dtype=torch.float64
            )
        )
        for dims in (2, 3)
    )
    state = flat.state_dict()
    state["sr.weight"] = state["sr.weight"][:, :, None].expand(-1, -1, 2, -1, -1) / 2
    solid.load_state_dict(state)
    return flat, solid
