"""A synthetic head with a tumour in four MR sequences, with the true labels."""

from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import product
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from medkit._core import check
from medkit._core.keyed_random import sample_rng

from ._dataset import Case
from ._volume import Volume

Numbers = npt.NDArray[np.float64]

_PHANTOM = 8  # stream of the random numbers
_SMALLEST = 24
_HEAD = (0.9, 0.95, 0.8)  # half axes, in halves of the volume
_CONTRAST = {  # brightness of white matter, grey matter, necrosis, oedema, enhancing tumour
    "t1": (1.0, 0.8, 0.55, 0.75, 0.8),
    "t1ce": (1.0, 0.8, 0.55, 0.75, 1.4),
    "t2": (0.7, 0.9, 1.4, 1.1, 1.0),
    "flair": (0.8, 0.9, 0.6, 1.3, 1.1),
}
_BRIGHT = 500.0


def tumour_phantom(*, size: int | Sequence[int] = 64, seed: int = 0) -> Case:
    """Return a synthetic head with a tumour, as BraTS has them: four sequences and labels.

    For tests, examples and a first run before real data are at hand. The tumour has a necrotic
    core (label 1) inside an enhancing rim (4) inside oedema (2), of ragged outline and anywhere in
    the brain; no sequence alone tells its parts apart. Two tissues, texture, noise, voxels that
    hold several tissues and a bias field in every sequence make it less than trivial. Outside of
    the head all is 0. It is no model of physics: a network trained on it has learnt nothing about
    patients.

    Args:
        size: Voxels along each axis, at least 24; features scale with it.
        seed: Which head.

    Returns:
        The image, int16 with channels T1, T1 with contrast agent, T2 and FLAIR, and the label.

    Raises:
        ValueError: If a side is below 24 or ``seed`` is negative.

    Example:
        >>> case = tumour_phantom(size=24, seed=1)
        >>> case.image, case.label.data.unique().tolist()
        (Volume(4x24x24x24 int16, 1x1x1 mm, RAS), [0, 1, 2, 4])
    """
    sides = [check.integer("size", n, minimum=_SMALLEST) for n in check.per_axis("size", size, 3)]
    random = sample_rng(check.integer("seed", seed, minimum=0), 0, 0, stream=_PHANTOM)
    lines = [np.linspace(-1, 1, n) for n in sides]
    axes = np.meshgrid(*lines, indexing="ij")
    grid = np.stack(axes, axis=-1)
    head = _length(grid / _HEAD) < 1 + 0.03 * _texture(random, sides, 0.1)
    middle, radius = random.uniform(-0.35, 0.35, 3), random.uniform(0.3, 0.5)
    voxel = [line[np.abs(line - m).argmin()] for line, m in zip(lines, middle, strict=True)]
    ragged = 0.12 * _texture(random, sides, 0.06).clip(-3, 3)  # so that the middle is necrotic
    depth = _length(grid - voxel) / radius + ragged
    label = np.select([depth < 0.4, depth < 0.65, depth < 1], [1, 4, 2]) * head
    parts = [label == 1, label == 2, label == 4, _texture(random, sides, 0.05) > 0]
    tissue = np.select(parts, [2, 3, 4, 1])
    image = np.zeros((len(_CONTRAST), *sides), np.int16)
    for channel, means in enumerate(_CONTRAST.values()):
        bright = _smooth(np.asarray(means)[tissue], [0.7] * 3)
        bright += 0.1 * _texture(random, sides, 0.03) + random.normal(0, 0.15, sides)
        bright *= _BRIGHT * head * _bias(random, axes)
        image[channel] = bright.clip(0, np.iinfo(np.int16).max)
    volume = Volume(torch.as_tensor(image), np.eye(4))
    truth = torch.as_tensor(label[None].astype(np.uint8))
    return Case(volume, volume.like(truth), f"phantom {seed}")


def _length(vectors: Numbers) -> Numbers:
    return np.sqrt(np.square(vectors).sum(axis=-1))


def _texture(random: np.random.Generator, sides: Sequence[int], scale: float) -> Numbers:
    """Return noise of deviation 1 that is smooth over a part of the volume."""
    smooth = _smooth(random.standard_normal(sides), [scale * n for n in sides])
    return smooth / smooth.std()


def _smooth(values: Numbers, sigma: Sequence[float]) -> Numbers:
    """Return a Gaussian blur, periodic; scipy has no types."""
    blur = import_module("scipy.ndimage").gaussian_filter
    return cast("Callable[..., Numbers]", blur)(values, sigma, mode="wrap")


def _bias(random: np.random.Generator, axes: Sequence[Numbers]) -> Numbers:
    """Return a smooth factor: the exponential of a polynomial of the second order."""
    powers = [p for p in product(range(3), repeat=3) if sum(p) <= 2]
    terms = (
        random.normal(0, 0.2) * axes[0] ** d * axes[1] ** h * axes[2] ** w for d, h, w in powers
    )
    return np.exp(sum(terms, np.zeros(axes[0].shape)))
