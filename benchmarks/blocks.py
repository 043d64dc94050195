"""Blocks beside the same blocks of timm and MONAI: time and saved memory, as ratios.

    python benchmarks/blocks.py [--rounds 7] [--only MBConv Window]

Each row is one block and its peer, in this one process, with the same weights where the names
allow it, on the same input, in turn, after two rounds to warm up. ``forward`` is in evaluation
mode without gradients, ``training`` a forward and a backward pass in training mode; the numbers
are milliseconds of processor time, the least of the rounds with the median in brackets, and the
peer's over medkit's, above 1 where medkit is faster. ``saved`` is what a training step keeps for
its backward pass, in MiB. Blocks that nobody else has stand beside the formula written down.
timm and MONAI run where they are installed.
"""

import argparse
import importlib.util
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import medkit.nn as ours
from _record import record

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import _torchvision_shim

WARM_UP = 2
MEBI = 2**20

Shapes = tuple[tuple[int, ...], ...]
Make = Callable[[], nn.Module]

FLAT: Shapes = ((2, 32, 128, 128),)
SOLID: Shapes = ((1, 32, 32, 32, 32),)


class Pair(NamedTuple):
    """A block, the same of another program, and the shapes of their inputs."""

    name: str
    ours: Make
    theirs: Make
    shapes: Shapes


class OverGrid(nn.Module):
    """A block of tokens, channels last, that takes a grid."""

    def __init__(self, block: nn.Module, *, flat: bool = True) -> None:
        super().__init__()
        self.block, self.flat = block, flat

    def forward(self, input: Tensor) -> Tensor:
        """Return the map."""
        grid = input.movedim(1, -1)
        tokens = grid.flatten(1, -2) if self.flat else grid
        return self.block(tokens).reshape(grid.shape).movedim(-1, 1)


