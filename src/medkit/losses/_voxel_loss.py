"""Losses that need nothing but one pass over the voxels, which several of them can share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor

from medkit._core import check
from medkit.ops import Overlap, VoxelScan, voxel_scan

from ._class_loss import ClassLoss
from ._voxels import Activation, Voxels, as_voxels


class Entropy(NamedTuple):
    """How a loss wants the cross entropy of the pass over the voxels made."""

    class_weight: Tensor | None
    label_smoothing: float = 0.0
    gamma: float = 0.0


class VoxelLoss(ClassLoss, ABC):
    """A loss made from counts per class and cross entropy per voxel."""

    @abstractmethod
    def from_scan(self, voxels: Voxels, scan: VoxelScan) -> Tensor:
        """Return the loss from a pass over the voxels that was made as ``entropy`` says.

        Args:
            voxels: What the pass went over.
            scan: Its result.
        """

    def entropy(self, voxels: Voxels) -> Entropy | None:  # noqa: ARG002  for those that need it
        """Return how the cross entropy of the pass is wanted, or None if it is not needed.

        Args:
            voxels: What the pass goes over.
        """
        return None

    def rows(self, voxels: Voxels, scan: VoxelScan) -> Tensor:
        """Return what the loss of a batch is made of, one row for each sample.

        ``from_rows`` makes the loss of them. They are the counts per class unless the loss needs
        more than those.

        Args:
            voxels: What the pass went over.
            scan: Its result, made as ``entropy`` says.
        """
        if scan.overlap is None or self.entropy(voxels) is not None:
            raise check.fail(
                "loss", "made of counts per class, or a mean over voxels", type(self).__name__
            )
        return torch.cat(scan.overlap, dim=1)

    def from_rows(self, rows: Tensor) -> Tensor:
        """Return the loss from the rows of all samples, from one pass or from many.

        Args:
            rows: As ``rows`` returns them, one below the other.
        """
        shared, predicted, present = (
            rows[:, :-1].reshape(len(rows), 3, rows.shape[1] // 3).unbind(1)
        )
        counts = Overlap(shared, predicted, present, rows[:, -1:])
        nowhere = rows.new_empty(*present.shape, 0)
        return self.from_scan(Voxels(nowhere, nowhere, None), VoxelScan(counts, None))


def scan_voxels(
    voxels: Voxels, activation: Activation | None, entropy: Entropy | None, *, overlap: bool
) -> VoxelScan:
    """Return the pass over the voxels, with what is wanted of it."""
    class_weight, label_smoothing, gamma = entropy or Entropy(None)
    return voxel_scan(
        voxels.input,
        voxels.target,
        activation=activation,
        weight=voxels.weight,
        class_weight=class_weight,
        label_smoothing=label_smoothing,
        gamma=gamma,
        needs="overlap" if entropy is None else "both" if overlap else "cross_entropy",
    )


def overlap_of(scan: VoxelScan) -> Overlap:
    """Return the overlap of a pass that made it."""
    return cast("Overlap", scan.overlap)


def cross_entropy_of(scan: VoxelScan) -> Tensor:
    """Return the cross entropy of a pass that made it."""
    return cast("Tensor", scan.cross_entropy)


class Scanned(NamedTuple):
    """Voxels and the pass over them, made as a loss wants it."""

    voxels: Voxels
    scan: VoxelScan


def scan_together(
    losses: Mapping[str, VoxelLoss], input: Tensor, target: Tensor, mask: Tensor | None
) -> dict[str, Scanned]:
    """Return a pass over the voxels for each loss; those that see the voxels alike share one.

    They do if activation and ``ignore_index`` are equal and no two of them want a cross entropy.
    """
    passes: dict[str, Scanned] = {}
    while waiting := {name: loss for name, loss in losses.items() if name not in passes}:
        first = next(iter(waiting.values()))
        activation, ignore_index = first.activation, first.ignore_index
        alike = {
            name: loss
            for name, loss in waiting.items()
            if (loss.activation, loss.ignore_index) == (activation, ignore_index)
        }
        voxels = as_voxels(input, target, mask, activation=activation, ignore_index=ignore_index)
        wanted = {name: loss.entropy(voxels) for name, loss in alike.items()}
        own = [name for name, entropy in wanted.items() if entropy is not None]
        shared = scan_voxels(
            voxels,
            activation,
            wanted[own[0]] if own else None,
            overlap=len(own) < len(alike),
        )
        for name in alike:
            scan = shared
            if name in own[1:]:
                scan = scan_voxels(voxels, activation, wanted[name], overlap=False)
            passes[name] = Scanned(voxels, scan)
    return passes
