"""The laws of metrics: a miss never pays, and no batching changes a bit."""

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from medkit.metrics import Scores

from ._contract import Law, NotApplicable, Violation

CASES, CLASSES = 5, 3
Batch = tuple[Tensor, Tensor]


class Metric(Protocol):
    """What is held to the laws: an accumulator of cases."""

    def update(self, prediction: Tensor, target: Tensor, /) -> None:
        """Take a batch of cases."""
        ...

    def compute(self) -> object:
        """Return what became of all cases; with ``mean()`` if structures are scored."""
        ...


def segmentations(generator: torch.Generator) -> Batch:
    """Return class maps of structures of some voxels that are found, but not exactly."""
    target = torch.zeros(CASES, 16, 16, dtype=torch.int64)
    prediction = torch.zeros_like(target)
    for case in range(CASES):
        for c in range(1, CLASSES):
            top = int(torch.randint(1, 3, (), generator=generator)) + 7 * (c - 1)
            left = int(torch.randint(1, 6, (), generator=generator))
            target[case, top : top + 4, left : left + 6] = c
            prediction[case, top : top + 4, left + 1 : left + 6 + (case + c) % 3] = c
    return prediction, target


@dataclass(frozen=True)
class MetricSubject:
    """A metric and the cases it is tried on."""

    factory: Callable[[], Metric]
    sample: Callable[[torch.Generator], Batch] | None

    def batch(self) -> Batch:
        """Return the same cases at each call."""
        return (self.sample or segmentations)(torch.Generator().manual_seed(0))

    def result(self, *batches: Batch) -> object:
        """Return the result of a new metric after some batches."""
        metric = self.factory()
        for prediction, target in batches:
            metric.update(prediction, target)
        return metric.compute()

    def structures(self) -> Batch:
        """Return class maps; a metric with a sample of its own does not score structures."""
        if self.sample is not None:
            raise NotApplicable("it has a sample of its own, so it need not score structures")
        return self.batch()

    def loss(self, batch: Batch) -> float:
        """Return how much worse than perfect the mean is; not a number if there is none."""
        result = cast("Scores", self.result(batch))
        perfect = float(getattr(result, "perfect", 1.0))
        return abs(perfect - result.mean())


def _missing(subject: MetricSubject) -> None:
    prediction, target = subject.structures()
    before = subject.loss((prediction, target))
    for case, c in itertools.product(range(CASES), range(1, CLASSES)):
        fewer = prediction.clone()
        fewer[case][fewer[case] == c] = 0
        after = subject.loss((fewer, target))
        if not after >= before:
            raise Violation(
                f"the mean is {before:.4g} from perfect, and {after:.4g} once class {c} of case "
                f"{case} is not predicted at all"
            )


def _inventing(subject: MetricSubject) -> None:
    prediction, target = subject.structures()
    target[0][target[0] == 1] = 0
    prediction[0][prediction[0] == 1] = 0
    invented = prediction.clone()
    invented[0, 2:5, 2:5] = 1
    before, after = (subject.loss((each, target)) for each in (prediction, invented))
    if not after > before:
        raise Violation(
            f"the mean is {before:.4g} from perfect, and {after:.4g} with an invented structure"
        )


def _truth(subject: MetricSubject) -> None:
    _, target = subject.structures()
    distance = subject.loss((target, target))
    if distance:
        raise Violation(f"the truth itself is {distance:.4g} from perfect")


def _status(subject: MetricSubject) -> None:
    prediction, target = subject.structures()
    prediction[0][prediction[0] == 1] = 0
    target[1][target[1] == 2] = 0
    prediction[2][prediction[2] == 1], target[2][target[2] == 1] = 0, 0
    scores = subject.result((prediction, target))
    if not isinstance(scores, Scores):
        raise Violation(f"compute() returns a {type(scores).__name__} without statuses")
    for column, c in enumerate(scores.classes):
        for case in range(CASES):
            there, found = bool((target[case] == c).any()), bool((prediction[case] == c).any())
            expected = {(1, 1): 0, (0, 0): 1, (1, 0): 2, (0, 1): 3}[int(there), int(found)]
            seen, value = int(scores.status[case, column]), float(scores.values[case, column])
            if seen != expected:
                raise Violation(f"status {seen} and not {expected}, case {case}, class {c}")
            if math.isnan(value) != (expected == 1):
                raise Violation(f"value {value} at status {seen}, case {case}, class {c}")


def _batching(subject: MetricSubject) -> None:
    prediction, target = subject.batch()
    whole = subject.result((prediction, target))
    singly = [slice(case, case + 1) for case in range(len(target))]
    unevenly = [slice(0, 1), slice(1, None)]  # a mean of the means of batches shows here alone
    for pieces, how in ((singly, "cases one by one"), (unevenly, "batches of unequal size")):
        parts = subject.result(*((prediction[piece], target[piece]) for piece in pieces))
        _same(whole, parts, how)


def _merging(subject: MetricSubject) -> None:
    prediction, target = subject.batch()
    parts = [cast("_Mergeable", subject.factory()) for _ in range(3)]
    for part, piece in zip(parts, (slice(0, 2), slice(2, 2), slice(2, None)), strict=True):
        if piece.start != piece.stop:
            part.update(prediction[piece], target[piece])
    for other in parts[1:]:
        parts[0].merge(cast("_Mergeable", pickle.loads(pickle.dumps(other))))  # noqa: S301  ours
    _same(subject.result((prediction, target)), parts[0].compute(), "cases split over processes")


def _reset(subject: MetricSubject) -> None:
    prediction, target = subject.batch()
    metric = cast("_Mergeable", subject.factory())
    metric.update(prediction.flip(0), target)
    metric.reset()
    metric.update(prediction, target)
    _same(subject.result((prediction, target)), metric.compute(), "a metric that was reset")


def _inputs(subject: MetricSubject) -> None:
    given = subject.batch()
    kept = copy.deepcopy(given)
    subject.result(given)
    if not all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(given, kept, strict=True)
    ):
        raise Violation("update() changes its inputs")


class _Mergeable(Metric, Protocol):
    def merge(self, other: object, /) -> None: ...
    def reset(self) -> None: ...


def _same(expected: object, seen: object, where: str) -> None:
    if not _equal(expected, seen):
        raise Violation(f"{where}: {seen!r}, and not {expected!r}")


def _equal(first: object, second: object) -> bool:
    """Return whether two results are the same bit for bit; NaN equals NaN."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and torch.equal(
            first.nan_to_num(-1e300), second.nan_to_num(-1e300)
        )
    if is_dataclass(first):
        names = [field.name for field in fields(first)]
        return all(_equal(getattr(first, n), getattr(second, n, None)) for n in names)
    if isinstance(first, tuple) and isinstance(second, tuple):
        ours, theirs = cast("tuple[object, ...]", first), cast("tuple[object, ...]", second)
        return len(ours) == len(theirs) and all(map(_equal, ours, theirs))
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return bool(first == second)


LAWS: tuple[Law[MetricSubject], ...] = (
    Law("missing_never_improves", "No mean improves when a structure is given up.", _missing),
    Law("inventing_costs", "An invented structure makes the mean worse.", _inventing),
    Law("truth_is_perfect", "The truth itself has the best value.", _truth),
    Law("values_have_a_status", "Every value says what became of the structure.", _status),
    Law("batching_changes_nothing", "No batching of the cases changes a bit.", _batching),
    Law("merging_changes_nothing", "No split over processes changes a bit.", _merging),
    Law("reset_forgets", "After a reset nothing of earlier cases is left.", _reset),
    Law("inputs_are_kept", "An update leaves its inputs as they are.", _inputs),
)
