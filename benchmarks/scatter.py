"""The group reconstruction loss beside torch_scatter and a Python loop, forward and backward.

    python benchmarks/scatter.py [--device cuda]

All run on the same nodes in this one process, in turn; the table gives the median and the fastest
of each with their ratios to medkit (on a busy machine the fastest says more). torch_scatter gets
what it needs to do the same job: ids that count up from zero without gaps, and their number; "any
ids" is medkit without either. Targets per node add what tells the target of a group: medkit checks
that they are all the same, torch_scatter averages them. The loop, which takes a minute over all
nodes, runs on one batch of complete groups, as it does in training. Memory is the rise of the peak
above inputs and gradient, each in a fresh process.

Sorted ids are summed in runs. Unsorted ones leave little to gain on one thread: medkit and
torch_scatter alike add values and counts to scattered places and gather the gradient from them,
which is two thirds of the time.
"""

import argparse
import ctypes
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from _record import record
from medkit.losses import group_reconstruction_loss

try:
    from torch_scatter import scatter_mean
except ImportError:
    scatter_mean = None

Loss = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def medkit(p: Tensor, t: Tensor, ids: Tensor, groups: int) -> Tensor:
    return group_reconstruction_loss(p, t, ids, num_groups=groups)


def medkit_any_ids(p: Tensor, t: Tensor, ids: Tensor, groups: int) -> Tensor:  # noqa: ARG001
    return group_reconstruction_loss(p, t, ids)


def torch_scatter(p: Tensor, t: Tensor, ids: Tensor, groups: int) -> Tensor:
    if t.shape == p.shape:
        t = scatter_mean(t, ids, dim_size=groups)
    return (scatter_mean(p, ids, dim_size=groups) - t).square().mean()


def loop(p: Tensor, t: Tensor, ids: Tensor, groups: int) -> Tensor:
    terms = []
    for k in range(groups):
        inside = ids == k
        target = t[inside][0] if t.shape == p.shape else t[k]
        terms.append((p[inside].mean() - target).square())
    return torch.stack(terms).mean()


RUNS: dict[str, Loss] = {"medkit": medkit, "medkit, any ids": medkit_any_ids}
if scatter_mean is not None:
    RUNS["torch_scatter"] = torch_scatter


def seconds(loss: Loss, p: Tensor, t: Tensor, ids: Tensor, groups: int) -> float:
    p = p.clone().requires_grad_()
    synchronize(p)
    start = time.perf_counter()
    loss(p, t, ids, groups).backward()
    synchronize(p)
    return time.perf_counter() - start


def synchronize(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize()


def scene(nodes: int, groups: int, order: str, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return predictions, targets per group, and ids of groups of unequal size, none empty."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, groups, (nodes - groups,), generator=generator)
    ids = torch.cat([torch.arange(groups), ids])
    mixed = ids[torch.randperm(nodes, generator=generator)]
    ids = ids.sort().values if order == "sorted" else mixed
    p, t = torch.rand(nodes, generator=generator), torch.rand(groups, generator=generator)
    return p.to(device), t.to(device), ids.to(device)


def measure_memory(name: str, options: argparse.Namespace) -> None:
    """Print by how many MiB one call raises the peak, beyond the gradient it leaves."""
    p, t, ids = scene(options.nodes, options.groups, options.order, options.device)
    seconds(RUNS[name], *scene(1000, 10, options.order, options.device), 10)
    p = p.clone().requires_grad_()
    p.grad = torch.ones_like(p)
    before = peak_bytes(p)
    RUNS[name](p, t, ids, options.groups).backward()
    print((peak_bytes(p, reset=False) - before) / 2**20)


def peak_bytes(x: Tensor, *, reset: bool = True) -> int:
    """Return the peak of memory since the last reset, or reset it to what stands now."""
    if x.device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before counts when it is used again
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def peak_mebibytes(name: str, order: str, options: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--memory-of", name, "--order", order]
    command += ["--nodes", str(options.nodes), "--groups", str(options.groups)]
    command += ["--device", options.device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(runs: dict[str, Loss], repeats: int, *args: Tensor | int) -> dict[str, list[float]]:
    """Return the times of each, in turn, after two rounds to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 2):
        for name, run in runs.items():
            times[name].append(seconds(run, *args))
    return {name: each[2:] for name, each in times.items()}


def table(title: str, times: dict[str, list[float]], memory: dict[str, float]) -> None:
    what = f"group loss, {title}"
    record(what, "time", {name: min(each) for name, each in times.items()})
    if memory:
        record(what, "peak memory", memory)
    print(f"{title:42}   median   ratio  fastest   ratio")
    for name, each in times.items():
        row = f"  {name:40}"
        for pick in (statistics.median, min):
            row += f"{pick(each) * 1e3:6.2f} ms {pick(each) / pick(times['medkit']):5.2f} x"
        print(row + (f"{memory[name]:8.1f} MiB" if name in memory else ""))


def compare(options: argparse.Namespace, order: str) -> None:
    p, t, ids = scene(options.nodes, options.groups, order, options.device)
    memory = {name: peak_mebibytes(name, order, options) for name in RUNS}
    times = measure(RUNS, options.repeats, p, t, ids, options.groups)
    table(f"{order} ids, targets per group", times, memory)
    times = measure(RUNS, options.repeats, p, t[ids], ids, options.groups)
    table(f"{order} ids, targets per node", times, {})
    values = [float(run(p.double(), t.double(), ids, options.groups)) for run in RUNS.values()]
    print(f"  largest difference of the losses in float64: {max(values) - min(values):.1e}")
    share = options.batch / options.nodes
    groups = round(options.groups * share)
    batch = scene(options.batch, groups, order, options.device)
    times = measure({**RUNS, "loop": loop}, options.repeats, *batch, groups)
    table(f"{order} ids, a batch of {options.batch} nodes in {groups} groups", times, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=1_400_000)
    parser.add_argument("--groups", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--order", default="sorted", choices=("sorted", "unsorted"))
    parser.add_argument("--memory-of", choices=RUNS)
    options = parser.parse_args()
    if options.memory_of:
        measure_memory(options.memory_of, options)
        return
    print(
        f"{options.nodes} nodes, {options.groups} groups, float32, forward and backward, ", end=""
    )
    print(f"{options.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if scatter_mean is None:
        print("torch_scatter is not installed: medkit alone")
    for order in ("sorted", "unsorted"):
        compare(options, order)


if __name__ == "__main__":
    main()
