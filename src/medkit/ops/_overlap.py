"""The one count behind overlap losses and metrics."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check

Activation = Literal["softmax", "sigmoid"]


class Overlap(NamedTuple):
    """Soft voxel counts per sample and channel.

    Attributes:
        intersection: Sum of weight times probability times target.
        predicted: Sum of weight times probability.
        target: Sum of weight times target.
        voxels: Sum of weights, the same for every channel, shape ``(batch, 1)``.
    """

    intersection: Float[Tensor, "batch channel"]
    predicted: Float[Tensor, "batch channel"]
    target: Float[Tensor, "batch channel"]
    voxels: Float[Tensor, "batch 1"]


def overlap(
    input: Float[Tensor, "batch channel *spatial"],
    target: Shaped[Tensor, "batch ..."],
    *,
    activation: Activation | None = "softmax",
    weight: Shaped[Tensor, "batch *spatial"] | None = None,
) -> Overlap:
    """Return how much prediction and target overlap, per sample and channel."""
    check.one_of("activation", activation, ("softmax", "sigmoid", None))
    accumulate = torch.float64 if input.dtype == torch.float64 else torch.float32
    batch, channels = input.shape[:2]
    p = probabilities(input, activation=activation).reshape(batch, channels, -1)
    w = None if weight is None else weight.to(accumulate).reshape(batch, -1)
    if w is not None:
        p = p * w.unsqueeze(1)
    if target.ndim == input.ndim:
        t = target.to(accumulate).reshape(batch, channels, -1)
        intersection = (p * t).sum(-1)
        total = (t if w is None else t * w.unsqueeze(1)).sum(-1)
    else:
        index = target.long().reshape(batch, -1)
        at_target = p.gather(1, index.unsqueeze(1)).squeeze(1)
        intersection = _class_sums(at_target, index, channels)
        total = _class_sums(torch.ones_like(at_target) if w is None else w, index, channels)
    if w is None:
        voxels = p.new_full((batch, 1), float(p.shape[-1]))
    else:
        voxels = w.sum(-1, keepdim=True)
    return Overlap(intersection, p.sum(-1), total, voxels)


def probabilities(
    input: Float[Tensor, "batch channel *spatial"], *, activation: Activation | None
) -> Float[Tensor, "batch channel *spatial"]:
    """Return the activated input in float32, or in float64 if it is that."""
    accumulate = torch.float64 if input.dtype == torch.float64 else torch.float32
    if activation == "softmax":
        return torch.softmax(input, dim=1, dtype=accumulate)
    if activation == "sigmoid":
        return torch.sigmoid(input.to(accumulate))
    return input.to(accumulate)


def _class_sums(values: Tensor, index: Tensor, channels: int) -> Tensor:
    return torch.stack(
        [torch.where(index == channel, values, 0).sum(-1) for channel in range(channels)], dim=-1
    )
