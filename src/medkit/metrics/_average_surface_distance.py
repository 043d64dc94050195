"""Average distance of two surfaces."""

from typing import Literal

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check

from ._accumulator import Options
from ._scores import Scores
from ._surface import Surface, SurfaceDistances
from ._surface_case import Spacing, SurfaceScore, score_surfaces

Direction = Literal["pooled", "mean", "to_target", "to_prediction"]
DIRECTIONS = ("pooled", "mean", "to_target", "to_prediction")


def average_surface_distance(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    *,
    num_classes: int | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    mask: Shaped[Tensor, "batch ..."] | None = None,
    spacing: Spacing = None,
    surface: Surface = "voxel",
    direction: Direction = "pooled",
) -> Scores:
    r"""Return how far apart the surfaces of two segmentations are on average, in mm.

    .. math:: A = \frac{\sum_{a \in \partial P} w_a\, d(a, \partial T)
                       + \sum_{b \in \partial T} w_b\, d(b, \partial P)}
                      {\sum_a w_a + \sum_b w_b}

    with weights of one ("voxel") or the area of an element ("surfel"). MONAI's symmetric distance
    is "voxel" and "pooled", medpy's "voxel" and "mean", DeepMind's two numbers are "surfel" with
    "to_target" and "to_prediction".

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
        surface: Measure from every edge "voxel", each counting the same, or from every "surfel"
            of the surface that marching cubes draws, each counting its area.
        direction: All distances "pooled", the "mean" of the averages of both directions, or one of
            them: from the predicted surface "to_target", from the true one "to_prediction".

    Returns:
        Values in mm and statuses per case and class.

    Raises:
        TypeError: If a segmentation is neither of integers nor of booleans.
        ValueError: If shapes differ, a label is no class or an option is unknown.

    Example:
        >>> import torch
        >>> truth, prediction = torch.zeros(2, 1, 1, 8, 8, dtype=torch.bool)
        >>> truth[..., 2:4, 2:4], prediction[..., 2:4, 2:5] = True, True
        >>> average_surface_distance(prediction, truth, spacing=0.5).values.item()
        0.1

    References:
        T. Heimann et al., "Comparison and Evaluation of Methods for Liver Segmentation From CT
        Datasets", IEEE TMI 28, 2009, equation 4 ("pooled").
    """
    check.one_of("direction", direction, DIRECTIONS)

    def formula(distances: SurfaceDistances, _: int) -> float:
        there, back, there_sizes, back_sizes = distances
        ways = (
            float(np.average(there, weights=there_sizes)),
            float(np.average(back, weights=back_sizes)),
        )
        if direction == "pooled":
            shares = there_sizes.sum(), back_sizes.sum()
            return float(np.average(ways, weights=shares))
        return {"mean": sum(ways) / 2, "to_target": ways[0], "to_prediction": ways[1]}[direction]

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


class AverageSurfaceDistance(SurfaceScore):
    """Average surface distance over any number of batches.

    It keeps one value and one status per case and class, so that results are the same bit for bit
    however cases are batched or split over processes.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that belong to no structure.
        spacing: Edges of a voxel in mm, where ``update`` names none.
        surface: What the surface is made of: "voxel" or "surfel".
        direction: "pooled", "mean", "to_target" or "to_prediction".

    Example:
        >>> import torch
        >>> metric = AverageSurfaceDistance(2, include_background=False)
        >>> truth = torch.zeros(1, 8, 8, dtype=torch.int64)
        >>> truth[:, 2:4, 2:4] = 1
        >>> metric.update(truth, truth)
        >>> metric.compute().mean()
        0.0

    References:
        T. Heimann et al., "Comparison and Evaluation of Methods for Liver Segmentation From CT
        Datasets", IEEE TMI 28, 2009; see ``average_surface_distance``.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        include_background: bool = True,
        ignore_index: int | None = None,
        spacing: Spacing = None,
        surface: Surface = "voxel",
        direction: Direction = "pooled",
    ) -> None:
        super().__init__(
            num_classes,
            include_background=include_background,
            ignore_index=ignore_index,
            spacing=spacing,
            surface=surface,
        )
        check.one_of("direction", direction, DIRECTIONS)
        self.direction: Direction = direction

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
        return average_surface_distance(
            prediction,
            target,
            num_classes=self.num_classes,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            mask=mask,
            spacing=spacing,
            surface=self.surface,
            direction=self.direction,
        )

    @property
    def options(self) -> Options:
        """What the accumulator was made with, by name."""
        return {**super().options, "direction": self.direction}
