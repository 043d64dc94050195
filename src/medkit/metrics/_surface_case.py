"""A number in mm for each case and class, made from the surfaces of two segmentations."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check
from medkit.metrics._accumulator import Accumulator, Options
from medkit.metrics._boxes import class_boxes, joint_box, mask_box
from medkit.metrics._overlap_score import as_scores, stack_counts
from medkit.metrics._scores import Scores
from medkit.metrics._surface import SURFACES, Surface, SurfaceDistances, surface_distances
from medkit.ops import hard_overlap

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
    overlap = hard_overlap(
        prediction, target, num_classes=num_classes, ignore_index=ignore_index, mask=mask
    )
    counts = stack_counts(overlap)
    size = _spatial(prediction, target)
    if len(size) not in (2, 3):
        raise check.fail("target", "with two or three spatial axes", f"shape {tuple(target.shape)}")
    given = check.per_axis("spacing", 1 if spacing is None else spacing, len(size))
    edges = [check.positive("spacing", edge) for edge in given]
    if worst is None:
        worst = math.hypot(*(n * s for n, s in zip(size, edges, strict=True)))
    values = torch.full(counts.shape[:2], worst, dtype=torch.float64)
    counted = _counted(target, size, ignore_index, mask)
    for row in range(len(values)):
        kept = None if counted is None else counted[row]
        p, t = prediction[row].cpu().numpy(), target[row].cpu().numpy()
        if target.dtype == torch.bool:
            pairs = _masks(p, t, kept)
        else:
            pairs = _classes(p.reshape(size), t.reshape(size), kept, counts.shape[1])
        for column, predicted, true in pairs:
            if column or include_background:
                distances = surface_distances(predicted, true, edges, surface, limit=limit)
                values[row, column] = formula(distances, column)
    return as_scores(counts.cpu(), values, include_background=include_background)


def _spatial(prediction: Tensor, target: Tensor) -> tuple[int, ...]:
    """Return the spatial size of class maps, with or without a channel axis, or of masks."""
    if target.dtype == torch.bool:
        return tuple(target.shape[2:])
    first = min(prediction.ndim, target.ndim)
    shorter = prediction if prediction.ndim == first else target
    if prediction.ndim == target.ndim and target.ndim > 3 and target.shape[1] == 1:
        return tuple(target.shape[2:])
    return tuple(shorter.shape[1:])


def _masks(
    prediction: np.ndarray, target: np.ndarray, kept: np.ndarray | None
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each channel with its two masks, where both have voxels, cropped to them."""
    for column, (p, t) in enumerate(zip(prediction, target, strict=True)):
        both = [each if kept is None else each & kept for each in (p, t)]
        boxes = [mask_box(each) for each in both]
        if boxes[0] and boxes[1]:
            box = joint_box(boxes[0], boxes[1])
            yield column, both[0][box], both[1][box]


def _classes(
    prediction: np.ndarray, target: np.ndarray, kept: np.ndarray | None, classes: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each class with its two masks, where both have voxels, cropped to them."""
    both = [each if kept is None else np.where(kept, each, -1) for each in (prediction, target)]
    boxes = [class_boxes(each, classes) for each in both]
    for column in range(classes):
        p, t = (
            mask_box(e == 0) if not column else b[column] for e, b in zip(both, boxes, strict=True)
        )
        if p and t:
            box = joint_box(p, t)
            yield column, both[0][box] == column, both[1][box] == column


def _counted(
    target: Tensor, size: tuple[int, ...], ignore_index: int | None, mask: Tensor | None
) -> np.ndarray | None:
    """Return which voxels count, or None for all."""
    if ignore_index is None and mask is None:
        return None
    shape = (len(target), *size)
    counted = np.ones(shape, dtype=bool) if mask is None else mask.cpu().numpy().reshape(shape)
    if ignore_index is not None:
        counted = counted & (target.cpu().numpy().reshape(shape) != ignore_index)
    return counted


class SurfaceScore(Accumulator):
    """A value and a status for every case and class seen so far.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that do not count.
        spacing: Edges of a voxel in mm, of all cases for which ``update`` names none.
        surface: What the surface is made of.
    """

    perfect: float = 0.0

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
        scores = self.score(prediction, target, mask=mask, spacing=edges)
        self._take(torch.stack([scores.values, scores.status.double()], dim=-1))

    def compute(self) -> Scores:
        """Return the scores of all cases seen so far, in the order they came in.

        Raises:
            ValueError: If there was none.
        """
        if not self.num_cases:
            raise check.fail(type(self).__name__, "updated before compute()", "no cases")
        values, status = self.rows.unbind(-1)
        first = 0 if self.include_background else 1
        classes = tuple(range(first, first + values.shape[1]))
        return Scores(values, status.to(torch.uint8), classes, self.perfect)

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
