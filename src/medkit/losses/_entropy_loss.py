"""What the losses on the cross entropy of each voxel share: weigh voxels and classes, reduce."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from medkit._core import check

from ._voxels import Activation, Reduction, Voxels, class_weights


def is_binary(voxels: Voxels, activation: Activation | None) -> bool:
    """Return whether each channel is a decision of its own."""
    return activation == "sigmoid" or voxels.input.shape[1] == 1


def entropy_weights(
    voxels: Voxels,
    activation: Activation | None,
    class_weight: Sequence[float] | Tensor | None,
    *,
    include_background: bool,
) -> Tensor | None:
    """Return a weight per channel: they average one, or sum to it where each is a decision."""
    if is_binary(voxels, activation):
        weight = class_weights(class_weight, voxels.input, include_background=include_background)
        return weight / weight.sum()
    if class_weight is None and include_background:
        return None
    return class_weights(class_weight, voxels.input, include_background=include_background)


def weighted(
    voxels: Voxels, terms: Tensor, class_weight: Tensor | None, activation: Activation | None
) -> tuple[Tensor, Tensor | None]:
    """Return the terms times what each voxel counts, and what it weighs; None is one everywhere."""
    weights = _class_weight_of(voxels, terms, class_weight, activation)
    if weights is not None:  # label smoothing would give a class of weight zero a part
        terms = torch.where(weights > 0, terms, 0.0)
    if voxels.weight is not None:
        terms = terms * voxels.weight
        if weights is None:
            weights = voxels.weight
        else:  # a target that does not count may be NaN
            weights = torch.where(voxels.weight > 0, weights * voxels.weight, 0.0)
    return terms, weights


def _class_weight_of(
    voxels: Voxels, terms: Tensor, class_weight: Tensor | None, activation: Activation | None
) -> Tensor | None:
    """Return what each voxel weighs in the mean before the mask; None is one everywhere."""
    target = voxels.target
    if is_binary(voxels, activation):
        return None
    if target.ndim < voxels.input.ndim:
        return None if class_weight is None else class_weight[target]
    total = torch.zeros_like(terms)
    for channel in range(target.shape[1]):  # no product of the size of the target
        share = target[:, channel].to(terms.dtype)
        total = total + (share if class_weight is None else share * class_weight[channel])
    return total


def reduce_voxels(terms: Tensor, weights: Tensor | None, reduction: Reduction) -> Tensor:
    """Return the terms, their sum, or their mean by the weights of the voxels."""
    if reduction == "none":
        return terms
    if reduction == "sum":
        return terms.sum()
    if weights is None:
        return terms.sum() / max(1, terms.numel())
    return _mean(terms.sum(), weights.sum(dtype=terms.dtype))


def rows_of_voxels(terms: Tensor, weights: Tensor | None) -> Float[Tensor, "batch 2"]:
    """Return the sum over the voxels of each sample, and what they weigh in the mean."""
    weights = torch.ones_like(terms) if weights is None else weights.to(terms.dtype)
    return torch.stack([each.unsqueeze(-1).flatten(1).sum(1) for each in (terms, weights)], 1)


def reduce_rows(rows: Float[Tensor, "batch 2"], reduction: Reduction) -> Float[Tensor, ""]:
    """Return the sum or mean from the rows of all samples."""
    if reduction == "none":
        raise check.fail("reduction", "'mean' or 'sum' where the batch comes in pieces", "none")
    total, weight = rows.sum(0)
    return total if reduction == "sum" else _mean(total, weight)


def _mean(total: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean, zero where nothing has a weight."""
    return total / torch.where(weight == 0, 1.0, weight)
