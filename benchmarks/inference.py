"""The sliding window beside MONAI's: time outside the network, and peak memory.

    python benchmarks/inference.py

Both run the same stand-in for a network on the same volume, in turn, in one process; it times
itself, and what is left is the window machinery: cutting, weighting, summing, normalising. A
row gives the median of each and their ratio, below 1 where medkit is faster. Peak memory is the
growth of a fresh process's resident memory during one call, the stand-in's scores included.

The second table is about many classes: the label map of volumes of growing depth, by scores of the
whole volume and argmax in either library, and slab by slab in medkit.
"""

import argparse
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

from medkit.inference import sliding_window_inference, sliding_window_segmentation


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
        start = time.perf_counter()
        scores = windows.expand(-1, self.channels, *windows.shape[2:]).clone()
        self.seconds += time.perf_counter() - start
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


def seconds_outside(name: str, volume: Tensor, case: Case) -> float:
    network = Network(case.channels)
    start = time.perf_counter()
    RUNS[name](volume, network, case)
    return time.perf_counter() - start - network.seconds


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
    command = [sys.executable, __file__, option, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


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


def print_depths() -> None:
    """Print the peak of memory for label maps of volumes of growing depth."""
    print(f"\nlabel map of {CLASSES} classes, windows of 32^3: peak memory, MiB")
    print(f"{'':16}" + "".join(f"{f'{d} x 96 x 96':>16}" for d in DEPTHS))
    for name in OF_A_LABEL_MAP:
        peaks = [growth("--growth-of-labels", name, str(depth)) for depth in DEPTHS]
        print(f"{name:16}" + "".join(f"{each:16.0f}" for each in peaks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--growth", nargs=2, help="used by this script itself")
    parser.add_argument("--growth-of-labels", nargs=2, help="used by this script itself")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.growth:
        print_growth(options.growth[0], CASES[options.growth[1]])
        return
    if options.growth_of_labels:
        print_growth_of_labels(options.growth_of_labels[0], int(options.growth_of_labels[1]))
        return
    print(f"windows of 96^3, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':14}{'outside the network, s':^28}{'peak memory, MiB':^28}{'largest':>12}")
    heads = ("medkit", "MONAI", "ratio")
    print(f"{'':14}" + "".join(f"{head:>9}" for head in 2 * heads) + f"{'difference':>14}")
    for label, case in CASES.items():
        volume = torch.randn(1, 1, *case.size)
        results = [run(volume, Network(case.channels), case) for run in RUNS.values()]
        difference = float((results[0] - results[1]).abs().max())
        results.clear()
        times: dict[str, list[float]] = {name: [] for name in RUNS}
        for _ in range(options.repeats):
            for name, values in times.items():
                values.append(seconds_outside(name, volume, case))
        ours, theirs = (statistics.median(values) for values in times.values())
        small, large = (growth("--growth", name, label) for name in RUNS)
        print(
            f"{label:14}{ours:9.3f}{theirs:9.3f}{ours / theirs:9.2f}"
            f"{small:9.0f}{large:9.0f}{small / large:9.2f}{difference:14.1e}"
        )
    print_depths()


if __name__ == "__main__":
    main()
