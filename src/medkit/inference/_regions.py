"""The structures of a segmentation one by one."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import connected_components


class Region(NamedTuple):
    """One connected part of a segmentation.

    Attributes:
        channel: Channel it is in.
        label: Its class, 1 for a mask.
        voxels: Number of voxels.
        volume: Volume in mm^3, in 2D area in mm^2; of voxels where the spacing is 1.
        centroid: Mean index of its voxels along each axis.
        start: First voxel of the box around it.
        stop: One beyond the last voxel of the box.
        mean_score: Mean score of its voxels; None where no scores were given.
        max_score: Highest score of its voxels; None where no scores were given.
    """

    channel: int
    label: int
    voxels: int
    volume: float
    centroid: tuple[float, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]
    mean_score: float | None
    max_score: float | None


def list_regions(
    labels: Shaped[Tensor, "batch channel *spatial"],
    *,
    connectivity: Literal[4, 6, 8, 18, 26],
    spacing: float | Sequence[float] = 1.0,
    scores: Float[Tensor, "..."] | None = None,
) -> list[list[Region]]:
    """List the connected parts of each sample, the largest of each channel and class first.

    Use it for what is counted, reported or shown one by one: lesions, nodules, layers in pieces.

    Args:
        labels: Masks, or class maps with background 0; boolean or integers, two or three spatial
            axes.
        connectivity: How many neighbours of a voxel touch it, as in ``ops.connected_components``.
        spacing: Distance between voxels along each axis in mm, or one for all.
        scores: Probability, uncertainty or another number of every voxel, of the shape of
            ``labels``, to average over the parts; summed in float64.

    Returns:
        A list of regions for each sample.

    Raises:
        TypeError: If ``labels`` are neither boolean nor integers.
        ValueError: If shapes differ, or an option is out of range.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[[1, 0, 0, 1], [0, 0, 1, 1]]]])
        >>> first, second = list_regions(mask, connectivity=4, spacing=(2, 0.5))[0]
        >>> first.voxels, first.volume, first.start, first.stop
        (3, 3.0, (0, 2), (2, 4))
    """
    dims = labels.ndim - 2
    steps = check.per_axis("spacing", spacing, dims)
    size = math.prod(check.positive("spacing", step) for step in steps)
    if scores is not None and scores.shape != labels.shape:
        raise check.fail("scores", f"of shape {tuple(labels.shape)}", tuple(scores.shape))
    lists: list[list[Region]] = [[] for _ in range(len(labels))]
    for label in _classes(labels):
        parts = connected_components(labels == label, connectivity=connectivity).cpu().numpy()
        for sample, channel in np.ndindex(*parts.shape[:2]):
            values = None if scores is None else scores[sample, channel].detach().double()
            array = None if values is None else values.cpu().numpy()
            found = _regions(parts[sample, channel], (channel, label), size, array)
            lists[sample] += found
    for regions in lists:
        regions.sort(key=lambda region: (region.channel, region.label, -region.voxels))
    return lists


def _classes(labels: Tensor) -> list[int]:
    """Return the values that are not zero, in order."""
    return [int(value) for value in np.unique(labels.cpu().numpy()).tolist() if value]


def _regions(
    parts: np.ndarray, name: tuple[int, int], size: float, scores: np.ndarray | None
) -> list[Region]:
    """Return the regions of one numbered image, in the order of their numbers."""
    places = np.nonzero(parts)
    numbers = parts[places]
    order = np.argsort(numbers, kind="stable")
    indices = np.stack(places, axis=1)[order]
    ends = np.cumsum(np.bincount(numbers)[1:]) if len(numbers) else np.zeros(0, np.int64)
    regions: list[Region] = []
    for own in np.split(indices, ends[:-1]) if len(ends) else ():
        values = None if scores is None else scores[tuple(own.T)]
        regions.append(
            Region(
                *name,
                voxels=len(own),
                volume=len(own) * size,
                centroid=tuple(own.mean(0).tolist()),
                start=tuple(own.min(0).tolist()),
                stop=tuple((own.max(0) + 1).tolist()),
                mean_score=None if values is None else float(values.mean()),
                max_score=None if values is None else float(values.max()),
            )
        )
    return regions
