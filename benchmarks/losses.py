"""Losses beside those of other libraries, forward and backward: time and memory.

    python benchmarks/losses.py [--device cuda] [--only "dice + ce"] [--cpu-time]

Each table compares losses of one kind on the same logits in this one process, in turn; it gives
the median and the fastest of each and the ratio of the fastest to medkit's. "saved" is what
autograd keeps for the backward pass beside logits and target, found with saved-tensor hooks.
"peak" is by how much one forward and backward pass raises the peak of memory above logits and
target, the gradient included, each in a fresh process. "value" is the loss in float64 where the
library computes in that. Those of one table differ where another library smooths or averages
differently: MONAI and kornia divide a softmax focal loss by the channels too, and MONAI's
generalized Dice smooths its weights away.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from _record import record
from medkit.losses import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    TverskyLoss,
    WeightedSum,
)

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import _torchvision_shim

Scene = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Makers = dict[str, Callable[[], Loss]]


@cache
def library(name: str) -> Any:
    """Return a module of losses; libraries load when a loss of theirs is made."""
    _torchvision_shim.install()
    return importlib.import_module(name)


def installed(makers: Makers, package: str) -> Makers:
    """Return the losses of a library if it is there."""
    return makers if importlib.util.find_spec(package) else {}


def class_maps(batch: int, channels: int, size: int) -> Scene:
    """Return logits and a map of classes with a channel axis, as MONAI takes it."""
    generator = torch.Generator().manual_seed(0)
    shape = (size, size, size)
    logits = torch.randn(batch, channels, *shape, generator=generator)
    return logits, torch.randint(0, channels, (batch, 1, *shape), generator=generator)


def regions(batch: int, channels: int, size: int) -> Scene:
    """Return logits and float masks that overlap."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, channels, size, size, size)
    logits = torch.randn(shape, generator=generator)
    return logits, (torch.rand(shape, generator=generator) < 0.3).float()


def dice_and_entropy(**options: object) -> WeightedSum:
    dice, entropy = DiceLoss(**options), CrossEntropyLoss(**options)
    return WeightedSum({"dice": (1.0, dice), "ce": (1.0, entropy)})


def cross_entropy_of_torch(input: Tensor, target: Tensor) -> Tensor:
    """What most people call."""
    return nn.functional.cross_entropy(input, target[:, 0])


def tables(size: int) -> dict[str, tuple[Callable[[], Scene], Makers]]:
    """Return what is compared: a scene, and losses to be made, medkit's first."""
    return {
        f"{title}, 2 x {channels}, {kind}": (partial(SCENES[kind], 2, channels, size), makers)
        for (title, channels, kind), makers in comparisons().items()
    }


def comparisons() -> dict[tuple[str, int, str], Makers]:
    softmax, sigmoid = {"softmax": True, "to_onehot_y": True}, {"sigmoid": True}
    regional = {"activation": "sigmoid"}
    tversky = {"alpha": 0.3, "beta": 0.7}
    return {
        ("dice + ce", 14, "class map"): {
            "medkit": dice_and_entropy,
            "medkit, ignore_index": partial(dice_and_entropy, ignore_index=255),
            **of_monai("DiceCELoss", **softmax),
        },
        ("dice", 14, "class map"): {
            "medkit": DiceLoss,
            **of_monai("DiceLoss", **softmax),
            **of_smp("DiceLoss"),
            **of_kornia("dice_loss", average="macro"),
        },
        ("ce", 14, "class map"): {
            "medkit": CrossEntropyLoss,
            "torch": lambda: cross_entropy_of_torch,
        },
        ("focal", 14, "class map"): {
            "medkit": FocalLoss,
            **of_monai("FocalLoss", use_softmax=True, to_onehot_y=True),
            **of_kornia("focal_loss", alpha=None, gamma=2.0, reduction="mean"),
        },
        ("tversky", 14, "class map"): {
            "medkit": partial(TverskyLoss, **tversky),
            **of_monai("TverskyLoss", **softmax, **tversky),
            **of_smp("TverskyLoss", **tversky),
            **of_kornia("tversky_loss", **tversky),
        },
        ("generalized dice", 14, "class map"): {
            "medkit": GeneralizedDiceLoss,
            **of_monai("GeneralizedDiceLoss", **softmax),
        },
        ("dice + ce", 2, "class map"): {
            "medkit": dice_and_entropy,
            **of_monai("DiceCELoss", **softmax),
        },
        ("focal", 2, "class map"): {
            "medkit": FocalLoss,
            **of_monai("FocalLoss", use_softmax=True, to_onehot_y=True),
            **of_kornia("focal_loss", alpha=None, gamma=2.0, reduction="mean"),
        },
        ("dice + ce", 3, "regions"): {
            "medkit": partial(dice_and_entropy, **regional),
            **of_monai("DiceCELoss", **sigmoid),
        },
        ("dice", 3, "regions"): {
            "medkit": partial(DiceLoss, **regional),
            **of_monai("DiceLoss", **sigmoid),
            **of_smp("DiceLoss", mode="multilabel"),
        },
        ("focal", 3, "regions"): {
            "medkit": partial(FocalLoss, **regional),
            **of_monai("FocalLoss"),
            **of_smp("FocalLoss", mode="multilabel"),
            **of_kornia(
                "binary_focal_loss_with_logits",
                regions=True,
                alpha=None,
                gamma=2.0,
                reduction="mean",
            ),
        },
        ("tversky", 3, "regions"): {
            "medkit": partial(TverskyLoss, **regional, **tversky),
            **of_monai("TverskyLoss", **sigmoid, **tversky),
            **of_smp("TverskyLoss", mode="multilabel", **tversky),
        },
    }


