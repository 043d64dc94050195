"""Blocks for volumes give the numbers of MONAI's, with the same weights, run beside them."""

import importlib
import warnings
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import medkit.nn
from contract.test_peer_defects import require
from contract.test_timm_blocks import OverGrid, same
from medkit.nn import AttentionGate3D, MBConv3D, MultiHeadSelfAttention3D
from medkit.testing import assert_close
from unit.nn.blocks import copy_in_order, settled


@pytest.fixture(autouse=True)
def _monai() -> Iterator[None]:
    require("monai")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def monai(name: str) -> ModuleType:
    return importlib.import_module(f"monai.networks.{name}")


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("reduction", [2, 4])
def test_squeeze_excite(dims: int, reduction: int) -> None:
    theirs = monai("blocks").ChannelSELayer(dims, 16, r=reduction)
    block = getattr(medkit.nn, f"SqueezeExcite{dims}D")

    same(block(16, reduced_channels=16 // reduction), theirs, torch.randn(2, 16, *(5, 6, 4)[:dims]))


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("expand_ratio", [1, 6])
def test_mbconv(kernel_size: int, expand_ratio: int) -> None:
    theirs = monai("nets.efficientnet").MBConvBlock(
        3, 8, 8, kernel_size, 1, [6, 5, 7], expand_ratio, 0.25, drop_connect_rate=None
    )
    ordered = nn.ModuleList(m for m in theirs.children() if list(m.parameters()))
    ours = MBConv3D(8, 8, kernel_size=kernel_size, expand_ratio=expand_ratio)
    copy_in_order(settled(ordered), ours)
    x = torch.randn(2, 8, 6, 5, 7)

    assert_close(ours(x), theirs.eval()(x), rtol=3e-7, atol=1e-6)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_self_attention(qkv_bias: bool) -> None:
    theirs = OverGrid(monai("blocks.selfattention").SABlock(24, 3, qkv_bias=qkv_bias))
    ours = MultiHeadSelfAttention3D(24, num_heads=3, qkv_bias=qkv_bias)
    settled(theirs)
    ours.load_state_dict(
        {
            key.removeprefix("block.").replace("out_proj", "proj"): value
            for key, value in theirs.state_dict().items()
        }
    )
    x = torch.randn(2, 24, 3, 4, 5)

    assert_close(ours.eval()(x), theirs(x), rtol=1e-6, atol=1e-6)


class SwinAttention(nn.Module):
    """MONAI's window attention with the shift, partition and mask that its block puts around it."""

    def __init__(self, window: tuple[int, ...], shift: tuple[int, ...]) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.attention = monai("nets.swin_unetr").WindowAttention(24, 3, window, qkv_bias=True)

    def forward(self, input: Tensor) -> Tensor:
        swin = monai("nets.swin_unetr")
        axes = tuple(range(1, input.ndim - 1))
        grid = input.movedim(1, -1).roll([-s for s in self.shift], axes)
        mask = None
        if any(self.shift):
            mask = swin.compute_mask(list(grid.shape[1:-1]), self.window, self.shift, "cpu")
        windows = self.attention(swin.window_partition(grid, self.window), mask)
        joined = swin.window_reverse(
            windows.reshape(-1, *self.window, 24), self.window, [*grid.shape[:-1]]
        )
        return joined.roll(self.shift, axes).movedim(-1, 1)


@pytest.mark.parametrize(
    ("grid", "window", "shift"),
    [
        ((8, 6), (4, 3), (0, 0)),
        ((8, 6), (4, 3), (2, 1)),
        ((4, 6, 8), (2, 3, 4), (0, 0, 0)),
        ((4, 6, 8), (2, 3, 4), (1, 1, 2)),
    ],
)
def test_window_attention(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]
) -> None:
    theirs = settled(SwinAttention(window, shift))
    block = getattr(medkit.nn, f"WindowAttention{len(grid)}D")
    ours = block(24, window_size=window, shift_size=shift, num_heads=3).eval()
    state = {key.removeprefix("attention."): v for key, v in theirs.state_dict().items()}
    assert torch.equal(state.pop("relative_position_index"), ours.relative_position_index)
    ours.load_state_dict(state)
    x = torch.randn(2, 24, *grid)

    assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_attention_gate(training: bool) -> None:
    theirs = settled(monai("nets.attentionunet").AttentionBlock(3, f_int=4, f_g=12, f_l=8))
    ours = copy_in_order(theirs, AttentionGate3D(8, 12, hidden_channels=4))
    x, g = torch.randn(2, 8, 4, 5, 3), torch.randn(2, 12, 4, 5, 3)

    expected = theirs.train(training)(g, x)

    assert_close(ours.train(training)(x, g), expected, rtol=1e-6, atol=1e-6)
