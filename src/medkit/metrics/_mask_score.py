"""A number for each case and class, made from the two masks of a structure."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check
from medkit._core.segmentations import check_segmentations
from medkit.ops import hard_overlap

from ._accumulator import Accumulator
from ._boxes import class_boxes, joint_box, mask_box
from ._overlap_score import as_scores, stack_counts
from ._scores import Scores


class CaseMasks(NamedTuple):
    """The masks of a structure that truth and prediction have, cropped to a box around both."""

    column: int
    prediction: np.ndarray
    target: np.ndarray


def score_masks(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    formula: Callable[[CaseMasks], float],
    *,
    num_classes: int | None,
    include_background: bool,
    ignore_index: int | None,
    mask: Shaped[Tensor, "batch ..."] | None,
    worst: float,
    perfect: float = 1.0,
) -> Scores:
    """Return a formula of the masks of each case and class.

    Args:
        prediction: Class map or boolean masks.
        target: Truth in the form of ``prediction``.
        formula: Makes a number of two masks, of which neither is empty.
        num_classes: Number of classes of class maps.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that do not count.
        mask: Voxels that count.
        worst: Value of a structure missed or invented.
        perfect: The best value.
    """
    overlap = hard_overlap(
        prediction, target, num_classes=num_classes, ignore_index=ignore_index, mask=mask
    )
    counts = stack_counts(overlap)
    size = spatial_size(prediction, target)
    values = torch.full(counts.shape[:2], worst, dtype=torch.float64)
    counted = _counted(target, size, ignore_index, mask)
    for row in range(len(values)):
        kept = None if counted is None else counted[row]
        p, t = prediction[row].cpu().numpy(), target[row].cpu().numpy()
        if target.dtype == torch.bool:
            pairs = _masks(p, t, kept)
        else:
            pairs = _classes(p.reshape(size), t.reshape(size), kept, counts.shape[1])
        for case in pairs:
            if case.column or include_background:
                values[row, case.column] = formula(case)
    scores = as_scores(counts.cpu(), values, include_background=include_background)
    return replace(scores, perfect=perfect)


def spatial_size(prediction: Tensor, target: Tensor) -> tuple[int, ...]:
    """Return the spatial size of class maps, with or without a channel axis, or of masks."""
    check_segmentations(prediction, target)
    size = _spatial(prediction, target)
    if len(size) not in (2, 3):
        raise check.fail("target", "with two or three spatial axes", f"shape {tuple(target.shape)}")
    return size


def _spatial(prediction: Tensor, target: Tensor) -> tuple[int, ...]:
    if target.dtype == torch.bool:
        return tuple(target.shape[2:])
    first = min(prediction.ndim, target.ndim)
    shorter = prediction if prediction.ndim == first else target
    if prediction.ndim == target.ndim and target.ndim > 3 and target.shape[1] == 1:
        return tuple(target.shape[2:])
    return tuple(shorter.shape[1:])


def _masks(
    prediction: np.ndarray, target: np.ndarray, kept: np.ndarray | None
) -> Iterator[CaseMasks]:
    """Yield each channel with its two masks, where both have voxels, cropped to them."""
    for column, (p, t) in enumerate(zip(prediction, target, strict=True)):
        both = [each if kept is None else each & kept for each in (p, t)]
        boxes = [mask_box(each) for each in both]
        if boxes[0] and boxes[1]:
            box = joint_box(boxes[0], boxes[1])
            yield CaseMasks(column, both[0][box], both[1][box])


def _classes(
    prediction: np.ndarray, target: np.ndarray, kept: np.ndarray | None, classes: int
) -> Iterator[CaseMasks]:
    """Yield each class with its two masks, where both have voxels, cropped to them."""
    both = [each if kept is None else np.where(kept, each, -1) for each in (prediction, target)]
    boxes = [class_boxes(each, classes) for each in both]
    for column in range(classes):
        p, t = (
            mask_box(e == 0) if not column else b[column] for e, b in zip(both, boxes, strict=True)
        )
        if p and t:
            box = joint_box(p, t)
            yield CaseMasks(column, both[0][box] == column, both[1][box] == column)


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


class ValueScore(Accumulator):
    """A value and a status for every case and class seen so far."""

    perfect: float = 0.0

    def _keep(self, scores: Scores) -> None:
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


class MaskScore(ValueScore):
    """A value and a status for every case and class, made from masks alone."""

    @abstractmethod
    def score(
        self,
        prediction: Shaped[Tensor, "batch ..."],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None,
    ) -> Scores:
        """Return the scores of a batch of cases, which are not kept.

        Args:
            prediction: Class map or boolean masks.
            target: Truth in the form of ``prediction``.
            mask: Voxels that count; None counts all.
        """

    def update(
        self,
        prediction: Shaped[Tensor, "batch ..."],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> None:
        """Score a batch of cases and keep the values.

        Args:
            prediction: Class map ``(batch, *spatial)`` or ``(batch, 1, *spatial)`` of integers,
                or boolean masks ``(batch, channel, *spatial)``.
            target: Truth in the form of ``prediction``.
            mask: Voxels that count, boolean; None counts all.
        """
        self._keep(self.score(prediction, target, mask=mask))