SCENES = {"class map": class_maps, "regions": regions}


def of_monai(name: str, **options: object) -> Makers:
    def make() -> Loss:
        return getattr(library("monai.losses"), name)(**options)

    return installed({f"MONAI {name}": make}, "monai")


def of_smp(name: str, mode: str = "multiclass", **options: object) -> Makers:
    """Return a loss of segmentation_models_pytorch, which wants class maps without channels."""

    def make() -> Loss:
        loss = getattr(library("segmentation_models_pytorch.losses"), name)(mode, **options)
        return lambda x, t: loss(x, t[:, 0] if mode == "multiclass" else t)

    return installed({f"SMP {name}": make}, "segmentation_models_pytorch")


def of_kornia(name: str, *, regions: bool = False, **options: object) -> Makers:
    """Return a loss of kornia, which sees images alone: slices stand side by side."""

    def make() -> Loss:
        loss = getattr(library("kornia.losses"), name)

        def flat(x: Tensor, t: Tensor) -> Tensor:
            image, labels = x.flatten(2, 3), t.flatten(2, 3)
            return loss(image, labels if regions else labels[:, 0], **options)

        return flat

    return installed({f"kornia {name}": make}, "kornia")


def seconds(
    loss: Loss, logits: Tensor, target: Tensor, clock: Callable[[], float] = time.perf_counter
) -> float:
    logits.grad = None
    synchronize(logits)
    start = clock()
    loss(logits, target).backward()
    synchronize(logits)
    return clock() - start


def synchronize(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize()


def saved_mebibytes(loss: Loss, logits: Tensor, target: Tensor) -> float:
    """Return what autograd keeps beside the arguments, each storage counted once."""
    given = {each.untyped_storage().data_ptr() for each in (logits, target)}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss(logits, target)
    total = sum(kept.values()) / 2**20
    del value
    return total


def measure_peak(title: str, name: str, options: argparse.Namespace) -> None:
    """Print by how many MiB one forward and backward pass raises the peak."""
    make_scene, losses = tables(options.size)[title]
    loss = losses[name]()
    small = tables(8)[title][0]()
    seconds(loss, *arguments(small, options))
    logits, target = arguments(make_scene(), options)
    before = peak_bytes(logits, reset=True)
    loss(logits, target).backward()
    print((peak_bytes(logits, reset=False) - before) / 2**20)


def arguments(scene: Scene, options: argparse.Namespace) -> Scene:
    logits, target = (each.to(options.device) for each in scene)
    return logits.to(getattr(torch, options.dtype)).requires_grad_(), target


def peak_bytes(x: Tensor, *, reset: bool) -> int:
    """Return the peak of memory since the last reset, after a reset what stands now."""
    if x.device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def peak_mebibytes(title: str, name: str, options: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--peak-of", title, name, "--size", str(options.size)]
    command += ["--device", options.device, "--dtype", options.dtype]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(title: str, options: argparse.Namespace) -> None:
    make_scene, makers = tables(options.size)[title]
    logits, target = arguments(make_scene(), options)
    losses = {name: make() for name, make in makers.items()}
    clock = time.process_time if options.cpu_time else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(options.repeats + 1):
        for name, loss in losses.items():
            spent = seconds(loss, logits, target, clock)
            if turn:
                times[name].append(spent)
    logits.grad = None
    print(f"{title} x {options.size}^3")
    what = f"{title} x {options.size}^3, {options.dtype}"
    record(what, "time", {name: min(each) for name, each in times.items()})
    peaks: dict[str, float] = {}
    for name, loss in losses.items():
        median, fastest = statistics.median(times[name]), min(times[name])
        saved = saved_mebibytes(loss, logits, target)
        peak = peaks[name] = peak_mebibytes(title, name, options)
        value = float(loss(logits.detach().double(), target).detach())
        print(
            f"  {name:36}{median * 1e3:9.1f} ms{fastest * 1e3:9.1f} ms"
            f"{fastest / min(times['medkit']):7.2f} x  saved {saved:7.1f} MiB  "
            f"peak {peak:7.1f} MiB  value {value:.6f}",
            flush=True,
        )
    record(what, "peak memory", peaks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true", help="count processor time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--only", help="part of the title of a table")
    parser.add_argument("--peak-of", nargs=2, metavar=("TITLE", "LOSS"))
    options = parser.parse_args()
    if options.peak_of:
        measure_peak(*options.peak_of, options)
        return
    print(
        f"{options.dtype}, forward and backward, {options.device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for title in tables(options.size):
        if options.only is None or options.only in title:
            compare(title, options)


if __name__ == "__main__":
    main()
