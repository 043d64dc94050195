"""The sliding window beside MONAI's: time outside the network, and peak memory.

    python benchmarks/inference.py

Both run the same stand-in for a network on the same volume, in turn, in one process; it times
itself, and what is left is the window machinery: cutting, weighting, summing, normalising. With
one thread (OMP_NUM_THREADS=1) its own seconds are counted, whatever else the machine does. A row
gives the median of each and their ratio, below 1 where medkit is faster, and the ratio of the
fastest. MONAI hands the network a view of the volume, which the stand-in then reads from afar;
medkit hands it a copy, so that a network that works in place leaves the volume alone. So the ratio
with the network is given, too.

The floor is the time of the bytes that any such loop moves, at the speed of ``a = b + 2 c`` over
three whole volumes: each window read and written, each score read, each sum of whole-volume scores
read and written for every window over it, and once more to be divided. Where caches are larger
than a window the loop may be faster than that.

Peak memory is the growth of a fresh process's resident memory during one call, the stand-in's
scores included.

The second table is about many classes: the label map of volumes of growing depth, by scores of the
whole volume and argmax in either library, and slab by slab in medkit. The third is a hundred
classes on the grid of a scanner.
"""

import argparse
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from monai.inferers import sliding_window_inference as monai_sliding_window_inference
from torch import Tensor

from _record import record
from medkit.inference import sliding_window_inference, sliding_window_segmentation
from medkit.ops import patch_grid


class Case(NamedTuple):
    """One volume, with windows of 96^3."""

    size: tuple[int, int, int]
    channels: int
    overlap: float
    batch_size: int


CASES = {
    "half overlap": Case((192, 192, 160), 3, 0.5, 1),
    "batches of 4": Case((192, 192, 160), 3, 0.5, 4),
    "overlap 0.75": Case((192, 192, 160), 3, 0.75, 1),
    "1 channel": Case((192, 192, 160), 1, 0.5, 1),
    "16 channels": Case((192, 192, 160), 16, 0.5, 1),
}


class Network:
    """A stand-in that gives new scores at each call, as a network does, and times itself."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.seconds = 0.0

    def __call__(self, windows: Tensor) -> Tensor:
        """Repeat the input once per channel."""
        start = clock()
        scores = windows.expand(-1, self.channels, *windows.shape[2:]).clone()
        self.seconds += clock() - start
        return scores


def medkit(volume: Tensor, network: Network, case: Case) -> Tensor:
    return sliding_window_inference(
        volume, network, roi_size=96, overlap=case.overlap, batch_size=case.batch_size
    )


def monai(volume: Tensor, network: Network, case: Case) -> Tensor:
    return monai_sliding_window_inference(
        volume, (96, 96, 96), case.batch_size, network, overlap=case.overlap, mode="gaussian"
    )


RUNS: dict[str, Callable[[Tensor, Network, Case], Tensor]] = {"medkit": medkit, "MONAI": monai}


def clock() -> float:
    """Return the seconds of this thread, or of the wall if others work for it."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds_outside(name: str, volume: Tensor, case: Case) -> tuple[float, float]:
    """Return the seconds outside of the network, and in all."""
    network = Network(case.channels)
    start = clock()
    RUNS[name](volume, network, case)
    total = clock() - start
    return total - network.seconds, total


def bandwidth(repeats: int = 15) -> float:
    """Return the bytes per second of ``a = b + 2 c``."""
    a, b, c = (torch.ones(192 * 192 * 160 * 3) for _ in range(3))
    seconds: list[float] = []
    for _ in range(repeats):
        start = clock()
        torch.add(b, c, alpha=2.0, out=a)
        seconds.append(clock() - start)
    return 3 * a.nbytes / min(seconds)


def floor(case: Case, speed: float) -> float:
    """Return the seconds that the bytes of such a loop take."""
    grid = patch_grid(case.size, patch_size=96, overlap=case.overlap)
    windows = math.prod(map(len, grid))
    moved = windows * 96**3 * (2 + 3 * case.channels) + math.prod(case.size) * 2 * case.channels
    return 4 * moved / speed


