"""Scores of a classification, all from one exact matrix of counts."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64, Shaped, UInt8
from torch import Tensor

from medkit._core import check
from medkit.ops import class_index

from ._scores import STATUSES
from ._sum_accumulator import Options, SumAccumulator


class ConfusionScores(NamedTuple):
    """What a confusion matrix says, in float64.

    Attributes:
        accuracy: Share of decisions that are right; the same as micro F1.
        balanced_accuracy: Mean recall of the classes in the truth.
        macro_f1: Mean F1 of the classes that are in truth or predictions.
        weighted_f1: Mean F1 weighted by how often the truth has each class.
        mcc: Matthews correlation coefficient in [-1, 1]; 0 if truth or predictions are constant.
        kappa: Cohen's kappa; NaN if truth and predictions are the same one class throughout.
        precision: Share of the decisions for each class that are right.
        recall: Share of each class that was found.
        f1: Harmonic mean of both.
        support: How often the truth has each class.
        status: What became of each class, as in ``Scores.status``.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    weighted_f1: float
    mcc: float
    kappa: float
    precision: Float64[Tensor, " class"]
    recall: Float64[Tensor, " class"]
    f1: Float64[Tensor, " class"]
    support: Int64[Tensor, " class"]
    status: UInt8[Tensor, " class"]


def confusion_matrix(
    prediction: Shaped[Tensor, "..."],
    target: Shaped[Tensor, "..."],
    *,
    num_classes: int,
    ignore_index: int | None = None,
) -> Int64[Tensor, "class class"]:
    r"""Return how often each class of the truth (row) was taken for each class (column).

    .. math:: M_{tp} = |\{i : y_i = t, \hat y_i = p\}|

    Use it for grades, types or stages of patients, or of voxels. It takes decisions, as from
    ``logits.argmax(1)``; counts are exact to any size.

    Args:
        prediction: Classes decided for, integers of any shape.
        target: True classes, of the shape of ``prediction``.
        num_classes: Number of classes.
        ignore_index: Target that does not count, whatever is predicted there. None counts all.

    Returns:
        Counts in int64.

    Raises:
        TypeError: If classes are not integers.
        ValueError: If shapes differ or a label is no class.

    Example:
        >>> import torch
        >>> confusion_matrix(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), num_classes=2)
        tensor([[1, 1],
                [0, 2]])

    References:
        C. D. Manning, P. Raghavan, H. Schütze, "Introduction to Information Retrieval", Cambridge
        University Press 2008, section 14.3.
    """
    check.integer("num_classes", num_classes, minimum=1)
    if prediction.shape != target.shape:
        raise check.fail(
            "prediction", f"of the shape of target {tuple(target.shape)}", tuple(prediction.shape)
        )
    for name, classes in (("prediction", prediction), ("target", target)):
        if classes.is_floating_point() or classes.is_complex():
            raise TypeError(
                f"{name} must be integers, as from logits.argmax(1); got {classes.dtype}"
            )
    t, kept = class_index(
        target.reshape(-1), num_classes=num_classes, ignore_index=ignore_index, name="target"
    )
    chosen = prediction.reshape(-1)
    if kept is not None:
        t, chosen = t[kept], chosen[kept]
    p, _ = class_index(chosen, num_classes=num_classes, name="prediction")
    pair = torch.add(p, t, alpha=num_classes)
    return torch.bincount(pair, minlength=num_classes**2).view(num_classes, num_classes)


