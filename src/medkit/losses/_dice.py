"""Dice loss."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medkit._core import check
from medkit.losses._overlap_loss import Absent, count, ratio_loss, reduce_classes
from medkit.losses._voxels import Activation, Reduction


def dice_loss(
    input: Float[Tensor, "batch channel *spatial"],
    target: Shaped[Tensor, "batch ..."],
    *,
    mask: Shaped[Tensor, "batch ..."] | None = None,
    activation: Activation | None = "softmax",
    include_background: bool = True,
    ignore_index: int | None = None,
    class_weight: Sequence[float] | Tensor | None = None,
    absent: Absent = "ratio",
    batch: bool = False,
    smooth: float = 1e-5,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    """Return one minus the soft Dice coefficient."""
    smooth = check.non_negative("smooth", smooth)
    counts = count(
        input, target, mask, activation=activation, ignore_index=ignore_index, batch=batch
    )
    whole = counts.predicted + counts.target
    return reduce_classes(
        ratio_loss(whole - 2 * counts.intersection, whole, smooth),
        counts,
        include_background=include_background,
        class_weight=class_weight,
        absent=absent,
        reduction=reduction,
    )


class DiceLoss(nn.Module):
    """One minus the soft Dice coefficient, with its options stored."""

    class_weight: Tensor | None

    def __init__(
        self,
        *,
        activation: Activation | None = "softmax",
        include_background: bool = True,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
        absent: Absent = "ratio",
        batch: bool = False,
        smooth: float = 1e-5,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.activation: Activation | None = activation
        self.include_background = include_background
        self.ignore_index = ignore_index
        weight = None if class_weight is None else torch.as_tensor(class_weight)
        self.register_buffer("class_weight", weight, persistent=False)
        self.absent: Absent = absent
        self.batch = batch
        self.smooth = smooth
        self.reduction: Reduction = reduction

    def forward(
        self,
        input: Float[Tensor, "batch channel *spatial"],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """Return the loss of logits against a target."""
        return dice_loss(
            input,
            target,
            mask=mask,
            activation=self.activation,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            class_weight=self.class_weight,
            absent=self.absent,
            batch=self.batch,
            smooth=self.smooth,
            reduction=self.reduction,
        )
