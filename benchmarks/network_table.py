"""The table of docs/networks.md: parameters, multiply-adds and memory of every network.

    python benchmarks/network_table.py [--write]

Everything is counted on the meta device, without computing: parameters; multiply-adds of a forward
pass, by PyTorch's flop counter; and the bytes that a forward pass in training keeps for the
backward pass, each storage once, in float32 and for a batch of one. ``--write`` writes
docs/networks.md, else the page is printed.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medkit.nn import (
    CoordinateMLP,
    HybridAttentionUNet,
    HybridUNet3D,
    SegFormer2D,
    SegFormer3D,
    UNet2D,
    UNet3D,
)

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
INTRODUCTION = """# Networks in numbers

Multiply-adds and memory are for a batch of one of the given size, in float32. Memory is what a
forward pass in training keeps for the backward pass: the part that grows with the image. Weights,
gradients and the two moments of Adam come on top, 16 bytes a parameter. In bfloat16 it is half, or
a little more. The last column is the same with `checkpoint=True`, which computes each block again
in the backward pass, one at a time.

Counted by `benchmarks/network_table.py`; `benchmarks/networks.py` measures time and memory beside
other libraries.

"""
CHANGES = """
## What memory layout and bfloat16 change

Times on one thread of a CPU that others used too, the shortest of a few rounds, each relative to
the same network in float32 and channels-first memory; `benchmarks/networks.py` prints the like.

| network | input | | channels last | bfloat16 autocast |
|---|---|---|--:|--:|
| `SegFormer3D()` | 4 x 64 x 64 x 64 | forward | 0.9 | 1.0 |
| | | training | 1.0 | 0.4 |
| `UNet3D()` | 1 x 48 x 48 x 48 | forward | 1.0 | 0.6 |
| | | training | 1.3 | 0.6 |

SegFormer3D keeps its maps in channels-last memory whatever the input, so `channels_last_3d`
changes nothing there, and `UNet3D` trains slower with it. `torch.compile` takes one graph without
breaks: it makes `UNet3D()` on 1 x 48 x 48 x 48 voxels 1.1 times as fast forward and 1.2 times in
training, after 12 and 21 seconds of compiling; `SegFormer3D` it compiled for a minute and a half.

`HybridUNet3D` in float32 on one thread at 4 x 64 x 64 x 64: variant s takes 1.5 s forward, 3.4 s
and 2.3 GiB in training; m 3.4 s, 8.7 s and 4.6 GiB, or 13.0 s and 1.3 GiB with `checkpoint`.
"""
COLUMNS = ("network", "input", "parameters", "GMAC", "memory", "with `checkpoint`")
HEADER = f"| {' | '.join(COLUMNS)} |\n|---|---|--:|--:|--:|--:|\n"


class Entry(NamedTuple):
    """A network as its user would write it, how to make it, and the input."""

    name: str
    make: Callable[..., nn.Module]
    size: tuple[int, ...]
    checkpoints: bool = True


VOLUME, IMAGE, SCAN = (4, 128, 128, 128), (3, 512, 512), (1, 480, 768)

ENTRIES = (
    *(
        Entry(f'SegFormer3D(variant="{v}")', partial(SegFormer3D, 4, 3, variant=v), VOLUME)
        for v in ("b0", "b1", "b2")
    ),
    Entry("UNet3D()", partial(UNet3D, 4, 3), VOLUME),
    Entry("UNet3D(residual=True)", partial(UNet3D, 4, 3, residual=True), VOLUME),
    *(
        Entry(f'HybridUNet3D(variant="{v}")', partial(HybridUNet3D, 4, 3, variant=v), VOLUME)
        for v in ("s", "m", "l")
    ),
    *(
        Entry(f'SegFormer2D(variant="{v}")', partial(SegFormer2D, 3, 3, variant=v), IMAGE)
        for v in ("b0", "b2", "b5")
    ),
    Entry("UNet2D()", partial(UNet2D, 3, 3), IMAGE),
    *(
        Entry(
            f"HybridAttentionUNet(base_channels={b})",
            partial(HybridAttentionUNet, 1, 3, base_channels=b),
            SCAN,
        )
        for b in (32, 64)
    ),
    Entry("CoordinateMLP()", CoordinateMLP, (10_000, 3), checkpoints=False),
)


def kept(model: nn.Module, x: Tensor) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, without the weights."""
    weights = {p.untyped_storage()._cdata for p in model.parameters()}  # noqa: SLF001
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # noqa: SLF001
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    return sum(storage.nbytes() for key, storage in storages.items() if key not in weights)


def added_products(
    sums: tuple[int, ...], left: tuple[int, ...], right: tuple[int, ...], **_: object
) -> int:
    """Return the flops of batched products, from shapes; PyTorch forgets those added in place."""
    del sums
    return 2 * math.prod(left) * right[-1]


def multiply_adds(model: nn.Module, x: Tensor) -> float:
    more = {torch.ops.aten.baddbmm_: added_products}
    with FlopCounterMode(display=False, custom_mapping=more) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() / 2


def megabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def row(entry: Entry) -> str:
    model = entry.make(device="meta")
    points = not entry.checkpoints
    x = torch.empty(entry.size if points else (1, *entry.size), device="meta")
    macs = multiply_adds(model.eval(), x)
    memory = megabytes(kept(model.train(), x))
    lean = "-"
    if entry.checkpoints:
        lean = megabytes(kept(entry.make(device="meta", checkpoint=True).train(), x))
    size = (
        "10,000 points" if points else f"{entry.size[0]} x " + " x ".join(map(str, entry.size[1:]))
    )
    parameters = sum(p.numel() for p in model.parameters())
    cells = (f"`{entry.name}`", size, f"{parameters:,}", f"{macs / 1e9:,.1f}", memory, lean)
    return "| " + " | ".join(cells) + " |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    page = INTRODUCTION + HEADER + "".join(row(entry) for entry in ENTRIES) + CHANGES
    if parser.parse_args().write:
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(page, end="")


if __name__ == "__main__":
    main()
