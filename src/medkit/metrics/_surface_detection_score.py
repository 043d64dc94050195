"""The score of the Vesuvius surface-detection competition, as far as it needs no other program."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Integer, UInt8
from torch import Tensor

from medkit._core import check

from ._mask_score import CaseMasks
from ._surface_dice import surface_dice
from ._variation_of_information import parts_variation

Topology = Callable[[np.ndarray, np.ndarray], float]

WEIGHTS = {"topology": 0.30, "surface_dice": 0.35, "variation": 0.35}
WHOLE = "0.30 topology + 0.35 surface Dice + 0.35 variation of information"
PART = "topology is absent: the mean of the other two terms, not the score of the competition"


class SurfaceDetectionResult(NamedTuple):
    """The terms of the competition score for each case, each in [0, 1].

    Attributes:
        score: Weighted sum of the terms, by ``policy``.
        surface_dice: Surface Dice at the tolerance, areas of surfels.
        variation: 1 / (1 + alpha V) of the variation of information V of connected parts.
        topology: What ``topology`` returned; NaN where there was none.
        status: What became of the surface of each case, as in ``Scores.status``; one that was
            missed or invented has 0 in the first two terms.
        policy: How the score was made, and whether it is the score of the competition.
    """

    score: Float64[Tensor, " batch"]
    surface_dice: Float64[Tensor, " batch"]
    variation: Float64[Tensor, " batch"]
    topology: Float64[Tensor, " batch"]
    status: UInt8[Tensor, " batch"]
    policy: str

    def mean(self) -> float:
        """Return the mean score of the cases, each counting the same; NaN of none."""
        if not len(self.score):
            return math.nan
        return math.fsum(float(score) for score in self.score) / len(self.score)


def surface_detection_score(
    prediction: Integer[Tensor, "batch *spatial"],
    target: Integer[Tensor, "batch *spatial"],
    *,
    ignore_index: int | None = 2,
    tolerance: float = 2.0,
    alpha: float = 0.3,
    topology: Topology | None = None,
) -> SurfaceDetectionResult:
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
    metric = SurfaceDetectionScore(
        ignore_index=ignore_index, tolerance=tolerance, alpha=alpha, topology=topology
    )
    metric.update(prediction, target)
    return metric.compute()


class SurfaceDetectionScore:
    """Score of the Vesuvius surface-detection competition over any number of batches.

    It keeps the terms of every case, so that results are the same bit for bit however cases are
    batched or split over processes.

    Args:
        ignore_index: Label of target voxels that are background in both. None for none.
        tolerance: Distance in voxels up to which surfaces agree.
        alpha: How much variation of information counts.
        topology: Takes the boolean masks of a case and returns its topology term; a function of a
            module, if the accumulator is sent to another process.

    Example:
        >>> import torch
        >>> metric = SurfaceDetectionScore()
        >>> truth = torch.zeros(2, 8, 8, 8, dtype=torch.int64)
        >>> truth[:, 4] = 1
        >>> metric.update(truth[:1], truth[:1])
        >>> metric.update(torch.zeros_like(truth[1:]), truth[1:])  # a miss
        >>> metric.compute().mean()
        0.5

    References:
        Vesuvius Challenge - Surface Detection, Kaggle 2025, metric "topometrics"; see
        ``surface_detection_score``.
    """

    def __init__(
        self,
        *,
        ignore_index: int | None = 2,
        tolerance: float = 2.0,
        alpha: float = 0.3,
        topology: Topology | None = None,
    ) -> None:
        self.ignore_index: int | None = ignore_index
        self.tolerance: float = check.non_negative("tolerance", tolerance)
        self.alpha: float = check.non_negative("alpha", alpha)
        self.topology: Topology | None = topology
        self._rows: list[Tensor] = []

    def update(
        self,
        prediction: Integer[Tensor, "batch *spatial"],
        target: Integer[Tensor, "batch *spatial"],
    ) -> None:
        """Score a batch of cases and keep the terms.

        Args:
            prediction: Class map; three or two spatial axes.
            target: True class map.
        """
        if prediction.shape != target.shape:
            rule = f"of the shape of target {tuple(target.shape)}"
            raise check.fail("prediction", rule, tuple(prediction.shape))
        known = torch.ones_like(target, dtype=torch.bool)
        if self.ignore_index is not None:
            known = target != self.ignore_index
        p, t = ((each != 0) & known for each in (prediction, target))
        agreed = surface_dice(p.unsqueeze(1), t.unsqueeze(1), tolerance=self.tolerance)
        rows = torch.full((len(t), 4), math.nan, dtype=torch.float64)
        rows[:, 0] = agreed.values[:, 0].nan_to_num(1.0)
        rows[:, 3] = agreed.status[:, 0]
        for row, found, true in zip(rows, p.cpu().numpy(), t.cpu().numpy(), strict=True):
            row[1] = _variation(found, true, self.alpha)
            if self.topology is not None:
                row[2] = check.fraction("topology", self.topology(found, true))
        self._rows.append(rows)

    def compute(self) -> SurfaceDetectionResult:
        """Return the score and its terms for every case seen so far, in the order they came in.

        Raises:
            ValueError: If there was none.
        """
        if not self._rows:
            raise check.fail("SurfaceDetectionScore", "updated before compute()", "no cases")
        agreed, variation, shape, status = torch.cat(self._rows).unbind(-1)
        if self.topology is None:
            score, policy = (agreed + variation) / 2, PART
        else:
            named = {"topology": shape, "surface_dice": agreed, "variation": variation}
            score = torch.stack([WEIGHTS[name] * term for name, term in named.items()]).sum(0)
            policy = WHOLE
        return SurfaceDetectionResult(
            score, agreed, variation, shape, status.to(torch.uint8), policy
        )

    def merge(self, other: "SurfaceDetectionScore") -> None:
        """Add the cases of another accumulator, for instance that of another process, after ours.

        Args:
            other: One of the same options; it is left as it is.

        Raises:
            TypeError: If ``other`` is of another kind.
            ValueError: If its options differ.
        """
        if not isinstance(other, SurfaceDetectionScore):
            raise TypeError(f"other must be a SurfaceDetectionScore; got {other!r}")
        if other.options != self.options:
            raise check.fail("other", f"made with {self.options}", f"{other.options}")
        self._rows += other.rows

    def reset(self) -> None:
        """Forget all cases."""
        self._rows.clear()

    @property
    def rows(self) -> list[Float64[Tensor, "case 4"]]:
        """Surface Dice, variation, topology and status of the cases of each batch so far."""
        return list(self._rows)

    @property
    def options(self) -> dict[str, object]:
        """What the accumulator was made with, by name."""
        return {
            "ignore_index": self.ignore_index,
            "tolerance": self.tolerance,
            "alpha": self.alpha,
            "topology": self.topology,
        }


def _variation(prediction: np.ndarray, target: np.ndarray, alpha: float) -> float:
    """Return the term of the variation of information; an empty mask agrees with an empty one."""
    if not prediction.any() or not target.any():
        return float(prediction.any() == target.any())
    return 1 / (1 + alpha * parts_variation(CaseMasks(0, prediction, target)))
