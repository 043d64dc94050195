"""A synthetic eye as optical coherence tomography shows it, with the true boundaries."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from medkit._core import check
from medkit._core.keyed_random import sample_rng

Numbers = npt.NDArray[np.float64]

_PHANTOM = 7  # stream of the random numbers
_ROWS = 496  # height at which lengths below are given
_DEPTHS = (0.0, 0.12, 0.38, 0.5, 0.57, 0.86, 0.94)  # of the retina's layers, in its thickness
_BRIGHTNESS = (0.75, 0.48, 0.33, 0.5, 0.22, 0.7, 0.4)
_VITREOUS, _PIGMENT, _DEPOSIT, _CHOROID = 0.06, 0.9, 0.3, 0.55


class OctPhantom(NamedTuple):
    """B-scans of a synthetic eye and where its layers truly lie.

    Attributes:
        images: Intensities.
        boundaries: Rows of ILM and BM; NaN in columns that play the part of not annotated ones.
    """

    images: UInt8[Tensor, "scan height width"]
    boundaries: Float[Tensor, "scan 2 width"]


def oct_phantom(
    *,
    size: Sequence[int] = (496, 768),
    num_scans: int = 8,
    unannotated: float = 0.05,
    seed: int = 0,
) -> OctPhantom:
    """Return a synthetic eye: neighbouring B-scans of a macula with the truth between pixels.

    For tests, examples and a first run before real data are at hand. It has what makes the task
    hard: speckle, shadows of vessels, a detached vitreous membrane above the retina in some scans,
    fading signal, movement between scans, and in every eye a detachment that lifts the bright
    pigment epithelium off Bruch's membrane, which is faint below it. Rows cover pixels in part, so
    that boundaries lie between them. It is no model of physics: a network trained on it has learnt
    nothing about patients.

    Args:
        size: Height and width of the B-scans; features scale with the height.
        num_scans: B-scans, from one side of the fovea to the other.
        unannotated: Share of the columns without a truth, in runs.
        seed: Which eye.

    Returns:
        Images and boundaries.

    Raises:
        ValueError: If ``size`` is not at least (62, 32), ``num_scans`` is not positive or
            ``unannotated`` is outside of [0, 1).

    Example:
        >>> eye = oct_phantom(size=(124, 192), num_scans=3, seed=1)
        >>> eye.images.shape, eye.boundaries.shape
        (torch.Size([3, 124, 192]), torch.Size([3, 2, 192]))
    """
    sides = zip(check.per_axis("size", size, 2), (62, 32), strict=True)
    height, width = (check.integer("size", n, minimum=least) for n, least in sides)
    count = check.integer("num_scans", num_scans, minimum=1)
    missing = check.fraction("unannotated", unannotated, below_one=True)
    eye = sample_rng(check.integer("seed", seed, minimum=0), 0, 0, stream=_PHANTOM)
    shape = _Shape(eye, width)
    images = np.empty((count, height, width), np.uint8)
    lines = np.empty((count, 2, width), np.float32)
    for scan, place in enumerate(np.linspace(-1, 1, count) if count > 1 else np.zeros(1)):
        random = sample_rng(seed, 0, scan + 1, stream=_PHANTOM)
        ilm, pigment, bm = shape.lines(float(place), random)
        rows = np.stack([ilm, pigment, bm]) * (height / _ROWS)
        images[scan] = _scan(rows, height / _ROWS, height, shape.shadows, random)
        lines[scan] = rows[[0, 2]]
        lines[scan][:, _gaps(width, missing, random)] = np.nan
    return OctPhantom(torch.as_tensor(images), torch.as_tensor(lines))


class _Shape:
    """What is the same in all scans of one eye; rows are those of a B-scan 496 high."""

    def __init__(self, random: np.random.Generator, width: int) -> None:
        self.x = (np.arange(width) + 0.5) / width
        self.depth, self.tilt, self.bend = random.uniform((290, -70, -60), (340, 70, 30))
        self.thickness, self.pit = random.uniform((75, 0.4), (105, 0.65))
        self.fovea = random.uniform(0.4, 0.6)
        self.lift = random.uniform(12, 45)
        self.lift_at, self.lift_wide = random.uniform((0.2, 0.06), (0.8, 0.14))
        self.lift_scan = random.uniform(-0.7, 0.7)
        self.shadows = np.ones(width)
        for place in random.uniform(0, 1, 6):
            dark, wide = random.uniform((0.3, 0.004), (0.8, 0.012))
            self.shadows *= 1 - dark * np.exp(-(((self.x - place) / wide) ** 2))

    def lines(self, scan: float, random: np.random.Generator) -> tuple[Numbers, ...]:
        """Return rows of ILM, pigment epithelium and BM in a scan, at -1 to 1 across the fovea."""
        x = self.x
        bm = self.depth + self.tilt * (x - 0.5) + 4 * self.bend * (x - 0.5) ** 2
        bm = bm + random.normal(0, 6) + 1.5 * np.sin(2 * np.pi * (3 * x + random.random()))
        away = (x - self.fovea) ** 2 + (0.35 * scan) ** 2
        thickness = self.thickness * (
            1 - self.pit * np.exp(-away / 0.006) + 0.18 * np.exp(-away / 0.05)
        )
        rise = self.lift * np.exp(-(((scan - self.lift_scan) / 0.6) ** 2))
        rise = rise * np.exp(-(((x - self.lift_at) / self.lift_wide) ** 2))
        pigment = bm - 9 - rise
        return pigment - thickness, pigment, bm


def _scan(
    lines: Numbers, unit: float, height: int, shadows: Numbers, random: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return one B-scan."""
    ilm, pigment, bm = lines
    edges = [ilm + depth * (pigment - ilm) for depth in _DEPTHS]
    edges += [pigment, np.minimum(pigment + 8 * unit, bm - 0.5 * unit), bm - 1.5 * unit, bm]
    values = [_VITREOUS, *_BRIGHTNESS, _PIGMENT, _DEPOSIT, 0.6, _CHOROID]
    rows = np.arange(float(height))[:, None]
    image = np.full((height, len(ilm)), values[0])
    for edge, above, below in zip(edges, values[:-1], values[1:], strict=True):
        image += (below - above) * _covered(rows, edge)
    deep = np.maximum(rows - bm, 0) / unit
    vessels = _smooth(random.standard_normal(image.shape), (8 * unit, 14 * unit))
    vessels = 1 + 0.35 * vessels / vessels.std()
    image = np.where(rows > bm, image * np.exp(-deep / 70) * vessels.clip(0.2), image)
    if random.random() < 0.5:
        line = ilm - unit * (random.uniform(8, 30) + 10 * np.sin(3 * np.linspace(0, 2, len(ilm))))
        image += 0.35 * (_covered(rows, line) - _covered(rows, line + 2 * unit))
    image = np.where(rows > ilm + 4 * unit, image * shadows, image)
    fade = 1 - random.uniform(0, 0.5) * np.linspace(-1, 1, len(ilm)) ** 2
    speckle = _smooth(random.gamma(1.2, 1 / 1.2, image.shape), (0.4, 0.6))
    image = image * fade * random.uniform(0.7, 1) * speckle
    image += np.abs(random.normal(0, 0.05, image.shape))
    return (255 * image.clip(0, 1) ** 0.7).round().astype(np.uint8)


def _smooth(image: Numbers, sigma: tuple[float, float]) -> Numbers:
    module = import_module("scipy.ndimage")
    return cast("Callable[..., Numbers]", module.gaussian_filter)(image, sigma)


def _covered(rows: Numbers, edge: Numbers) -> Numbers:
    """Return the share of each pixel that lies below a line."""
    return (rows + 1 - edge).clip(0, 1)


def _gaps(width: int, share: float, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return which columns nobody annotated: a few runs."""
    gap = np.zeros(width, dtype=bool)
    length = max(1, width // 24)
    while gap.mean() < share * random.uniform(0.5, 1.5):
        start = int(random.integers(-length // 2, width))
        gap[max(start, 0) : start + length] = True
    return gap
