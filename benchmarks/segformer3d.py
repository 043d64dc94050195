"""SegFormer3D beside the published program and medicai: time and peak memory, as ratios.

    python benchmarks/segformer3d.py [--published CHECKOUT] [--sizes 96 128] [--rounds 9]

CHECKOUT is a clone of github.com/OSUPCVLab/SegFormer3D; its ``architectures/segformer3d.py`` is
imported from there. medicai runs where it is installed, on the torch backend of Keras. All take
the same input of 4 channels in this one process, in turn, after two rounds to warm up; a row
gives the median of each, or the shortest of its rounds, which a busy machine disturbs less, and
its ratio to medkit, above 1 where medkit is faster or smaller.
``forward`` is in evaluation mode without gradients, ``training`` a forward and a backward pass in
training mode. Peak memory is the growth of a fresh process's resident memory (VmHWM, Linux) in
one call after a call on 32^3 voxels, ``checkpoint`` medkit with ``checkpoint=True``. medkit's
logits are compared with the published program's, with its weights.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

os.environ["KERAS_BACKEND"] = "torch"

import torch
from torch import Tensor, nn

from _record import record
from medkit.nn import SegFormer3D

CHANNELS, CLASSES = 4, 3
TASKS = ("forward", "training")
WARM_UP = 2


class Program(NamedTuple):
    """A network for volumes of one size, as a function of the input and of the mode."""

    call: Callable[[Tensor, bool], Tensor]
    parameters: Callable[[], Iterator[nn.Parameter]]


def medkit(size: int, *, checkpoint: bool = False) -> Program:
    del size
    return torch_program(SegFormer3D(CHANNELS, CLASSES, checkpoint=checkpoint))


def torch_program(model: nn.Module) -> Program:
    return Program(lambda x, training: model.train(training)(x), model.parameters)


def medicai(size: int) -> Program:
    from medicai.models import SegFormer

    model = SegFormer(
        input_shape=(size, size, size, CHANNELS), encoder_name="mit_b0", num_classes=CLASSES
    )
    return Program(lambda x, training: model(x.movedim(1, -1), training=training), model.parameters)


@contextmanager
def without_scripting() -> Iterator[None]:
    """Let the published file import: TorchScript refuses one of its annotations."""
    script = torch.jit.script
    torch.jit.script = lambda function: function
    try:
        yield
    finally:
        torch.jit.script = script


def published_model(checkout: Path) -> nn.Module:
    path = checkout / "architectures" / "segformer3d.py"
    spec = importlib.util.spec_from_file_location("published_segformer3d", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    with without_scripting():
        spec.loader.exec_module(module)
    return cast("nn.Module", module.SegFormer3D())


def programs(checkout: Path | None) -> dict[str, Callable[[int], Program]]:
    makers: dict[str, Callable[[int], Program]] = {"medkit": medkit}
    if checkout is not None:
        makers["published"] = lambda _: torch_program(published_model(checkout))
    if importlib.util.find_spec("medicai") is not None:
        makers["medicai"] = medicai
    return makers


def run(program: Program, x: Tensor, task: str) -> None:
    if task == "forward":
        with torch.no_grad():
            program.call(x, False)
        return
    for parameter in program.parameters():
        parameter.grad = None
    program.call(x, True).square().mean().backward()


def seconds(program: Program, x: Tensor, task: str) -> float:
    start = time.perf_counter()
    run(program, x, task)
    return time.perf_counter() - start


def peak() -> float:
    """Return the largest resident memory of this process so far, in MiB (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def print_growth(make: Callable[[int], Program], size: int, task: str) -> None:
    run(make(32), torch.randn(2, CHANNELS, 32, 32, 32), task)
    program, x = make(size), torch.randn(1, CHANNELS, size, size, size)
    before = peak()
    run(program, x, task)
    print(peak() - before)


def growth(name: str, size: int, task: str, checkout: Path | None) -> float:
    command = [sys.executable, __file__, "--growth", name, str(size), task]
    if checkout is not None:
        command += ["--published", str(checkout)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.split()[-1])


def print_difference(checkout: Path) -> None:
    theirs = published_model(checkout).eval()
    x = torch.randn(1, CHANNELS, 64, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        for profile in ("segformer3d", "segformer3d_published"):
            ours = SegFormer3D(profile=profile).eval()
            ours.load_state_dict(theirs.state_dict())
            off = (ours(x) - expected).abs().max() / expected.abs().max()
            print(f"profile {profile}: off by {off:.1e} of the largest published logit")


def row(label: str, values: dict[str, float], form: str) -> str:
    what, _, measure = label.partition(", ")
    if not measure.startswith("median"):
        record(
            f"SegFormer3D 4 x {what}",
            "peak memory" if measure.startswith("peak") else "time",
            values,
        )
    ours = values["medkit"]
    cells = [f"{name} {value:{form}} (x {value / ours:.2f})" for name, value in values.items()]
    return f"{label:32}" + "  ".join(f"{cell:28}" for cell in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--published", type=Path, help="clone of OSUPCVLab/SegFormer3D")
    parser.add_argument("--sizes", type=int, nargs="+", default=[96])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--growth", nargs=3, help="used by this script itself")
    options = parser.parse_args()
    torch.manual_seed(0)
    makers = programs(options.published)
    if options.growth:
        name, size, task = options.growth
        if name == "checkpoint":
            makers[name] = lambda size: medkit(size, checkpoint=True)
        print_growth(makers[name], int(size), task)
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    if options.published is None:
        print("for the published program: --published CHECKOUT")
    else:
        print_difference(options.published)
    for size in options.sizes:
        x = torch.randn(1, CHANNELS, size, size, size)
        built = {name: make(size) for name, make in makers.items()}
        for task in TASKS:
            times: dict[str, list[float]] = {name: [] for name in built}
            for _ in range(WARM_UP + options.rounds):
                for name, program in built.items():
                    times[name].append(seconds(program, x, task))
            for label, choose in (("median", statistics.median), ("shortest", min)):
                values = {name: choose(t[WARM_UP:]) for name, t in times.items()}
                print(row(f"{task} {size}^3, {label} s", values, ".3f"), flush=True)
        del built
        for task in TASKS:
            names = [*makers, *(["checkpoint"] if task == "training" else [])]
            peaks = {name: growth(name, size, task, options.published) for name in names}
            print(row(f"{task} {size}^3, peak MiB", peaks, ".0f"), flush=True)


if __name__ == "__main__":
    main()
