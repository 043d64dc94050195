"""A number in mm for each case and class, made from the surfaces of two segmentations."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check

from ._accumulator import Options
from ._mask_score import CaseMasks, ValueScore, score_masks, spatial_size
from ._scores import Scores
from ._surface import SURFACES, Surface, SurfaceDistances, surface_distances

Spacing = float | Sequence[float] | None


def score_surfaces(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    formula: Callable[[SurfaceDistances, int], float],
    *,
    num_classes: int | None,
    include_background: bool,
    ignore_index: int | None,
    mask: Shaped[Tensor, "batch ..."] | None,
    spacing: Spacing,
    surface: Surface,
    worst: float | None,
    limit: float = math.inf,
) -> Scores:
    """Return a formula of the surface distances of each case and class.

    Args:
        prediction: Class map or boolean masks.
        target: Truth in the form of ``prediction``.
        formula: Makes a number of the distances of a class.
        num_classes: Number of classes of class maps.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that do not count.
        mask: Voxels that count.
        spacing: Edges of a voxel in mm.
        surface: What the surface is made of.
        worst: Value of a structure missed or invented; None is the diagonal of the image.
        limit: Distance in mm beyond which the formula does not tell distances apart.
    """
    check.one_of("surface", surface, SURFACES)

    def of_masks(case: CaseMasks) -> float:
        distances = surface_distances(case.prediction, case.target, edges, surface, limit=limit)
        return formula(distances, case.column)

    size = spatial_size(prediction, target)
    given = check.per_axis("spacing", 1 if spacing is None else spacing, len(size))
    edges = [check.positive("spacing", edge) for edge in given]
    if worst is None:
        worst = math.hypot(*(n * s for n, s in zip(size, edges, strict=True)))
    return score_masks(
        prediction,
        target,
        of_masks,
        num_classes=num_classes,
        include_background=include_background,
        ignore_index=ignore_index,
        mask=mask,
        worst=worst,
    )


class SurfaceScore(ValueScore):
    """A value and a status for every case and class seen so far.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that do not count.
        spacing: Edges of a voxel in mm, of all cases for which ``update`` names none.
        surface: What the surface is made of.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        include_background: bool = True,
        ignore_index: int | None = None,
        spacing: Spacing = None,
        surface: Surface = "voxel",
    ) -> None:
        super().__init__(
            num_classes, include_background=include_background, ignore_index=ignore_index
        )
        check.one_of("surface", surface, SURFACES)
        self.spacing = spacing
        self.surface: Surface = surface

    @abstractmethod
    def score(
        self,
        prediction: Shaped[Tensor, "batch ..."],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None,
        spacing: Spacing,
    ) -> Scores:
        """Return the scores of a batch of cases, which are not kept.

        Args:
            prediction: Class map or boolean masks.
            target: Truth in the form of ``prediction``.
            mask: Voxels that count; None counts all.
            spacing: Edges of a voxel in mm.
        """

    def update(
        self,
        prediction: Shaped[Tensor, "batch ..."],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
        spacing: Spacing = None,
    ) -> None:
        """Score a batch of cases and keep the values.

        Args:
            prediction: Class map ``(batch, *spatial)`` or ``(batch, 1, *spatial)`` of integers,
                or boolean masks ``(batch, channel, *spatial)``.
            target: Truth in the form of ``prediction``.
            mask: Voxels that count, boolean; None counts all.
            spacing: Edges of a voxel of these cases in mm; None takes that of the accumulator.
        """
        edges = self.spacing if spacing is None else spacing
        self._keep(self.score(prediction, target, mask=mask, spacing=edges))

    @property
    def options(self) -> Options:
        """What the accumulator was made with, by name."""
        return {**super().options, "spacing": self.spacing, "surface": self.surface}


def percentile(values: np.ndarray, sizes: np.ndarray, percent: float, surface: Surface) -> float:
    """Return a percentile of distances, of voxels by linear interpolation, of surfels by area."""
    if surface == "voxel":
        return float(np.percentile(values, percent))
    order = np.argsort(values, kind="stable")
    share = np.cumsum(sizes[order]) / np.sum(sizes)
    place = int(np.searchsorted(share, percent / 100))
    return float(values[order][min(place, len(values) - 1)])
