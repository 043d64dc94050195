"""Area under the receiver operating characteristic."""

from collections.abc import Iterable
from itertools import combinations
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from medkit._core import check

MultiClass = Literal["ovr", "ovo"]
Average = Literal["macro", "weighted"]
AurocStatus = Literal["ok", "no_positives", "no_negatives"]

POLICY = "{kind} mean of the areas of {what}; those without samples on both sides are left out"


class AurocResult(NamedTuple):
    """Area under the curve, of all classes together and of each.

    Attributes:
        mean: Mean over classes, or over pairs of classes; NaN if no area is defined.
        per_class: Area of each class against all others; NaN where all samples, or none, are of it.
        support: Number of samples of each class.
        status: Of each class, whether it has an area, "ok", or why not: no sample is of it,
            "no_positives", or all are, "no_negatives".
        policy: What ``mean`` is the mean of.
    """

    mean: float
    per_class: Float64[Tensor, " class"]
    support: Int64[Tensor, " class"]
    status: tuple[AurocStatus, ...]
    policy: str


def auroc(
    input: Float[Tensor, "sample class"],
    target: Int[Tensor, " sample"],
    *,
    multi_class: MultiClass = "ovr",
    average: Average = "macro",
) -> AurocResult:
    r"""Return the area under the receiver operating characteristic, by ranks.

    .. math:: A = \frac{\sum_{i \in \mathrm{pos}} r_i - \tfrac12 n_+ (n_+ + 1)}{n_+\, n_-}

    where :math:`r_i` is the rank of a score among all, ties sharing their mean rank: the chance
    that a sample of the class scores above one that is not. Use it to judge a score before a
    threshold is chosen. Scores may have any scale; for two classes both areas are the same if the
    scores add up to one.

    A class with no sample, or with all of them, has no area: NaN, and it is in no mean. The values
    are those of scikit-learn, exact in float64.

    Args:
        input: Score of each class, probabilities or logits, higher for more likely.
        target: True class of each sample.
        multi_class: Each class against all others, "ovr", or each pair of classes among the
            samples of those two, both ways, "ovo", which does not depend on how frequent they are.
        average: Every class or pair counts the same, "macro", or as many times as it has samples,
            "weighted".

    Returns:
        The mean and the area of each class.

    Raises:
        ValueError: If a label is no class, a score is NaN, an option is unknown, or shapes do not
            fit.

    Example:
        >>> import torch
        >>> risk = torch.tensor([0.1, 0.4, 0.35, 0.8])
        >>> auroc(torch.stack([1 - risk, risk], 1), torch.tensor([0, 0, 1, 1])).mean
        0.75

    References:
        J. A. Hanley, B. J. McNeil, "The Meaning and Use of the Area under a Receiver Operating
        Characteristic (ROC) Curve", Radiology 143, 1982. D. J. Hand, R. J. Till, "A Simple
        Generalisation of the Area Under the ROC Curve for Multiple Class Classification Problems",
        Machine Learning 45, 2001, equation 7 ("ovo").
    """
    check.one_of("multi_class", multi_class, ("ovr", "ovo"))
    check.one_of("average", average, ("macro", "weighted"))
    scores, labels = _checked(input, target)
    classes = range(scores.shape[1])
    support = torch.bincount(labels, minlength=len(classes))
    per_class = [_area(scores[:, c], labels == c) for c in classes]
    if multi_class == "ovr":
        areas, weights = per_class, [int(count) for count in support]
    else:
        pairs = list(combinations(classes, 2))
        areas = [_pair_area(scores, labels, *pair) for pair in pairs]
        weights = [int(support[a] + support[b]) for a, b in pairs]
    mean = _mean(areas, weights if average == "weighted" else [1] * len(areas))
    what = "classes against the rest" if multi_class == "ovr" else "pairs of classes"
    return AurocResult(
        mean,
        torch.tensor(per_class, dtype=torch.float64),
        support,
        tuple(_status(int(count), len(labels)) for count in support),
        POLICY.format(kind=average, what=what),
    )


def _status(count: int, samples: int) -> AurocStatus:
    if not count:
        return "no_positives"
    return "no_negatives" if count == samples else "ok"


