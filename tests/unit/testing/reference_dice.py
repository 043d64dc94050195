"""A Dice loss in the whole vocabulary, in plain steps; wrong variants override one step."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class Dice(nn.Module):
    """Obeys every law. Slow and plain on purpose: each step is a method."""

    def __init__(
        self,
        *,
        activation: Literal["softmax", "sigmoid"] | None = "softmax",
        include_background: bool = True,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | None = None,
        absent: Literal["ratio", "penalize", "skip"] = "ratio",
        batch: bool = False,
        smooth: float = 1e-5,
        reduction: Literal["mean", "sum", "none"] = "mean",
    ) -> None:
        super().__init__()
        self.activation = activation
        self.include_background = include_background
        self.ignore_index = ignore_index
        self.class_weight = class_weight
        self.absent = absent
        self.batch = batch
        self.smooth = smooth
        self.reduction = reduction
        self.check_options()

    def check_options(self) -> None:
        for name, known in (
            ("activation", ("softmax", "sigmoid", None)),
            ("absent", ("ratio", "penalize", "skip")),
            ("reduction", ("mean", "sum", "none")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}; got {getattr(self, name)!r}")
        if self.class_weight is not None and min(self.class_weight) < 0:
            raise ValueError(f"class_weight must be positive; got {self.class_weight}")

    def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        target, mask = self.with_channel(input, target, mask)
        self.check_shapes(input, target, mask)
        kept = self.kept(target, mask)
        truth = self.channels(input, target, kept)
        wide = self.widened(input)
        probability = self.activated(self.hidden(wide, kept))
        if not self.include_background and input.shape[1] > 1:
            probability, truth = probability[:, 1:], truth[:, 1:]
        loss, weight = self.per_class(probability, truth.to(wide.dtype), kept)
        return self.reduced(self.weighted(loss, weight))

    def with_channel(
        self, input: Tensor, target: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if target.ndim == input.ndim - 1:
            target = target[:, None]
        if mask is not None and mask.ndim == input.ndim - 1:
            mask = mask[:, None]
        return target, mask

    def check_shapes(self, input: Tensor, target: Tensor, mask: Tensor | None) -> None:
        classes = input.shape[1]
        for name, tensor, channels in (("target", target, (1, classes)), ("mask", mask, (1,))):
            if tensor is None:
                continue
            fits = tensor.ndim == input.ndim and tensor.shape[1] in channels
            if not fits or tensor.shape[2:] != input.shape[2:] or len(tensor) != len(input):
                raise ValueError(f"{name} must fit input {input.shape}; got {tensor.shape}")
        if self.class_weight is not None and len(self.class_weight) != classes:
            raise ValueError(f"class_weight must be {classes} numbers; got {self.class_weight}")
        if target.shape[1] == 1:
            self.check_labels(target, max(2, classes))

    def check_labels(self, target: Tensor, classes: int) -> None:
        if target.device.type == "meta" or torch.compiler.is_compiling():
            return
        known = (target >= 0) & (target < classes)
        if self.ignore_index is not None:
            known |= target == self.ignore_index
        if not known.all():
            raise ValueError(f"target must be labels below {classes}; got {int(target.max())}")

    def kept(self, target: Tensor, mask: Tensor | None) -> Tensor:
        kept = torch.ones_like(target[:, :1], dtype=torch.bool)
        if self.ignore_index is not None and target.shape[1] == 1:
            kept = kept & (target != self.ignore_index)
        return kept if mask is None else kept & mask.bool()

    def channels(self, input: Tensor, target: Tensor, kept: Tensor) -> Tensor:
        classes = input.shape[1]
        if target.shape[1] == classes:
            return torch.where(kept, target, torch.zeros_like(target))
        index = torch.arange(classes, device=input.device)
        return (target == index.reshape(1, -1, *[1] * (input.ndim - 2))) & kept

    def widened(self, input: Tensor) -> Tensor:
        return input.float() if input.dtype in {torch.float16, torch.bfloat16} else input

    def hidden(self, input: Tensor, kept: Tensor) -> Tensor:
        return torch.where(kept, input, torch.zeros_like(input))

    def activated(self, input: Tensor) -> Tensor:
        if self.activation is None:
            return input
        return input.softmax(1) if self.activation == "softmax" else input.sigmoid()

    def axes(self, probability: Tensor) -> list[int]:
        return [0, *range(2, probability.ndim)] if self.batch else [*range(2, probability.ndim)]

    def sums(self, p: Tensor, t: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        axes = self.axes(p)
        p = torch.where(kept, p, torch.zeros_like(p))
        return (p * t).sum(axes), p.sum(axes), t.sum(axes)

    def ratio(self, inter: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        return 1 - (2 * inter + self.smooth) / (predicted + true + self.smooth)

    def per_class(self, p: Tensor, t: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        inter, predicted, true = self.sums(p, t, kept)
        loss = self.ratio(inter, predicted, true)
        weight = torch.ones_like(loss)
        if self.absent == "penalize":
            count = kept.expand(-1, 1, *kept.shape[2:]).to(p.dtype).sum(self.axes(p))
            loss = torch.where(true > 0, loss, predicted / count.clamp_min(1))
        if self.absent == "skip":
            weight = (true > 0).to(p.dtype)
        if self.class_weight is not None:
            given = p.new_tensor(self.class_weight)
            weight = weight * (given if self.include_background else given[1:])
        return loss, weight

    def weighted(self, loss: Tensor, weight: Tensor) -> Tensor:
        return loss * weight * weight.numel() / weight.sum().clamp_min(1e-12)

    def reduced(self, loss: Tensor) -> Tensor:
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()


def dice(
    input: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    activation: Literal["softmax", "sigmoid"] | None = "softmax",
    include_background: bool = True,
    ignore_index: int | None = None,
    class_weight: Sequence[float] | None = None,
    absent: Literal["ratio", "penalize", "skip"] = "ratio",
    batch: bool = False,
    smooth: float = 1e-5,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """The function behind the class."""
    loss = Dice(
        activation=activation,
        include_background=include_background,
        ignore_index=ignore_index,
        class_weight=class_weight,
        absent=absent,
        batch=batch,
        smooth=smooth,
        reduction=reduction,
    )
    return loss(input, target, mask=mask)
