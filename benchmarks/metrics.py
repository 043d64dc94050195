"""Surface metrics beside MONAI: time for one case, and the values.

    python benchmarks/metrics.py [--size 256]

Two organs in a cube of voxels of 1 x 1 x 2.5 mm: an ellipsoid and the same one moved and roughened,
and a thin tube. Both libraries get the same boolean masks in this one process, in turn, after a
round to warm up; a row gives the median of each, their ratio, above 1 where medkit is faster, and
the values. MONAI's tables of surface areas are in float32.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from medkit.metrics import average_surface_distance, hausdorff_distance, surface_dice

warnings.filterwarnings("ignore", category=FutureWarning)

import monai.metrics as monai  # noqa: E402  after the filter for its own warnings

SPACING = (2.5, 1.0, 1.0)


def organs(size: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Return prediction and truth ``(1, 1, size, size, size)`` of each organ."""
    z, y, x = np.ogrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j, -1 : 1 : size * 1j]
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((size,) * 3), 2)
    noise /= noise.std()
    radius = np.sqrt((z / 0.6) ** 2 + (y / 0.5) ** 2 + (x / 0.4) ** 2)
    moved = np.sqrt(((z - 0.02) / 0.6) ** 2 + (y / 0.5) ** 2 + ((x - 0.03) / 0.4) ** 2)
    tube = np.sqrt((x - 0.3 * np.sin(4 * z)) ** 2 + y**2)
    pairs = {
        "organ": (moved + 0.02 * noise < 1, radius < 1),
        "tube": (tube + 0.003 * noise < 0.04, tube + 0 * z < 0.04),
    }
    return {n: tuple(torch.from_numpy(m.copy())[None, None] for m in p) for n, p in pairs.items()}


RUNS: dict[str, tuple[Callable[..., float], Callable[..., float]]] = {
    "Hausdorff distance, 95 %": (
        lambda p, t: hausdorff_distance(p, t, percent=95, spacing=SPACING).values.item(),
        lambda p, t: monai.compute_hausdorff_distance(
            p, t, include_background=True, percentile=95, spacing=list(SPACING)
        ).item(),
    ),
    "average surface distance": (
        lambda p, t: average_surface_distance(p, t, spacing=SPACING).values.item(),
        lambda p, t: monai.compute_average_surface_distance(
            p, t, include_background=True, symmetric=True, spacing=list(SPACING)
        ).item(),
    ),
    "surface Dice, 2 mm, surfels": (
        lambda p, t: surface_dice(p, t, tolerance=2.0, spacing=SPACING).values.item(),
        lambda p, t: monai.compute_surface_dice(
            p, t, [2.0], include_background=True, spacing=list(SPACING), use_subvoxels=True
        ).item(),
    ),
}


def seconds(run: Callable[..., float], *masks: Tensor) -> float:
    start = time.perf_counter()
    run(*masks)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.size}^3 voxels, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':38}{'medkit, s':>10}{'MONAI, s':>10}{'ratio':>8}{'fastest':>9}   values")
    for name, masks in organs(options.size).items():
        for title, runs in RUNS.items():
            values = [run(*masks) for run in runs]
            times: list[list[float]] = [[], []]
            for _ in range(options.repeats):
                for run, each in zip(runs, times, strict=True):
                    each.append(seconds(run, *masks))
            ours, theirs = (statistics.median(each) for each in times)
            fastest = min(times[1]) / min(times[0])
            print(
                f"{name}: {title:31}{ours:10.3f}{theirs:10.3f}{theirs / ours:8.1f}{fastest:9.1f}"
                f"   {values[0]:.6f} {values[1]:.6f}"
            )


if __name__ == "__main__":
    main()
