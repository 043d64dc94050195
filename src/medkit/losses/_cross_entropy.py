"""Cross entropy."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medkit._core import check
from medkit.losses._voxels import (
    Activation,
    Reduction,
    accumulation_dtype,
    as_voxels,
    class_weights,
)


def cross_entropy_loss(
    input: Float[Tensor, "batch channel *spatial"],
    target: Shaped[Tensor, "batch ..."],
    *,
    mask: Shaped[Tensor, "batch ..."] | None = None,
    activation: Activation | None = "softmax",
    include_background: bool = True,
    ignore_index: int | None = None,
    class_weight: Sequence[float] | Tensor | None = None,
    label_smoothing: float = 0.0,
    top_k: float | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    """Return the negative log likelihood of the target."""
    check.one_of("reduction", reduction, ("mean", "sum", "none"))
    label_smoothing = check.fraction("label_smoothing", label_smoothing)
    voxels = as_voxels(input, target, mask, activation=activation, ignore_index=ignore_index)
    weight = class_weights(class_weight, input, include_background=include_background)
    if activation == "sigmoid" or input.shape[1] == 1:
        terms, weights = _bernoulli(
            voxels.input, voxels.target, activation, weight, label_smoothing
        )
    else:
        terms, weights = _categorical(
            voxels.input, voxels.target, activation, weight, label_smoothing
        )
    if voxels.weight is not None:
        terms, weights = terms * voxels.weight, weights * voxels.weight
    if top_k is not None:
        chosen = _hardest(terms, weights, top_k)
        terms, weights = terms * chosen, weights * chosen
    if reduction == "none":
        return terms
    if reduction == "sum":
        return terms.sum()
    total = weights.sum()
    return terms.sum() / torch.where(total > 0, total, 1.0)


def _categorical(
    input: Tensor, target: Tensor, activation: Activation | None, weight: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return per voxel the weighted negative log likelihood and its weight."""
    dtype = accumulation_dtype(input)
    if activation is None:
        log_p = input.to(dtype).clamp(min=torch.finfo(dtype).tiny).log()
    else:
        log_p = F.log_softmax(input, dim=1, dtype=dtype)
    weight = weight.reshape(-1, *[1] * (input.ndim - 2))
    if target.ndim == input.ndim:
        values = target.to(dtype)
        weights = (values * weight).sum(1)
        terms = -(values * weight * log_p).sum(1)
    else:
        weights = weight.flatten()[target]
        terms = -weights * log_p.gather(1, target.unsqueeze(1)).squeeze(1)
    if smoothing:
        spread = -(weight * log_p).mean(1)
        terms = (1 - smoothing) * terms + smoothing * spread
    return terms, weights


def _bernoulli(
    input: Tensor, target: Tensor, activation: Activation | None, weight: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return per voxel the weighted mean of the binary cross entropy over channels, and one."""
    dtype = accumulation_dtype(input)
    if target.ndim != input.ndim:
        target = F.one_hot(target, input.shape[1]).movedim(-1, 1)
    values = target.to(dtype) * (1 - smoothing) + smoothing / 2
    if activation is None:
        each = F.binary_cross_entropy(input.to(dtype), values, reduction="none")
    else:
        each = F.binary_cross_entropy_with_logits(input.to(dtype), values, reduction="none")
    weight = weight / weight.sum()
    terms = (each * weight.reshape(-1, *[1] * (input.ndim - 2))).sum(1)
    return terms, torch.ones_like(terms)


def _hardest(terms: Tensor, weights: Tensor, top_k: float) -> Tensor:
    """Return one for the ``top_k`` share of counted voxels of highest loss, ties shared."""
    counted = weights.flatten() > 0
    number = (counted.sum() * round(top_k * 1_000_000) // 1_000_000).clamp(min=1)
    loss = torch.where(counted, terms.detach().flatten(), -torch.inf)
    threshold = loss.sort(descending=True).values[number - 1]
    above, tied = loss > threshold, loss == threshold
    share = (number - above.sum()) / tied.sum()
    return torch.where(above, 1.0, torch.where(tied, share, 0.0)).reshape(terms.shape)


class CrossEntropyLoss(nn.Module):
    """The negative log likelihood of the target, with its options stored."""

    class_weight: Tensor | None

    def __init__(
        self,
        *,
        activation: Activation | None = "softmax",
        include_background: bool = True,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
        label_smoothing: float = 0.0,
        top_k: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.activation: Activation | None = activation
        self.include_background = include_background
        self.ignore_index = ignore_index
        weight = None if class_weight is None else torch.as_tensor(class_weight)
        self.register_buffer("class_weight", weight, persistent=False)
        self.label_smoothing = label_smoothing
        self.top_k = top_k
        self.reduction: Reduction = reduction

    def forward(
        self,
        input: Float[Tensor, "batch channel *spatial"],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """Return the loss of logits against a target."""
        return cross_entropy_loss(
            input,
            target,
            mask=mask,
            activation=self.activation,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            top_k=self.top_k,
            reduction=self.reduction,
        )
