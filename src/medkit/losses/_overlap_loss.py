"""What every loss on overlap counts shares: count, then reduce over samples and classes."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import Overlap, VoxelScan

from ._voxel_loss import VoxelLoss, overlap_of, scan_voxels
from ._voxels import (
    REDUCTIONS,
    Activation,
    Reduction,
    Voxels,
    as_voxels,
    class_weights,
)

Absent = Literal["ratio", "penalize", "skip"]

ABSENT = ("ratio", "penalize", "skip")


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
    scan = scan_voxels(voxels, activation, None, overlap=True)
    return pool(overlap_of(scan), batch=batch)


def pool(counts: Overlap, *, batch: bool) -> Overlap:
    """Return the counts of each sample, or of the whole batch in one row."""
    if not batch:
        return counts
    return Overlap(*(each.sum(0, keepdim=True) for each in counts))


def ratio_loss(shared: Tensor, whole: Tensor, smooth: float) -> Tensor:
    """Return ``1 - (shared + smooth) / (whole + smooth)``; two empty sets agree.

    In this form the gradient of a nearly disjoint pair is as exact as that of any other.
    """
    below = whole + smooth
    empty = below == 0
    return 1 - torch.where(empty, 1.0, (shared + smooth) / torch.where(empty, 1.0, below))


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
    check.one_of("absent", absent, ABSENT)
    check.one_of("reduction", reduction, REDUCTIONS)
    weight = class_weights(class_weight, loss, include_background=include_background)
    present = counts.target > 0
    if absent == "penalize":
        voxels = torch.where(counts.voxels == 0, 1.0, counts.voxels)
        loss = torch.where(present, loss, counts.predicted / voxels)
    weights = weight * present if absent == "skip" else weight.expand_as(loss)
    weighted = loss * weights
    if reduction == "none":
        return weighted if include_background else weighted[:, 1:]
    if reduction == "sum":
        return weighted.sum()
    total = weights.sum()
    return weighted.sum() / torch.where(total == 0, 1.0, total)


class OverlapLoss(VoxelLoss):
    """A loss made from the counts of each class, with the options that such losses share.

    Args:
        activation: What turns the input into probabilities.
        include_background: Whether channel 0 takes part, after the activation.
        ignore_index: Label of voxels that do not count.
        class_weight: Weight of each channel.
        absent: What a class without target voxels adds.
        batch: Whether to sum voxels over the whole batch.
        smooth: Added above and below in the ratio, in voxels.
        reduction: What becomes of the values.
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

    @abstractmethod
    def from_counts(self, counts: Overlap) -> Float[Tensor, "..."]:
        """Return the loss from the counts of each sample, or of the whole batch in one row.

        Args:
            counts: Overlap of prediction and target.
        """

    def forward(
        self,
        input: Float[Tensor, "batch channel *spatial"],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """Return the loss.

        Args:
            input: Logits, or probabilities if ``activation`` is None.
            target: Class map, or values per channel.
            mask: Voxels that count, boolean or weights; None counts all.
        """
        counts = count(
            input,
            target,
            mask,
            activation=self.activation,
            ignore_index=self.ignore_index,
            batch=self.batch,
        )
        return self.from_counts(counts)

    def from_scan(self, voxels: Voxels, scan: VoxelScan) -> Float[Tensor, "..."]:  # noqa: ARG002
        """Return the loss from a pass over the voxels.

        Args:
            voxels: What the pass went over.
            scan: Its result.
        """
        return self.from_counts(pool(overlap_of(scan), batch=self.batch))
