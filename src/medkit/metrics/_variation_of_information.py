"""Variation of information between the connected parts of two masks."""

import math

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from medkit.ops import connected_components

from ._mask_score import CaseMasks, MaskScore, score_masks, spatial_size
from ._scores import Scores


def variation_of_information(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    *,
    num_classes: int | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    mask: Shaped[Tensor, "batch ..."] | None = None,
) -> Scores:
    r"""Return how much the connected parts of two masks differ, in bits.

    .. math:: V = H(P \mid T) + H(T \mid P)

    where P and T number the connected parts of both masks, corners touching (26 neighbours in 3D,
    8 in 2D), and the entropies are over the voxels of either. Use it where parts must be neither
    merged nor split: cells, lesions, sheets of papyrus.

    A structure missed or invented has the logarithm of the number of voxels, which no value
    exceeds; where both are empty the value is NaN.

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
        >>> truth = torch.tensor([[[[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]]]) > 0
        >>> broken = torch.tensor([[[[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]]]]) > 0
        >>> variation_of_information(broken, truth).values.item()
        1.5

    References:
        M. Meilă, "Comparing Clusterings - an Information Based Distance", Journal of Multivariate
        Analysis 98, 2007, equation 15.
    """
    worst = math.log2(max(2, math.prod(spatial_size(prediction, target))))
    return score_masks(
        prediction,
        target,
        parts_variation,
        num_classes=num_classes,
        include_background=include_background,
        ignore_index=ignore_index,
        mask=mask,
        worst=worst,
        perfect=0.0,
    )


def parts_variation(case: CaseMasks) -> float:
    """Return the variation of information of the parts of two masks, in bits.

    Args:
        case: The masks, of which at least one has voxels.
    """
    either = case.prediction | case.target
    p, t = (_parts(each)[either] for each in (case.prediction, case.target))
    pairs = p.astype(np.int64) * (int(t.max()) + 1) + t
    joint, *alone = (_entropy(each) for each in (pairs, p, t))
    # the sum of both conditional entropies; rounding must not make it negative
    return max(0.0, 2 * joint - sum(alone))


def _parts(mask: np.ndarray) -> np.ndarray:
    """Return the number of the connected part of each voxel, 0 outside of the mask."""
    images = torch.as_tensor(np.ascontiguousarray(mask))[None, None]
    labels = connected_components(images, connectivity=26 if mask.ndim == 3 else 8)
    return labels[0, 0].numpy()


def _entropy(labels: np.ndarray) -> float:
    """Return the entropy of labels in bits."""
    counts = np.unique(labels, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


class VariationOfInformation(MaskScore):
    """Variation of information over any number of batches.

    It keeps one value and one status per case and class, so that results are the same bit for bit
    however cases are batched or split over processes.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that belong to no structure.

    Example:
        >>> import torch
        >>> metric = VariationOfInformation(2, include_background=False)
        >>> truth = torch.zeros(1, 8, 8, dtype=torch.int64)
        >>> truth[:, 2:4, 1:7] = 1
        >>> metric.update(truth, truth)
        >>> metric.compute().mean()
        0.0

    References:
        M. Meilă, "Comparing Clusterings - an Information Based Distance", Journal of Multivariate
        Analysis 98, 2007; see
        ``variation_of_information``.
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
        return variation_of_information(
            prediction,
            target,
            num_classes=self.num_classes,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            mask=mask,
        )
