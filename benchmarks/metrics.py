"""Metrics beside MONAI: time for one case, and the values.

    python benchmarks/metrics.py [--size 256]

Two organs in a cube of voxels of 1 x 1 x 2.5 mm: an ellipsoid and the same one moved and roughened,
and a thin tube, as boolean masks; and a class map of both and of two boxes, of which MONAI gets the
masks, made beforehand. Both libraries work in this one process, in turn, after a round to warm up.
A row gives the median of each, their ratio, above 1 where medkit is faster, that of the fastest,
and the values, of a class map their mean. MONAI's tables of surface areas are in float32. With one
thread (OMP_NUM_THREADS=1) its own seconds are counted, whatever else the machine does.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from _record import record
from medkit.metrics import (
    average_surface_distance,
    dice_score,
    hausdorff_distance,
    surface_dice,
)

warnings.filterwarnings("ignore", category=FutureWarning)

import monai.metrics as monai  # noqa: E402  after the filter for its own warnings

SPACING = (2.5, 1.0, 1.0)
Masks = dict[str, tuple[Tensor, Tensor]]


def organs(size: int) -> Masks:
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


def class_maps(pairs: Masks) -> tuple[Tensor, Tensor]:
    """Return prediction and truth ``(1, size, size, size)`` of the organs and two boxes."""
    maps = [torch.zeros(pairs["organ"][0].shape[2:], dtype=torch.uint8) for _ in range(2)]
    for number, name in enumerate(pairs, 1):
        for each, mask in zip(maps, pairs[name], strict=True):
            each[mask[0, 0]] = number
    size = len(maps[0])
    for number, corner in ((3, 0), (4, size - size // 5)):
        for shift, each in enumerate(maps):
            each[size // 3 : size // 2 + shift, corner : corner + size // 5, : size // 4] = number
    return maps[0][None], maps[1][None]


class Metric(NamedTuple):
    """The same metric in both libraries."""

    ours: Callable[..., Tensor]
    theirs: Callable[..., Tensor]


METRICS = {
    "Dice": Metric(
        lambda p, t, **o: dice_score(p, t, **o).values,
        monai.compute_dice,
    ),
    "Hausdorff distance, 95 %": Metric(
        lambda p, t, **o: hausdorff_distance(p, t, percent=95, spacing=SPACING, **o).values,
        lambda p, t, **o: monai.compute_hausdorff_distance(
            p, t, percentile=95, spacing=list(SPACING), **o
        ),
    ),
    "average surface distance": Metric(
        lambda p, t, **o: average_surface_distance(p, t, spacing=SPACING, **o).values,
        lambda p, t, **o: monai.compute_average_surface_distance(
            p, t, symmetric=True, spacing=list(SPACING), **o
        ),
    ),
    "surface Dice, 2 mm, surfels": Metric(
        lambda p, t, **o: surface_dice(p, t, tolerance=2.0, spacing=SPACING, **o).values,
        lambda p, t, **o: monai.compute_surface_dice(
            p,
            t,
            [2.0] * (p.shape[1] - (not o["include_background"])),
            spacing=list(SPACING),
            use_subvoxels=True,
            **o,
        ),
    ),
}


def clock() -> float:
    """Return the seconds of this thread, or of the wall if others work for it."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def compare(
    name: str, ours: Callable[[], Tensor], theirs: Callable[[], Tensor], count: int
) -> None:
    """Print a row."""
    values = [float(run().mean()) for run in (ours, theirs)]
    times: list[list[float]] = [[], []]
    for _ in range(count):
        for run, each in zip((ours, theirs), times, strict=True):
            start = clock()
            run()
            each.append(clock() - start)
    mine, monais = (statistics.median(each) for each in times)
    fastest = min(times[1]) / min(times[0])
    record(name, "time", {"medkit": min(times[0]), "MONAI": min(times[1])})
    print(
        f"{name:43}{mine:10.3f}{monais:10.3f}{monais / mine:8.1f}{fastest:9.1f}"
        f"   {values[0]:.6f} {values[1]:.6f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.size}^3 voxels, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':43}{'medkit, s':>10}{'MONAI, s':>10}{'ratio':>8}{'fastest':>9}   values")
    masks = organs(options.size)
    maps = class_maps(masks)
    channels = [torch.nn.functional.one_hot(m.long(), 5).movedim(-1, 1).bool() for m in maps]
    for title, metric in METRICS.items():
        for name, pair in masks.items():
            compare(
                f"{name}: {title}",
                lambda m=metric, p=pair: m.ours(*p, include_background=True),
                lambda m=metric, p=pair: m.theirs(*p, include_background=True),
                options.repeats,
            )
        compare(
            f"class map: {title}",
            lambda m=metric: m.ours(*maps, num_classes=5, include_background=False),
            lambda m=metric: m.theirs(*channels, include_background=False),
            options.repeats,
        )


if __name__ == "__main__":
    main()
