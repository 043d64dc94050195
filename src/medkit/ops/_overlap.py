"""How much a prediction and a target overlap: the counts behind overlap losses and metrics."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check
from medkit._core.segmentations import check_segmentations

from ._one_hot import checked_classes

_PAIRS = ((torch.uint8, 2**8), (torch.int16, 2**15), (torch.int64, 2**62))
"""Types for the number of a pair of classes, and how many numbers each holds."""


class Overlap(NamedTuple):
    """Voxel counts per sample and channel, whole numbers or sums of probabilities.

    Attributes:
        intersection: Voxels that prediction and target share.
        predicted: Voxels of the prediction.
        target: Voxels of the target.
        voxels: Voxels that count at all, the same for every channel: shape ``(batch, 1)``.
    """

    intersection: Shaped[Tensor, "batch channel"]
    predicted: Shaped[Tensor, "batch channel"]
    target: Shaped[Tensor, "batch channel"]
    voxels: Shaped[Tensor, "batch 1"]


def hard_overlap(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    *,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    mask: Shaped[Tensor, "batch ..."] | None = None,
) -> Overlap:
    r"""Return voxel counts of two segmentations, exact to any size.

    .. math:: I_{bc} = |P_{bc} \cap T_{bc}|, \quad P_{bc}, \quad T_{bc}

    Use it as the basis of any score on overlap. Counts are integers, so that counts of parts add
    up to those of the whole.

    Args:
        prediction: Class map ``(batch, *spatial)`` or ``(batch, 1, *spatial)`` of integers, or
            boolean masks ``(batch, channel, *spatial)``, one per channel, which may overlap.
        target: Truth in the form of ``prediction``.
        num_classes: Number of classes of the maps; None for masks.
        ignore_index: Label of target voxels that do not count, whatever is predicted there; for
            class maps only. None counts all.
        mask: Voxels that count, boolean, ``(batch, *spatial)`` or ``(batch, 1, *spatial)``. None
            counts all.

    Returns:
        Counts per sample and class in int64.

    Raises:
        TypeError: If a segmentation is neither of integers nor of booleans.
        ValueError: If shapes differ or a label is no class.

    Example:
        >>> import torch
        >>> truth = torch.tensor([[0, 1, 1, 2, 255]])
        >>> counts = hard_overlap(
        ...     torch.tensor([[0, 1, 2, 2, 0]]), truth, num_classes=3, ignore_index=255
        ... )
        >>> counts.intersection.tolist(), counts.predicted.tolist(), counts.target.tolist()
        ([[1, 1, 1]], [[1, 1, 2]], [[1, 2, 1]])
    """
    check_segmentations(prediction, target)
    if prediction.dtype == torch.bool:
        return _mask_overlap(prediction, target, num_classes, ignore_index, mask)
    if num_classes is None:
        raise check.fail("num_classes", "given for class maps", "None")
    check.integer("num_classes", num_classes, minimum=1)
    return _map_overlap(prediction, target, num_classes, ignore_index, mask)


def _mask_overlap(
    prediction: Tensor,
    target: Tensor,
    num_classes: int | None,
    ignore_index: int | None,
    mask: Tensor | None,
) -> Overlap:
    shape = tuple(prediction.shape)
    if tuple(target.shape) != shape or len(shape) < 2:
        raise check.fail(
            "target", f"(batch, channel, *spatial) like prediction {shape}", tuple(target.shape)
        )
    if num_classes not in (None, shape[1]):
        raise check.fail("num_classes", f"None or {shape[1]}, the number of masks", num_classes)
    if ignore_index is not None:
        raise check.fail("ignore_index", "None for boolean masks (use mask)", ignore_index)
    p, t = (x.unsqueeze(-1).flatten(2) for x in (prediction, target))
    counted = _counted(mask, (shape[0], *shape[2:]), p)
    if mask is not None:
        p, t = p & counted.unsqueeze(1), t & counted.unsqueeze(1)
    voxels = _num_counted(counted, mask)
    return Overlap(_true_counts(p & t), _true_counts(p), _true_counts(t), voxels)


def _map_overlap(
    prediction: Tensor,
    target: Tensor,
    num_classes: int,
    ignore_index: int | None,
    mask: Tensor | None,
) -> Overlap:
    shape = tuple(target.shape)
    if not _fits(tuple(prediction.shape), shape):
        raise check.fail("prediction", f"of the shape of target {shape}", tuple(prediction.shape))
    t, kept = checked_classes(
        _flat(target), num_classes=num_classes, ignore_index=ignore_index, name="target"
    )
    counted = _counted(mask, shape, t)
    if kept is not None:
        counted = counted & kept
    all_count = mask is None and kept is None
    inside = _flat(prediction)
    inside = inside if all_count else torch.where(counted, inside, 0)
    p, _ = checked_classes(inside, num_classes=num_classes, ignore_index=None, name="prediction")
    matrix = _confusion(p, t, None if all_count else counted, num_classes)
    voxels = matrix.sum((1, 2)).unsqueeze(1)
    return Overlap(matrix.diagonal(dim1=1, dim2=2), matrix.sum(1), matrix.sum(2), voxels)


def _counted(mask: Tensor | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return which voxels count, ``(batch, voxel)``."""
    if mask is None:
        everywhere = torch.ones((), dtype=torch.bool, device=like.device)
        return everywhere.expand(like.shape[0], like.shape[-1])
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean; got {mask.dtype}")
    if not _fits(tuple(mask.shape), shape):
        raise check.fail("mask", f"(batch, *spatial) for maps of shape {shape}", tuple(mask.shape))
    return _flat(mask)


def _true_counts(masks: Tensor) -> Tensor:
    """Return how many voxels of each mask are true; NumPy counts booleans without widening them."""
    if masks.device.type != "cpu":
        return masks.sum(-1)
    counts = [np.count_nonzero(mask) for mask in masks.flatten(0, 1).numpy()]
    return torch.tensor(counts, dtype=torch.int64).view(masks.shape[:2])


def _num_counted(counted: Tensor, mask: Tensor | None) -> Tensor:
    """Return how many voxels count, ``(batch, 1)``."""
    if mask is None:
        return torch.full((len(counted), 1), counted.shape[1], device=counted.device)
    return _true_counts(counted.unsqueeze(1))


def _flat(voxels: Tensor) -> Tensor:
    """Return ``(batch, voxel)``, also of no case at all."""
    return voxels.unsqueeze(-1).flatten(1)


def _fits(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return whether two shapes are equal, up to one channel axis of size one."""
    return (
        shape == other
        or shape == (*other[:1], 1, *other[1:])
        or other == (*shape[:1], 1, *shape[1:])
    )


def _confusion(p: Tensor, t: Tensor, counted: Tensor | None, num_classes: int) -> Tensor:
    """Return how many counted voxels of each sample have each target (row) and prediction."""
    pairs = num_classes**2
    narrow = next(kind for kind, most in _PAIRS if pairs < most)
    pair = torch.add(p.to(narrow), t.to(narrow), alpha=num_classes)
    if counted is not None:
        pair = torch.where(counted, pair, pairs)  # one more bin, for what does not count
    counts = torch.zeros(len(pair), pairs, dtype=torch.int64, device=p.device)
    for row, into in zip(pair, counts, strict=True):
        into.copy_(torch.bincount(row, minlength=pairs + 1)[:pairs])
    return counts.view(-1, num_classes, num_classes)
