"""What the losses on skeletons share: their options, and voxels brought to channels."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medkit._core import check
from medkit.ops import Overlap, one_hot

from ._class_loss import ClassLoss
from ._overlap_loss import ABSENT, Absent, pool
from ._voxels import Activation, Reduction, as_voxels


class Channels(NamedTuple):
    """Probabilities and target of each channel that takes part, zero where a voxel is left out.

    Attributes:
        p: Probabilities ``(batch, channel, *spatial)`` in float32 or float64.
        target: The same for the target, boolean or floating point.
        weight: How much each voxel counts, ``(batch, 1, *spatial)``; None if each counts once.
        inside: Which voxels count, boolean, of that shape; None if all do.
        dropped: Number of leading channels of the input that take no part.
    """

    p: Tensor
    target: Tensor
    weight: Tensor | None
    inside: Tensor | None
    dropped: int

    def sums(self, values: Tensor) -> Tensor:
        """Return the weighted sum over the voxels of each sample and channel of the input."""
        weighted = values if self.weight is None else values * self.weight
        return F.pad(weighted.flatten(2).sum(-1, dtype=self.p.dtype), (self.dropped, 0))

    def counts(self, *, batch: bool) -> Overlap:
        """Return the voxels of prediction and target; nobody needs those that they share."""
        if self.weight is None:
            voxels = self.p.new_full((self.p.shape[0], 1), self.p[0, :1].numel())
        else:
            voxels = self.weight.flatten(2).sum(-1, dtype=self.p.dtype)
        target = self.sums(self.target)
        return pool(Overlap(target, self.sums(self.p), target, voxels), batch=batch)


def as_channels(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None,
    *,
    activation: Activation | None,
    include_background: bool,
    ignore_index: int | None,
) -> Channels:
    """Return the channels of checked arguments."""
    voxels = as_voxels(input, target, mask, activation=activation, ignore_index=ignore_index)
    weight = None if voxels.weight is None else voxels.weight.unsqueeze(1)
    inside = None if weight is None else weight > 0
    x = voxels.input.to(torch.float64 if input.dtype == torch.float64 else torch.float32)
    x = x if inside is None else torch.where(inside, x, 0.0)
    if activation is not None:
        x = x.softmax(1) if activation == "softmax" else x.sigmoid()
        x = x if inside is None else torch.where(inside, x, 0.0)
    t = voxels.target
    if t.ndim < input.ndim:
        t = one_hot(t, num_classes=input.shape[1], dtype=torch.uint8)
    t = t.to(x.dtype) if t.is_floating_point() else t.bool()
    if inside is not None:
        t = t.where(inside, torch.zeros((), dtype=t.dtype, device=t.device))
    dropped = 0 if include_background or input.shape[1] == 1 else 1
    weight = None if weight is None else weight.to(x.dtype)
    return Channels(x[:, dropped:], t[:, dropped:], weight, inside, dropped)


def given_skeleton(skeleton: Tensor, input: Tensor, channels: Channels) -> Tensor:
    """Return the channels that take part of a skeleton that the caller made."""
    if skeleton.dtype != torch.bool and not skeleton.is_floating_point():
        raise TypeError(f"target_skeleton must be boolean or floating point; got {skeleton.dtype}")
    if skeleton.shape != input.shape:
        rule = f"of the shape of input {tuple(input.shape)}"
        raise check.fail("target_skeleton", rule, f"shape {tuple(skeleton.shape)}")
    skeleton = skeleton[:, channels.dropped :]
    if channels.inside is None:
        return skeleton
    return skeleton.where(
        channels.inside, torch.zeros((), dtype=skeleton.dtype, device=input.device)
    )


class SkeletonLoss(ClassLoss):
    """The options that losses on skeletons share.

    Args:
        activation: What turns the input into probabilities.
        include_background: Whether channel 0 takes part, after the activation.
        ignore_index: Label of voxels that do not count.
        class_weight: Weight of each channel.
        absent: What a class without target voxels adds.
        batch: Whether to sum voxels over the batch before the ratios.
        smooth: Added above and below in each ratio.
        reduction: What becomes of the values.
        iterations: How many erosions to go down.
    """

    def __init__(
        self,
        *,
        activation: Activation | None,
        include_background: bool,
        ignore_index: int | None,
        class_weight: Sequence[float] | Tensor | None,
        absent: Absent,
        batch: bool,
        smooth: float,
        reduction: Reduction,
        iterations: int,
    ) -> None:
        super().__init__(
            activation=activation,
            include_background=include_background,
            ignore_index=ignore_index,
            class_weight=class_weight,
            reduction=reduction,
        )
        check.one_of("absent", absent, ABSENT)
        self.absent: Absent = absent
        self.batch = batch
        self.smooth: float = check.non_negative("smooth", smooth)
        self.iterations: int = check.integer("iterations", iterations, minimum=0)