def _checked(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if input.ndim != 2 or target.ndim != 1:
        rule = (
            "(sample, class) beside target (sample,); of one risk take stack([1 - risk, risk], 1)"
        )
        raise check.fail("input", rule, f"shapes {tuple(input.shape)} and {tuple(target.shape)}")
    if input.shape[0] != target.shape[0]:
        raise check.fail("target", f"of {input.shape[0]} samples, as input", target.shape[0])
    if input.isnan().any():
        raise check.fail("input", "without NaN", "NaN")
    classes = input.shape[1]
    if len(target) and not (int(target.min()) >= 0 and int(target.max()) < classes):
        raise check.fail(
            "target", f"in 0 to {classes - 1}", f"{int(target.min())} to {int(target.max())}"
        )
    return input.detach().cpu(), target.detach().cpu().long()


def _area(scores: Tensor, positive: Tensor) -> float:
    """Return the area of one score; NaN without positive or without negative samples."""
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return torch.nan
    ordered = scores.sort().values.contiguous()
    below, up_to = (
        torch.searchsorted(ordered, scores.contiguous(), right=right) for right in (False, True)
    )
    # twice the mean rank of each score, a whole number
    ranks = below + up_to + 1
    above = int(ranks[positive].sum()) - count * (count + 1)
    return above / (2 * count * others)


def _pair_area(scores: Tensor, labels: Tensor, first: int, second: int) -> float:
    """Return the mean area of two classes among the samples of both."""
    among = (labels == first) | (labels == second)
    areas = [_area(scores[among, c], labels[among] == c) for c in (first, second)]
    return sum(areas) / 2


def _mean(areas: Iterable[float], weights: Iterable[int]) -> float:
    """Return the weighted mean of the areas that are defined."""
    pairs = [(a, w) for a, w in zip(areas, weights, strict=True) if a == a]
    total = sum(w for _, w in pairs)
    return sum(a * w for a, w in pairs) / total if total else torch.nan


class Auroc:
    """Area under the receiver operating characteristic over any number of batches.

    It keeps every score, since ranks need them all; results do not depend on how samples are
    batched, ordered or split over processes.

    Args:
        num_classes: Number of classes.
        multi_class: Each class against all others, "ovr", or each pair of classes, "ovo".
        average: Mean over classes or pairs, "macro" or "weighted" by their samples.

    Example:
        >>> import torch
        >>> metric = Auroc(2)
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.6, 0.4]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[0.65, 0.35], [0.2, 0.8]]), torch.tensor([1, 1]))
        >>> metric.compute().mean
        0.75

    References:
        J. A. Hanley, B. J. McNeil, "The Meaning and Use of the Area under a Receiver Operating
        Characteristic (ROC) Curve", Radiology 143, 1982; see ``auroc``.
    """

    def __init__(
        self, num_classes: int, *, multi_class: MultiClass = "ovr", average: Average = "macro"
    ) -> None:
        self.num_classes: int = check.integer("num_classes", num_classes, minimum=2)
        check.one_of("multi_class", multi_class, ("ovr", "ovo"))
        check.one_of("average", average, ("macro", "weighted"))
        self.multi_class: MultiClass = multi_class
        self.average: Average = average
        self._samples: list[tuple[Tensor, Tensor]] = []

    def update(self, input: Float[Tensor, "sample class"], target: Int[Tensor, " sample"]) -> None:
        """Keep a batch of samples.

        Args:
            input: Score of each class.
            target: True class of each sample.
        """
        if input.shape[1] != self.num_classes:
            raise check.fail("input", f"of {self.num_classes} classes", tuple(input.shape))
        self._samples.append(_checked(input, target))

    def compute(self) -> AurocResult:
        """Return the areas of everything seen so far.

        Raises:
            ValueError: If there was no update.
        """
        if not self._samples:
            raise check.fail("Auroc", "updated before compute()", "no samples")
        scores, labels = (torch.cat(each) for each in zip(*self._samples, strict=True))
        return auroc(scores, labels, multi_class=self.multi_class, average=self.average)

    def merge(self, other: "Auroc") -> None:
        """Add the samples of another accumulator, for instance that of another process.

        Args:
            other: One of the same options; it is left as it is.

        Raises:
            TypeError: If ``other`` is of another kind.
            ValueError: If its options differ.
        """
        if not isinstance(other, Auroc):
            raise TypeError(f"other must be an Auroc; got {other!r}")
        if other.options != self.options:
            raise check.fail("other", f"made with {self.options}", f"{other.options}")
        self._samples += other.samples

    def reset(self) -> None:
        """Forget all samples."""
        self._samples.clear()

    @property
    def samples(self) -> list[tuple[Tensor, Tensor]]:
        """Scores and classes of each batch seen so far."""
        return list(self._samples)

    @property
    def options(self) -> dict[str, object]:
        """What the accumulator was made with, by name."""
        return {
            "num_classes": self.num_classes,
            "multi_class": self.multi_class,
            "average": self.average,
        }
