"""Every network beside the peer that has it: time, and peak memory, as ratios.

    python benchmarks/networks.py [--only NAME ...] [--rounds 5] [--compile]

Each group runs in this one process, in turn, after two rounds to warm up; a row gives the shortest
of the rounds, which a busy machine disturbs least, and the ratio to medkit's network, above 1 where
medkit is faster or smaller. ``forward`` is in evaluation without gradients, ``training`` a forward
and a backward pass. Peak memory is the growth of a fresh process's resident memory (VmHWM, Linux)
in one training pass. Peers marked ~ solve the same task with another architecture and are there
for context; the others have the same layers. Rows named "medkit, ..." say what a memory layout,
bfloat16 autocast, checkpoints and, with ``--compile``, ``torch.compile`` change.
``benchmarks/segformer3d.py`` compares SegFormer3D with its references.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from _record import record
from medkit.nn import (
    CoordinateMLP,
    HybridAttentionUNet,
    HybridUNet3D,
    SegFormer3D,
    TimmUNet,
    UNet2D,
    UNet3D,
)

sys.path.append(str(Path(__file__).parents[1] / "tests"))
WARM_UP = 2
Make = Callable[[], nn.Module]


def dynunet(dims: int, **options: object) -> nn.Module:
    from monai.networks.nets import DynUNet

    channels = (32, 64, 128, 256, *((512, 512) if dims == 2 else (320, 320)))
    strides = (1, 2, 2, 2, 2, 2)
    return DynUNet(dims, 1, 2, (3,) * 6, strides, strides[1:], filters=channels, **options)


def monai(name: str, **options: object) -> nn.Module:
    from monai.networks import nets

    return getattr(nets, name)(in_channels=1, out_channels=2, **options)


def smp_unet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet34", encoder_weights=None, in_channels=1, classes=2)


def plain_mlp() -> nn.Module:
    layers: list[nn.Module] = []
    for layer in range(4):
        layers += [nn.Linear(128 if layer else 3, 128), nn.Dropout(0.1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 1), nn.Sigmoid())


UNETR = partial(monai, "UNETR", img_size=(64, 64, 64))
SWIN = partial(monai, "SwinUNETR", feature_size=24)
MONAI_UNET = partial(
    monai, "UNet", spatial_dims=3, channels=(32, 64, 128, 256, 320), strides=(2, 2, 2, 2)
)

GROUPS: dict[str, tuple[tuple[int, ...], dict[str, Make]]] = {
    "UNet3D": (
        (1, 1, 64, 64, 64),
        {
            "medkit": UNet3D,
            "MONAI DynUNet": partial(dynunet, 3),
            "~MONAI UNet": MONAI_UNET,
            "medkit, checkpoint": partial(UNet3D, checkpoint=True),
        },
    ),
    "UNet3D residual": (
        (1, 1, 64, 64, 64),
        {"medkit": partial(UNet3D, residual=True), "MONAI": partial(dynunet, 3, res_block=True)},
    ),
    "UNet2D": ((4, 1, 192, 192), {"medkit": UNet2D, "MONAI DynUNet": partial(dynunet, 2)}),
    "HybridUNet3D": (
        (1, 1, 64, 64, 64),
        {
            "medkit": partial(HybridUNet3D, 1, 2),
            "~MONAI UNETR": UNETR,
            "~MONAI SwinUNETR": SWIN,
            "medkit, checkpoint": partial(HybridUNet3D, 1, 2, checkpoint=True),
            "medkit, window": partial(HybridUNet3D, 1, 2, attention="window"),
        },
    ),
    "SegFormer3D": (
        (1, 1, 64, 64, 64),
        {"medkit": partial(SegFormer3D, 1, 2), "~MONAI UNETR": UNETR, "~MONAI SwinUNETR": SWIN},
    ),
    "TimmUNet": (
        (4, 1, 192, 192),
        {"medkit": partial(TimmUNet, 1, 2), "~smp Unet": smp_unet},
    ),
    "HybridAttentionUNet": (
        (1, 1, 240, 384),
        {
            "medkit": partial(HybridAttentionUNet, base_channels=32),
            "medkit, checkpoint": partial(HybridAttentionUNet, base_channels=32, checkpoint=True),
        },
    ),
    "CoordinateMLP": ((10_000, 3), {"medkit": CoordinateMLP, "plain layers": plain_mlp}),
}


class Run:
    """A network in one of the ways that a user can run it."""

    def __init__(self, model: nn.Module, x: Tensor, *, how: str = "") -> None:
        self.model, self.x = model, x
        self.region = torch.autocast("cpu", torch.bfloat16) if how == "bf16" else nullcontext()
        if how == "channels last":
            layout = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
            self.model, self.x = model.to(memory_format=layout), x.to(memory_format=layout)
        self.call: Callable[[Tensor], Tensor] = self.model
        if how == "compile":
            self.call = torch.compile(self.model)

    def __call__(self, task: str) -> float:
        """Return the seconds that a task takes."""
        self.model.train(task == "training")
        self.model.zero_grad()
        start = time.perf_counter()
        with self.region, torch.set_grad_enabled(task == "training"):
            y = self.call(self.x)
        if task == "training":
            y.float().square().mean().backward()
        return time.perf_counter() - start


def peak() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def growth(group: str, name: str) -> float:
    command = [sys.executable, __file__, "--growth", group, name]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.split()[-1])


def print_row(group: str, label: str, values: dict[str, float], unit: str) -> None:
    what, _, measure = label.partition(", ")
    record(f"{group}, {what}", "peak memory" if measure == "peak" else "time", values)
    ours = values["medkit"]
    cells = [f"{name} {value:.3g} {unit} (x {value / ours:.2f})" for name, value in values.items()]
    print(f"{label:22}" + "  ".join(f"{cell:34}" for cell in cells), flush=True)


def compare(group: str, *, rounds: int, compiled: bool) -> None:
    size, makers = GROUPS[group]
    x = torch.randn(size)
    print(f"\n{group} {size}")
    runs = {name: Run(make(), x) for name, make in makers.items()}
    if x.ndim > 2:
        for how in ("channels last", "bf16", *(("compile",) if compiled else ())):
            runs[f"medkit, {how}"] = Run(makers["medkit"](), x, how=how)
    for task in ("forward", "training"):
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(WARM_UP + rounds):
            for name, run in runs.items():
                times[name].append(run(task))
        print_row(group, f"{task}, shortest", {n: min(t[WARM_UP:]) for n, t in times.items()}, "s")
    del runs
    print_row(group, "training, peak", {name: growth(group, name) for name in makers}, "MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=list(GROUPS), choices=list(GROUPS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    parser.add_argument("--growth", nargs=2, help="used by this script itself")
    options = parser.parse_args()
    import _torchvision_shim

    _torchvision_shim.install()
    torch.manual_seed(0)
    if options.growth:
        group, name = options.growth
        size, makers = GROUPS[group]
        run = Run(makers[name](), torch.randn(size))
        before = peak()
        run("training")
        print(peak() - before)
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for group in options.only:
        compare(group, rounds=options.rounds, compiled=options.compile)


if __name__ == "__main__":
    main()
