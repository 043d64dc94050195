"""Hausdorff distance and its percentiles."""

from typing import Literal

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check

from ._accumulator import Options
from ._scores import Scores
from ._surface import Surface, SurfaceDistances
from ._surface_case import Spacing, SurfaceScore, percentile, score_surfaces

Combine = Literal["max", "pooled"]
COMBINE = ("max", "pooled")


def hausdorff_distance(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    *,
    num_classes: int | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    mask: Shaped[Tensor, "batch ..."] | None = None,
    spacing: Spacing = None,
    percent: float = 100.0,
    surface: Surface = "voxel",
    combine: Combine = "max",
) -> Scores:
    r"""Return how far apart the surfaces of two segmentations are at worst, in mm.

    .. math:: H = \max\Bigl(\max_{a \in \partial P} d(a, \partial T),\
                            \max_{b \in \partial T} d(b, \partial P)\Bigr)

    With ``percent=95`` a percentile takes the place of both inner maxima, which one stray voxel
    does not decide. Libraries mean different things by it, so say which: "voxel" with "max" is
    MONAI's, "voxel" with "pooled" medpy's, "surfel" with "max" DeepMind's.

    A structure missed or invented has the diagonal of the image, farther than any distance in it,
    so that missing one never improves a mean; where both are empty the value is NaN.

    Args:
        prediction: Class map ``(batch, *spatial)`` or ``(batch, 1, *spatial)`` of integers, or
            boolean masks ``(batch, channel, *spatial)``; two or three spatial axes.
        target: Truth in the form of ``prediction``.
        num_classes: Number of classes of the maps; None for masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that belong to no structure, whatever is predicted
            there; for class maps only. None counts all.
        mask: Voxels that count, boolean; others belong to no structure. None counts all.
        spacing: Edges of a voxel in mm, one per axis or one for all. None is 1.
        percent: Percentile of the distances, above 1 and at most 100.
        surface: Measure from every edge "voxel", each counting the same, or from every "surfel"
            of the surface that marching cubes draws, each counting its area.
        combine: What becomes of both directions: the "max" of the percentiles of each, or the
            percentile of all distances "pooled".

    Returns:
        Values in mm and statuses per case and class.

    Raises:
        TypeError: If a segmentation is neither of integers nor of booleans.
        ValueError: If shapes differ, a label is no class or an option is out of range.

    Example:
        >>> import torch
        >>> truth, prediction = torch.zeros(2, 1, 1, 8, 8, dtype=torch.bool)
        >>> truth[..., 2:5, 2:5], prediction[..., 2:5, 2:8] = True, True
        >>> hausdorff_distance(prediction, truth, spacing=(1.0, 0.5)).values.item()
        1.5

    References:
        D. P. Huttenlocher, G. A. Klanderman, W. J. Rucklidge, "Comparing Images Using the Hausdorff
        Distance", IEEE TPAMI 15, 1993, equations 1 and 2. S. Nikolov et al., "Clinically
        Applicable Segmentation of Head and Neck Anatomy for Radiotherapy", Journal of Medical
        Internet Research 23, 2021 (surfels).
    """
    check.one_of("combine", combine, COMBINE)
    _check_percent(percent)

    def formula(distances: SurfaceDistances, _: int) -> float:
        there, back, there_sizes, back_sizes = distances
        if combine == "max":
            return max(
                percentile(there, there_sizes, percent, surface),
                percentile(back, back_sizes, percent, surface),
            )
        both = np.concatenate([there, back]), np.concatenate([there_sizes, back_sizes])
        return percentile(*both, percent, surface)

    scores = score_surfaces(
        prediction,
        target,
        formula,
        num_classes=num_classes,
        include_background=include_background,
        ignore_index=ignore_index,
        mask=mask,
        spacing=spacing,
        surface=surface,
        worst=None,
    )
    return Scores(scores.values, scores.status, scores.classes, 0.0)


class HausdorffDistance(SurfaceScore):
    """Hausdorff distance over any number of batches.

    It keeps one value and one status per case and class, so that results are the same bit for bit
    however cases are batched or split over processes.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that belong to no structure.
        spacing: Edges of a voxel in mm, where ``update`` names none.
        percent: Percentile of the distances, above 1 and at most 100.
        surface: What the surface is made of: "voxel" or "surfel".
        combine: "max" of both directions, or all distances "pooled".

    Example:
        >>> import torch
        >>> metric = HausdorffDistance(2, include_background=False, percent=95, spacing=0.5)
        >>> truth = torch.zeros(1, 8, 8, dtype=torch.int64)
        >>> truth[:, 2:5, 2:5] = 1
        >>> metric.update(truth.roll(1, dims=1), truth)
        >>> metric.compute().mean()
        0.5

    References:
        D. P. Huttenlocher, G. A. Klanderman, W. J. Rucklidge, "Comparing Images Using the Hausdorff
        Distance", IEEE TPAMI 15, 1993; see ``hausdorff_distance``.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        include_background: bool = True,
        ignore_index: int | None = None,
        spacing: Spacing = None,
        percent: float = 100.0,
        surface: Surface = "voxel",
        combine: Combine = "max",
    ) -> None:
        super().__init__(
            num_classes,
            include_background=include_background,
            ignore_index=ignore_index,
            spacing=spacing,
            surface=surface,
        )
        check.one_of("combine", combine, COMBINE)
        self.percent: float = _check_percent(percent)
        self.combine: Combine = combine

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
        return hausdorff_distance(
            prediction,
            target,
            num_classes=self.num_classes,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            mask=mask,
            spacing=spacing,
            percent=self.percent,
            surface=self.surface,
            combine=self.combine,
        )

    @property
    def options(self) -> Options:
        """What the accumulator was made with, by name."""
        return {**super().options, "percent": self.percent, "combine": self.combine}


def _check_percent(percent: float) -> float:
    """Return the percentile; raise where it looks like a fraction or is out of range."""
    if not 1 < check.real("percent", percent) <= 100:
        raise check.fail("percent", "in (1, 100]; 95 means the 95th percentile", percent)
    return float(percent)