class Swapped(nn.Module):
    """MONAI's attention gate, which takes the gate first, at the size of the input."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, input: Tensor, gate: Tensor) -> Tensor:
        """Return the map."""
        up = nn.functional.interpolate(gate, size=input.shape[2:], mode="trilinear")
        return self.block(up, input)


class MonaiWindows(nn.Module):
    """MONAI's window attention with the roll, partition and mask that its block puts around it."""

    def __init__(self, channels: int, heads: int, window: int, shift: int, size: int) -> None:
        from monai.networks.nets import swin_unetr

        super().__init__()
        self.swin, self.window, self.shift = swin_unetr, (window,) * 3, shift
        self.attention = swin_unetr.WindowAttention(channels, heads, self.window, qkv_bias=True)
        dims = [-(-size // window) * window] * 3
        mask = swin_unetr.compute_mask(dims, self.window, (shift,) * 3, "cpu") if shift else None
        self.register_buffer("mask", mask)

    def forward(self, input: Tensor) -> Tensor:
        """Return the map."""
        grid = input.movedim(1, -1)
        missing = [
            -size % window for size, window in zip(grid.shape[1:-1], self.window, strict=True)
        ]
        grid = nn.functional.pad(grid, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
        axes = (1, 2, 3)
        grid = grid.roll((-self.shift,) * 3, axes) if self.shift else grid
        windows = self.attention(self.swin.window_partition(grid, self.window), self.mask)
        windows = windows.reshape(-1, *self.window, grid.shape[-1])
        grid = self.swin.window_reverse(windows, self.window, list(grid.shape[:-1]))
        grid = grid.roll((self.shift,) * 3, axes) if self.shift else grid
        d, h, w = input.shape[2:]
        return grid[:, :d, :h, :w].movedim(-1, 1)


class PlainShuffle(nn.Module):
    """Shuffle attention written down as in its paper."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups, width = groups, channels // (2 * groups)
        self.weights = nn.ParameterList(torch.ones(width, 1, 1, 1) for _ in range(4))
        self.norm = nn.GroupNorm(width, width)

    def forward(self, input: Tensor) -> Tensor:
        """Return the map."""
        w1, b1, w2, b2 = self.weights
        batch, channels, *size = input.shape
        first, second = input.reshape(batch * self.groups, -1, *size).chunk(2, dim=1)
        first = first * torch.sigmoid(w1 * first.mean((2, 3, 4), keepdim=True) + b1)
        second = second * torch.sigmoid(w2 * self.norm(second) + b2)
        output = torch.cat((first, second), dim=1).reshape(batch, 2, channels // 2, *size)
        return output.transpose(1, 2).reshape(input.shape)


class PlainAxial(nn.Module):
    """Attention along each axis with the softmax written out."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.ModuleList(nn.Linear(channels, 3 * channels) for _ in range(3))
        self.proj = nn.ModuleList(nn.Linear(channels, channels) for _ in range(3))

    def forward(self, input: Tensor) -> Tensor:
        """Return the map."""
        grid = input.movedim(1, -1)
        for axis, (qkv, proj) in enumerate(zip(self.qkv, self.proj, strict=True), start=1):
            lines = grid.movedim(axis, -2)
            split = qkv(lines).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-3, -2)
            q, k, v = split
            weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
            grid = proj((weights @ v).transpose(-3, -2).flatten(-2)).movedim(-2, axis)
        return grid.movedim(-1, 1)


def timm_pairs() -> list[Pair]:
    _torchvision_shim.install()
    from timm.layers import Attention, EcaModule, SEModule
    from timm.layers.cbam import CbamModule
    from timm.models import _efficientnet_blocks as blocks
    from timm.models.swin_transformer import SwinTransformerBlock

    norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
    gates = partial(blocks.SqueezeExcite, rd_channels=8)
    options = {"act_layer": nn.SiLU, "norm_layer": norm}

    def swin(shift: int) -> nn.Module:
        block = SwinTransformerBlock(32, (128, 128), 4, window_size=8, shift_size=shift)
        wrapped = OverGrid(block, flat=False)
        block.forward = block._attn  # noqa: SLF001  its attention without norm and shortcut
        return wrapped

    return [
        Pair(
            "MBConv2D / timm InvertedResidual",
            lambda: ours.MBConv2D(32, 32),
            lambda: blocks.InvertedResidual(32, 32, exp_ratio=6.0, se_layer=gates, **options),
            FLAT,
        ),
        Pair(
            "FusedMBConv2D / timm EdgeResidual",
            lambda: ours.FusedMBConv2D(32, 32),
            lambda: blocks.EdgeResidual(32, 32, exp_ratio=4.0, **options),
            FLAT,
        ),
        Pair(
            "DepthwiseSeparableConv2D / timm",
            lambda: ours.DepthwiseSeparableConv2D(32, 32, activation=nn.SiLU),
            lambda: blocks.DepthwiseSeparableConv(32, 32, **options),
            FLAT,
        ),
        Pair(
            "SqueezeExcite2D / timm SEModule",
            lambda: ours.SqueezeExcite2D(32, reduced_channels=8),
            lambda: SEModule(32),
            FLAT,
        ),
        Pair(
            "EfficientChannelAttention2D / timm EcaModule",
            lambda: ours.EfficientChannelAttention2D(32),
            lambda: EcaModule(32),
            FLAT,
        ),
        Pair("CBAM2D / timm CbamModule", lambda: ours.CBAM2D(32), lambda: CbamModule(32), FLAT),
        Pair(
            "MultiHeadSelfAttention2D / timm Attention",
            lambda: ours.MultiHeadSelfAttention2D(32, num_heads=4),
            lambda: OverGrid(Attention(32, 4, qkv_bias=True)),
            ((1, 32, 48, 48),),
        ),
        *(
            Pair(
                f"WindowAttention2D, shift {shift} / timm Swin",
                partial(ours.WindowAttention2D, 32, window_size=8, shift_size=shift, num_heads=4),
                partial(swin, shift),
                FLAT,
            )
            for shift in (0, 4)
        ),
    ]


def monai_pairs() -> list[Pair]:
    from monai.networks.blocks import ChannelSELayer
    from monai.networks.blocks.selfattention import SABlock
    from monai.networks.nets.attentionunet import AttentionBlock
    from monai.networks.nets.efficientnet import MBConvBlock

    return [
        Pair(
            "MBConv3D / MONAI MBConvBlock",
            lambda: ours.MBConv3D(32, 32),
            lambda: MBConvBlock(3, 32, 32, 3, 1, [32] * 3, 6, 0.25, drop_connect_rate=None),
            SOLID,
        ),
        Pair(
            "SqueezeExcite3D / MONAI ChannelSELayer",
            lambda: ours.SqueezeExcite3D(32, reduced_channels=16),
            lambda: ChannelSELayer(3, 32),
            SOLID,
        ),
        *(
            Pair(
                f"MultiHeadSelfAttention3D / MONAI SABlock{', flash' * flash}",
                lambda: ours.MultiHeadSelfAttention3D(32, num_heads=4),
                lambda flash=flash: OverGrid(
                    SABlock(32, 4, qkv_bias=True, use_flash_attention=flash)
                ),
                ((1, 32, 12, 14, 13),),
            )
            for flash in (False, True)
        ),
        *(
            Pair(
                f"WindowAttention3D, shift {shift}, {size}^3 / MONAI Swin UNETR",
                partial(ours.WindowAttention3D, 48, shift_size=shift, num_heads=3),
                partial(MonaiWindows, 48, 3, 7, shift, size),
                ((1, 48, *(size,) * 3),),
            )
            for shift, size in ((0, 28), (3, 28), (3, 24))
        ),
        Pair(
            "AttentionGate3D / MONAI AttentionBlock",
            lambda: ours.AttentionGate3D(32, 64),
            lambda: Swapped(AttentionBlock(3, f_int=16, f_g=64, f_l=32)),
            (SOLID[0], (1, 64, 16, 16, 16)),
        ),
    ]


def formula_pairs() -> list[Pair]:
    return [
        Pair(
            "ShuffleAttention3D / formula",
            lambda: ours.ShuffleAttention3D(32, groups=4),
            lambda: PlainShuffle(32, 4),
            SOLID,
        ),
        Pair(
            "AxialAttention3D / formula",
            lambda: ours.AxialAttention3D(32, num_heads=4),
            lambda: PlainAxial(32, 4),
            ((1, 32, 24, 24, 24),),
        ),
    ]


def run(block: nn.Module, inputs: list[Tensor], task: str) -> None:
    if task == "forward":
        with torch.no_grad():
            block.eval()(*inputs)
        return
    for parameter in block.parameters():
        parameter.grad = None
    y = block.train()(*(x.detach().requires_grad_() for x in inputs))
    y.backward(torch.ones_like(y))


def saved(block: nn.Module, inputs: list[Tensor]) -> float:
    """Return the MiB of distinct memory that autograd keeps, parameters left out."""
    kept: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in block.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        y = block.train()(*(x.detach().requires_grad_() for x in inputs))
    del y
    return sum(kept.values()) / MEBI


def row(pair: Pair, rounds: int) -> str:
    what, _, peer = pair.name.partition(" / ")
    blocks = (pair.ours(), pair.theirs())
    inputs = [torch.randn(shape) for shape in pair.shapes]
    cells: list[str] = []
    for task in ("forward", "training"):
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(WARM_UP + rounds):
            for block, spent in zip(blocks, times, strict=True):
                start = time.process_time()
                run(block, inputs, task)
                spent.append(1e3 * (time.process_time() - start))
        mine, other = (spent[WARM_UP:] for spent in times)
        middle, other_middle = statistics.median(mine), statistics.median(other)
        record(f"{what}, {task}", "time", {"medkit": min(mine), peer: min(other)})
        cells.append(
            f"{task} {min(mine):7.2f} [{middle:7.2f}] "
            f"x {min(other) / min(mine):5.2f} [{other_middle / middle:5.2f}]"
        )
    mine, other = (saved(block, inputs) for block in blocks)
    record(f"{what}, training", "saved memory", {"medkit": mine, peer: other})
    cells.append(f"saved {mine:6.1f} x {other / mine:4.2f}")
    return f"{pair.name:52}" + "  ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the names of rows")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    pairs = formula_pairs()
    for peer, make in (("timm", timm_pairs), ("monai", monai_pairs)):
        if importlib.util.find_spec(peer) is None:
            print(f"{peer} is not installed")
        else:
            pairs += make()
    for pair in pairs:
        if any(part in pair.name for part in options.only):
            print(row(pair, options.rounds), flush=True)


if __name__ == "__main__":
    main()
