"""The steps that every loss on overlap counts shares: count, then reduce over classes."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from medkit._core import check
from medkit.losses._voxels import Activation, Reduction, as_voxels, class_weights
from medkit.ops import Overlap, overlap

Absent = Literal["ratio", "penalize", "skip"]


def count(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None,
    *,
    activation: Activation | None,
    ignore_index: int | None,
    batch: bool,
) -> Overlap:
    """Return the counts of each sample, or of the whole batch in one row."""
    voxels = as_voxels(input, target, mask, activation=activation, ignore_index=ignore_index)
    counts = overlap(voxels.input, voxels.target, activation=activation, weight=voxels.weight)
    return Overlap(*(each.sum(0, keepdim=True) for each in counts)) if batch else counts


def ratio_loss(missed: Tensor, whole: Tensor, smooth: float) -> Tensor:
    """Return ``missed / (whole + smooth)``, and zero where both are zero."""
    whole = whole + smooth
    return torch.where(whole > 0, missed / torch.where(whole > 0, whole, 1.0), 0.0)


def reduce_classes(
    loss: Float[Tensor, "batch channel"],
    counts: Overlap,
    *,
    include_background: bool,
    class_weight: Sequence[float] | Tensor | None,
    absent: Absent,
    reduction: Reduction,
) -> Tensor:
    """Treat classes without target voxels as ``absent`` says, weigh the classes and reduce."""
    check.one_of("absent", absent, ("ratio", "penalize", "skip"))
    check.one_of("reduction", reduction, ("mean", "sum", "none"))
    weight = class_weights(class_weight, loss, include_background=include_background)
    weight = weight.expand_as(loss)
    present = counts.target > 0
    if absent == "penalize":
        loss = torch.where(present, loss, counts.predicted / counts.voxels.clamp(min=1e-12))
    elif absent == "skip":
        weight = weight * present
    if not include_background:
        loss, weight = loss[:, 1:], weight[:, 1:]
    weighted = loss * weight
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    total = weight.sum()
    return weighted.sum() / torch.where(total > 0, total, 1.0)
