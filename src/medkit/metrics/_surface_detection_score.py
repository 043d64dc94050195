"""The score of the Vesuvius surface-detection competition, as far as it needs no other program."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Integer
from torch import Tensor

from medkit._core import check

from ._mask_score import CaseMasks
from ._surface_dice import surface_dice
from ._variation_of_information import parts_variation

Topology = Callable[[np.ndarray, np.ndarray], float]

WEIGHTS = {"topology": 0.30, "surface_dice": 0.35, "variation": 0.35}
WHOLE = "0.30 topology + 0.35 surface Dice + 0.35 variation of information"
PART = "topology is absent: the mean of the other two terms, not the score of the competition"


class SurfaceDetectionScore(NamedTuple):
    """The terms of the competition score for each case, each in [0, 1].

    Attributes:
        score: Weighted sum of the terms, by ``policy``.
        surface_dice: Surface Dice at the tolerance, areas of surfels.
        variation: 1 / (1 + alpha V) of the variation of information V of connected parts.
        topology: What ``topology`` returned; NaN where there was none.
        policy: How the score was made, and whether it is the score of the competition.
    """

    score: Float64[Tensor, " batch"]
    surface_dice: Float64[Tensor, " batch"]
    variation: Float64[Tensor, " batch"]
    topology: Float64[Tensor, " batch"]
    policy: str


def surface_detection_score(
    prediction: Integer[Tensor, "batch *spatial"],
    target: Integer[Tensor, "batch *spatial"],
    *,
    ignore_index: int | None = 2,
    tolerance: float = 2.0,
    alpha: float = 0.3,
    topology: Topology | None = None,
) -> SurfaceDetectionScore:
    r"""Return the score of the Vesuvius surface-detection competition.

    .. math:: 0.30\,\mathrm{Topology} + 0.35\,S_{\tau} + 0.35\,\frac{1}{1 + \alpha V}

    Use it to rank surface models as the competition does. Whatever is not zero is surface. A case
    without surface in both has 1 in either term, in one of them 0.

    The topology term matches Betti numbers with a C++ program that medkit does not bring: give it
    as ``topology``. Without it the other two are averaged, and ``policy`` says so.

    Args:
        prediction: Class map; three or two spatial axes.
        target: True class map.
        ignore_index: Label of target voxels that are background in both. None for none.
        tolerance: Distance in voxels up to which surfaces agree.
        alpha: How much variation of information counts.
        topology: Takes the boolean masks of a case, prediction and truth, and returns its term.

    Returns:
        The score and its terms for each case.

    Raises:
        ValueError: If shapes differ, or a term of ``topology`` is not in [0, 1].

    Example:
        >>> import torch
        >>> truth = torch.zeros(1, 8, 8, 8, dtype=torch.int64)
        >>> truth[:, 4] = 1
        >>> result = surface_detection_score(truth.roll(3, dims=1), truth)
        >>> result.surface_dice.item(), result.variation.item()
        (0.5, 1.0)
        >>> result.policy
        'topology is absent: the mean of the other two terms, not the score of the competition'

    References:
        Vesuvius Challenge - Surface Detection, Kaggle 2025, metric "topometrics".
    """
    if prediction.shape != target.shape:
        raise check.fail(
            "prediction", f"of the shape of target {tuple(target.shape)}", tuple(prediction.shape)
        )
    known = torch.ones_like(target, dtype=torch.bool)
    if ignore_index is not None:
        known = target != ignore_index
    p, t = ((each != 0) & known for each in (prediction, target))
    agreed = surface_dice(p.unsqueeze(1), t.unsqueeze(1), tolerance=tolerance).values[:, 0]
    agreed = torch.where(agreed.isnan(), 1.0, agreed)
    pairs = list(zip(p.cpu().numpy(), t.cpu().numpy(), strict=True))
    variation = torch.tensor(
        [_variation(pair[0], pair[1], alpha) for pair in pairs], dtype=torch.float64
    )
    if topology is None:
        absent = torch.full_like(agreed, math.nan)
        return SurfaceDetectionScore((agreed + variation) / 2, agreed, variation, absent, PART)
    terms = [check.fraction("topology", topology(pair[0], pair[1])) for pair in pairs]
    shape = torch.tensor(terms, dtype=torch.float64)
    named = {"topology": shape, "surface_dice": agreed, "variation": variation}
    score = torch.stack([WEIGHTS[name] * term for name, term in named.items()]).sum(0)
    return SurfaceDetectionScore(score, agreed, variation, shape, WHOLE)


def _variation(prediction: np.ndarray, target: np.ndarray, alpha: float) -> float:
    """Return the term of the variation of information; an empty mask agrees with an empty one."""
    if not prediction.any() or not target.any():
        return float(prediction.any() == target.any())
    return 1 / (1 + alpha * parts_variation(CaseMasks(0, prediction, target)))
