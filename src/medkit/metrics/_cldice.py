"""Centre-line Dice: whether the middle of a vessel was found."""

from collections.abc import Callable
from typing import cast

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import optional

from ._mask_score import CaseMasks, MaskScore, score_masks
from ._scores import Scores


def cldice_score(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    *,
    num_classes: int | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    mask: Shaped[Tensor, "batch ..."] | None = None,
) -> Scores:
    r"""Return the centre-line Dice of each case and class.

    .. math:: C = \frac{2\,T_p\,T_s}{T_p + T_s}, \quad
              T_p = \frac{|S(P) \cap T|}{|S(P)|}, \quad T_s = \frac{|S(T) \cap P|}{|S(T)|}

    with the skeletons S of scikit-image. Use it for vessels, airways and surfaces, where a gap
    matters more than a thick wall. A structure missed or invented has 0; where both are empty the
    value is NaN. Needs scikit-image (``pip install 'medkit[examples]'``).

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
        ImportError: If scikit-image is not installed.

    Example:
        >>> import torch
        >>> truth, prediction = torch.zeros(2, 1, 1, 5, 10, dtype=torch.bool)
        >>> truth[..., 2, :], prediction[..., 2, :5] = True, True
        >>> round(cldice_score(prediction, truth).values.item(), 4)
        0.6667

    References:
        S. Shit et al., "clDice - a Novel Topology-Preserving Loss Function for Tubular Structure
        Segmentation", CVPR 2021, equations 1 and 2.
    """
    module = optional.require("skimage.morphology", extra="examples")
    skeleton = cast("Callable[[np.ndarray], np.ndarray]", module.skeletonize)

    def formula(case: CaseMasks) -> float:
        # the thinning treats the border of the array as it treats the border of the image
        p, t = (np.pad(each, 1) for each in (case.prediction, case.target))
        lines = skeleton(p) > 0, skeleton(t) > 0
        precision = np.count_nonzero(lines[0] & t) / np.count_nonzero(lines[0])
        sensitivity = np.count_nonzero(lines[1] & p) / np.count_nonzero(lines[1])
        both = precision + sensitivity
        return 2 * precision * sensitivity / both if both else 0.0

    return score_masks(
        prediction,
        target,
        formula,
        num_classes=num_classes,
        include_background=include_background,
        ignore_index=ignore_index,
        mask=mask,
        worst=0.0,
    )


class ClDiceScore(MaskScore):
    """Centre-line Dice over any number of batches.

    It keeps one value and one status per case and class, so that results are the same bit for bit
    however cases are batched or split over processes.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that belong to no structure.

    Example:
        >>> import torch
        >>> metric = ClDiceScore(2, include_background=False)
        >>> truth = torch.zeros(1, 8, 8, dtype=torch.int64)
        >>> truth[:, 2:4, 1:7] = 1
        >>> metric.update(truth, truth)
        >>> metric.compute().mean()
        1.0

    References:
        S. Shit et al., "clDice - a Novel Topology-Preserving Loss Function", CVPR 2021; see
        ``cldice_score``.
    """

    perfect: float = 1.0

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
        return cldice_score(
            prediction,
            target,
            num_classes=self.num_classes,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            mask=mask,
        )