def confusion_scores(matrix: Int64[Tensor, "class class"]) -> ConfusionScores:
    r"""Return accuracy, F1, Matthews correlation, kappa and their like of a confusion matrix.

    .. math:: \mathrm{MCC} = \frac{c\,s - \sum_k p_k t_k}
                             {\sqrt{(s^2 - \sum_k p_k^2)(s^2 - \sum_k t_k^2)}}, \quad
              \kappa = \frac{c\,s - \sum_k p_k t_k}{s^2 - \sum_k p_k t_k}

    with :math:`c` right decisions of :math:`s`, and :math:`p_k`, :math:`t_k` how often class k was
    predicted and true.

    A class in neither truth nor predictions has NaN and is in no mean. A class that is never
    predicted, or never true, has 0 where a ratio is 0/0: dropping a class never improves a score.
    These are the definitions of scikit-learn with ``zero_division=0``.

    Args:
        matrix: Counts of truth (row) by prediction (column).

    Returns:
        Scores of all classes together and of each.

    Raises:
        ValueError: If the matrix is not square, or a count is negative.
        TypeError: If counts are not integers.

    Example:
        >>> import torch
        >>> scores = confusion_scores(torch.tensor([[1, 1], [0, 2]]))
        >>> scores.accuracy, scores.kappa
        (0.75, 0.5)
        >>> scores.recall
        tensor([0.5000, 1.0000], dtype=torch.float64)

    References:
        J. Gorodkin, "Comparing two K-category assignments by a K-category correlation
        coefficient", Computational Biology and Chemistry 28, 2004, equation 8. J. Cohen, "A
        Coefficient of Agreement for Nominal Scales", Educational and Psychological Measurement 20,
        1960, equation 1.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise check.fail("matrix", "square", tuple(matrix.shape))
    if matrix.is_floating_point():
        raise TypeError(f"matrix must be counts, integers; got {matrix.dtype}")
    counts = matrix.cpu()
    if (counts < 0).any():
        raise check.fail("matrix", "of zero or more", f"{int(counts.min())}")
    right, predicted, true = counts.diagonal(), counts.sum(0), counts.sum(1)
    status = torch.full_like(true, STATUSES.index("ok"), dtype=torch.uint8)
    status[(predicted == 0) & (true > 0)] = STATUSES.index("missed")
    status[(predicted > 0) & (true == 0)] = STATUSES.index("spurious")
    absent = (predicted == 0) & (true == 0)
    status[absent] = STATUSES.index("both_empty")
    precision, recall, f1 = (
        torch.where(absent, torch.nan, part.double() / whole.clamp(min=1))
        for part, whole in ((right, predicted), (right, true), (2 * right, predicted + true))
    )
    mcc, kappa = _chance_corrected(right, predicted, true)
    found, samples = true > 0, int(true.sum())
    return ConfusionScores(
        _ratio(int(right.sum()), samples),
        recall[found].mean().item(),
        f1[~absent].mean().item(),
        _ratio((f1[found] * true[found]).sum().item(), samples),
        mcc,
        kappa,
        precision,
        recall,
        f1,
        true,
        status,
    )


def _chance_corrected(right: Tensor, predicted: Tensor, true: Tensor) -> tuple[float, float]:
    """Return Matthews correlation and kappa, in whole numbers up to the last division."""
    p, t = ([int(count) for count in each] for each in (predicted, true))
    samples = sum(t)
    by_chance = sum(a * b for a, b in zip(p, t, strict=True))
    above = int(right.sum()) * samples - by_chance
    spread = [samples**2 - sum(a * a for a in each) for each in (p, t)]
    if not samples:
        return math.nan, math.nan
    mcc = above / math.sqrt(spread[0] * spread[1]) if all(spread) else 0.0
    return mcc, _ratio(above, samples**2 - by_chance)


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else math.nan


class ConfusionMatrix(SumAccumulator):
    """Confusion matrix and its scores over any number of batches.

    It keeps one integer for each pair of classes, so that results are the same bit for bit however
    samples are batched or split over processes.

    Args:
        num_classes: Number of classes.
        ignore_index: Target that does not count; None counts all.

    Example:
        >>> import torch
        >>> metric = ConfusionMatrix(2)
        >>> metric.update(torch.tensor([0, 1]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([1, 1]), torch.tensor([1, 1]))
        >>> metric.compute().accuracy
        0.75

    References:
        J. Gorodkin, "Comparing two K-category assignments by a K-category correlation
        coefficient", Computational Biology and Chemistry 28, 2004; see ``confusion_scores``.
    """

    def __init__(self, num_classes: int, *, ignore_index: int | None = None) -> None:
        super().__init__()
        self.num_classes: int = check.integer("num_classes", num_classes, minimum=1)
        self.ignore_index = ignore_index

    def update(self, prediction: Shaped[Tensor, "..."], target: Shaped[Tensor, "..."]) -> None:
        """Count a batch of decisions.

        Args:
            prediction: Classes decided for, integers of any shape.
            target: True classes, of the shape of ``prediction``.
        """
        self._add(
            confusion_matrix(
                prediction, target, num_classes=self.num_classes, ignore_index=self.ignore_index
            )
        )

    def compute(self) -> ConfusionScores:
        """Return the scores of everything seen so far.

        Raises:
            ValueError: If there was no update.
        """
        return confusion_scores(self.total)

    @property
    def options(self) -> Options:
        """What the accumulator was made with, by name."""
        return {"num_classes": self.num_classes, "ignore_index": self.ignore_index}