def peak() -> float:
    """Return the largest resident memory of this process so far, in MiB (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def print_growth(name: str, case: Case) -> None:
    RUNS[name](torch.randn(1, 1, 100, 100, 100), Network(1), case)
    volume = torch.randn(1, 1, *case.size)
    before = peak()
    RUNS[name](volume, Network(case.channels), case)
    print(peak() - before)


def growth(option: str, *arguments: str) -> float:
    return measured(option, *arguments)[0]


def measured(option: str, *arguments: str) -> list[float]:
    """Return the numbers that a fresh process prints."""
    command = [sys.executable, __file__, option, *arguments]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(number) for number in out.split()]


CLASSES, DEPTHS = 50, (64, 128, 256)
OF_A_LABEL_MAP = {
    "medkit, slabs": lambda x, f: sliding_window_segmentation(x, f, roi_size=32),
    "medkit, whole": lambda x, f: sliding_window_inference(x, f, roi_size=32).argmax(1),
    "MONAI, whole": lambda x, f: monai_sliding_window_inference(
        x, (32, 32, 32), 1, f, overlap=0.5, mode="gaussian"
    ).argmax(1),
}


def print_growth_of_labels(name: str, depth: int) -> None:
    OF_A_LABEL_MAP[name](torch.randn(1, 1, 32, 32, 32), Network(2))
    volume = torch.randn(1, 1, depth, 96, 96)
    before = peak()
    OF_A_LABEL_MAP[name](volume, Network(CLASSES))
    print(peak() - before)


def print_depths(_: int) -> None:
    """Print the peak of memory for label maps of volumes of growing depth."""
    print(f"\nlabel map of {CLASSES} classes, windows of 32^3: peak memory, MiB")
    print(f"{'':16}" + "".join(f"{f'{d} x 96 x 96':>16}" for d in DEPTHS))
    peaks: dict[str, list[float]] = {}
    for name in OF_A_LABEL_MAP:
        peaks[name] = [growth("--growth-of-labels", name, str(depth)) for depth in DEPTHS]
        print(f"{name:16}" + "".join(f"{each:16.0f}" for each in peaks[name]))
    for depth, ours, theirs in zip(
        DEPTHS, peaks["medkit, slabs"], peaks["MONAI, whole"], strict=True
    ):
        what = f"label map of {CLASSES} classes, {depth} x 96 x 96"
        record(what, "peak memory", {"medkit": ours, "MONAI": theirs})


HUNDRED, NATIVE = 100, (384, 384, 384)


def print_growth_of_hundred(depth: int) -> None:
    """Print what a label map of a hundred classes takes, on a grid twice as fine as the input."""
    size = (depth, *NATIVE[1:])
    volume = torch.randn(1, 1, *(n // 2 for n in size))
    sliding_window_segmentation(volume[..., :32, :32, :32], Network(2), roi_size=32)
    before = peak()
    start = time.perf_counter()
    sliding_window_segmentation(
        volume, Network(HUNDRED), roi_size=(32, 96, 96), overlap=(0.5, 0.25, 0.25), output_size=size
    )
    print(peak() - before, time.perf_counter() - start)


def print_hundred(_: int) -> None:
    """Print the peak for a hundred classes at the size that MONAI's issue 6427 asks for."""
    print(f"\nlabel map of {HUNDRED} classes, slab by slab, resized to the grid: peak memory, MiB")
    for depth in (NATIVE[0] // 4, NATIVE[0] // 2, NATIVE[0]):
        size = (depth, *NATIVE[1:])
        memory, seconds = measured("--growth-of-hundred", str(depth))
        whole = 4 * HUNDRED * math.prod(size) / 2**20
        print(f"{size!s:18}{memory:9.0f}   scores alone {whole:7.0f}   {seconds:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--table", choices=[*TABLES], help="one of them; all by default")
    parser.add_argument("--growth", nargs=2, help="used by this script itself")
    parser.add_argument("--growth-of-labels", nargs=2, help="used by this script itself")
    parser.add_argument("--growth-of-hundred", type=int, help="used by this script itself")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.growth:
        print_growth(options.growth[0], CASES[options.growth[1]])
        return
    if options.growth_of_labels:
        print_growth_of_labels(options.growth_of_labels[0], int(options.growth_of_labels[1]))
        return
    if options.growth_of_hundred:
        print_growth_of_hundred(options.growth_of_hundred)
        return
    for name, table in TABLES.items():
        if options.table in (None, name):
            table(options.repeats)


def print_times(repeats: int) -> None:
    """Print the time of the window machinery, and the memory of a call."""
    speed = bandwidth()
    print(f"windows of 96^3, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"a = b + 2 c: {speed / 1e9:.1f} GB/s")
    print(f"{'':14}{'outside the network, s':^45}{'with it':>9}{'peak memory, MiB':^27}", end="")
    print(f"{'largest':>14}")
    heads = ("medkit", "MONAI", "ratio", "fastest", "floor", "ratio", "medkit", "MONAI", "ratio")
    print(f"{'':14}" + "".join(f"{head:>9}" for head in heads) + f"{'difference':>14}")
    for label, case in CASES.items():
        volume = torch.randn(1, 1, *case.size)
        results = [run(volume, Network(case.channels), case) for run in RUNS.values()]
        difference = float((results[0] - results[1]).abs().max())
        results.clear()
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in RUNS}
        for _ in range(repeats):
            for name, values in times.items():
                values.append(seconds_outside(name, volume, case))
        (ours, all_ours), (theirs, all_theirs) = (
            [statistics.median(each) for each in zip(*values, strict=True)]
            for values in times.values()
        )
        shortest = {name: min(values)[0] for name, values in times.items()}
        fastest = shortest["medkit"] / shortest["MONAI"]
        record(f"sliding window, {label}, outside the network", "time", shortest)
        small, large = (growth("--growth", name, label) for name in RUNS)
        record(f"sliding window, {label}", "peak memory", {"medkit": small, "MONAI": large})
        print(
            f"{label:14}{ours:9.3f}{theirs:9.3f}{ours / theirs:9.2f}{fastest:9.2f}"
            f"{floor(case, speed):9.3f}{all_ours / all_theirs:9.2f}"
            f"{small:9.0f}{large:9.0f}{small / large:9.2f}{difference:14.1e}"
        )


TABLES = {"times": print_times, "depths": print_depths, "hundred": print_hundred}

if __name__ == "__main__":
    main()
