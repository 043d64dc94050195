"""clDice beside MONAI's: time and memory of forward and backward, in one run.

    python benchmarks/skeleton.py

Both losses see the same logits and target in this one process, in turn, after a warm-up; the table
gives medians and ratios. Saved bytes are those of all storages kept for the backward pass. Peak
memory is measured in a fresh process each, over the memory that stood before the call.
``--cpu-time``
counts processor time instead of time on the clock, for a machine that is busy with other work.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.losses.cldice import SoftclDiceLoss
from torch import Tensor

from _record import record
from medkit.losses import ClDiceLoss

Loss = Callable[[Tensor, Tensor], Tensor]


def scene(size: int, kind: str) -> tuple[Tensor, Tensor]:
    """Return logits of a noisy prediction of tubes, or of nothing but noise, and the tubes."""
    torch.manual_seed(0)
    field = torch.randn(1, 1, size, size, size)
    for _ in range(3):
        field = F.avg_pool3d(field, 5, 1, 2)
    tubes = (field.abs() < 0.1 * field.std()).float()
    noise = torch.randn(tubes.shape)
    return (8 * tubes - 4 + noise if kind == "tubes" else 3 * noise), tubes


def losses(iterations: int, compiled: bool) -> dict[str, Loss]:
    ours = ClDiceLoss(activation="sigmoid", iterations=iterations)
    named: dict[str, Loss] = {
        "medkit": ours,
        "MONAI": SoftclDiceLoss(iter_=iterations, sigmoid=True),
    }
    if compiled:
        named["medkit, compiled"] = torch.compile(ours)
    return named


def step(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    leaf = logits.detach().requires_grad_()
    loss(leaf, target).backward()
    assert leaf.grad is not None
    return leaf.grad


def saved_bytes(loss: Loss, logits: Tensor, target: Tensor) -> int:
    storages: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    leaf = logits.detach().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        value = loss(leaf, target)
    value.backward()
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def peak(arguments: list[str], name: str) -> float:
    command = [sys.executable, __file__, *arguments, "--memory-of", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def high_water() -> float:
    """Return the peak of this process's resident memory so far, in MiB (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def print_peak(loss: Loss, logits: Tensor, target: Tensor) -> None:
    """Print by how many MiB a step raises this process's peak of resident memory."""
    step(loss, logits[..., :24, :24, :24], target[..., :24, :24, :24])
    before = high_water()
    step(loss, logits, target)
    print(high_water() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--scene", choices=("tubes", "noise"), default="tubes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--memory-of")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    logits, target = scene(options.size, options.scene)
    named = losses(options.iterations, options.compiled)
    if options.memory_of:
        print_peak(named[options.memory_of], logits, target)
        return
    times: dict[str, list[float]] = {name: [] for name in named}
    for repeat in range(options.repeats + 1):
        for name, loss in named.items():
            start = clock()
            step(loss, logits, target)
            if repeat:
                times[name].append(clock() - start)
    arguments = ["--size", str(options.size), "--iterations", str(options.iterations)]
    arguments += ["--scene", options.scene, "--threads", str(options.threads)]
    seconds = {name: statistics.median(each) for name, each in times.items()}
    eager = [name for name in named if "compiled" not in name]
    saved = {name: saved_bytes(named[name], logits, target) / logits.numel() for name in eager}
    peaks = {name: peak(arguments, name) for name in eager}
    print(
        f"clDice, 1x1x{options.size}^3, {options.iterations} iterations, {options.scene}, forward "
        f"and backward, {options.threads} threads, torch {torch.__version__}, "
        f"{'processor time' if options.cpu_time else 'time on the clock'}"
    )
    print(f"{'':18}{'seconds':>9}{'saved, bytes per voxel':>24}{'peak, MiB':>11}")
    what = f"clDice, {options.size}^3, {options.iterations} iterations"
    for measure, values in (("time", seconds), ("saved memory", saved), ("peak memory", peaks)):
        record(what, measure, values)
    for name in named:
        memory = f"{saved[name]:24.1f}{peaks[name]:11.0f}" if name in saved else ""
        print(f"{name:18}{seconds[name]:9.3f}{memory}")
    print(
        f"{'MONAI / medkit':18}{seconds['MONAI'] / seconds['medkit']:9.1f}"
        f"{saved['MONAI'] / saved['medkit']:24.1f}{peaks['MONAI'] / peaks['medkit']:11.1f}"
    )
    if options.compiled:
        print(f"compiled / eager  {seconds['medkit, compiled'] / seconds['medkit']:9.2f}")


if __name__ == "__main__":
    main()
