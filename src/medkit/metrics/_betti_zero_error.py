"""By how many the connected parts of two masks differ."""

import math

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from medkit.ops import connected_components

from ._mask_score import CaseMasks, MaskScore, score_masks, spatial_size
from ._scores import Scores


def betti_zero_error(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    *,
    num_classes: int | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    mask: Shaped[Tensor, "batch ..."] | None = None,
) -> Scores:
    r"""Return by how many the numbers of connected parts of two masks differ.

    .. math:: |b_0(P) - b_0(T)|

    with corners touching (26 neighbours in 3D, 8 in 2D). Use it beside an overlap for vessels and
    walls: it sees a break that costs no voxels, but not where it is.

    A structure missed or invented has the largest number of parts that fits into the image, so
    that missing one never improves a mean; where both are empty the value is NaN.

    Args:
        prediction: Class map ``(batch, *spatial)`` or ``(batch, 1, *spatial)`` of integers, or
            boolean masks ``(batch, channel, *spatial)``; two or three spatial axes.
        target: Truth in the form of ``prediction``.
        num_classes: Number of classes of the maps; None for masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that belong to no structure, whatever is predicted
            there; for class maps only. None counts all.
        mask: Voxels that count, boolean; others belong to no structure. None counts all.

    Returns:
        Values and statuses per case and class.

    Raises:
        TypeError: If a segmentation is neither of integers nor of booleans.
        ValueError: If shapes differ or a label is no class.

    Example:
        >>> import torch
        >>> truth = torch.ones(1, 1, 4, 9, dtype=torch.bool)
        >>> broken = truth.clone()
        >>> broken[..., [2, 6]] = False
        >>> betti_zero_error(broken, truth).values.item()
        2.0

    References:
        X. Hu et al., "Topology-Preserving Deep Image Segmentation", NeurIPS 2019, section 3.1.
    """
    worst = math.prod((size + 1) // 2 for size in spatial_size(prediction, target))
    return score_masks(
        prediction,
        target,
        _difference,
        num_classes=num_classes,
        include_background=include_background,
        ignore_index=ignore_index,
        mask=mask,
        worst=float(worst),
        perfect=0.0,
    )


def _difference(case: CaseMasks) -> float:
    return float(abs(_count(case.prediction) - _count(case.target)))


def _count(mask: np.ndarray) -> int:
    """Return the number of connected parts of a mask."""
    images = torch.as_tensor(np.ascontiguousarray(mask))[None, None]
    return int(connected_components(images, connectivity=26 if mask.ndim == 3 else 8).max())


class BettiZeroError(MaskScore):
    """Difference of the numbers of connected parts over any number of batches.

    It keeps one value and one status per case and class, so that results are the same bit for bit
    however cases are batched or split over processes.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that belong to no structure.

    Example:
        >>> import torch
        >>> metric = BettiZeroError(2, include_background=False)
        >>> truth = torch.zeros(1, 8, 8, dtype=torch.int64)
        >>> truth[:, 2:4, 1:7] = 1
        >>> metric.update(truth, truth)
        >>> metric.compute().mean()
        0.0

    References:
        X. Hu et al., "Topology-Preserving Deep Image Segmentation", NeurIPS 2019; see
        ``betti_zero_error``.
    """

    perfect: float = 0.0

    def score(
        self,
        prediction: Shaped[Tensor, "batch ..."],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None,
    ) -> Scores:
        """Return the scores of a batch of cases, which are not kept.

        Args:
            prediction: Class map or boolean masks.
            target: Truth in the form of ``prediction``.
            mask: Voxels that count; None counts all.
        """
        return betti_zero_error(
            prediction,
            target,
            num_classes=self.num_classes,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            mask=mask,
        )
