"""Every public accumulator of metrics obeys every law, and MONAI's dropped miss breaks one."""

from collections.abc import Callable

import pytest
import torch

import medkit.metrics
from medkit.metrics import (
    Auroc,
    Calibration,
    ConfusionMatrix,
    LayerBoundaryErrors,
    SurfaceDetectionScore,
)
from medkit.testing import metric_laws, metric_report

STRUCTURES: dict[str, dict[str, object]] = {
    "AverageSurfaceDistance": {},
    "BettiZeroError": {},
    "ClDiceScore": {},
    "DiceScore": {},
    "EulerNumberError": {},
    "HausdorffDistance": {},
    "IoUScore": {},
    "PrecisionScore": {},
    "RecallScore": {},
    "SurfaceDice": {"tolerance": 1.0},
    "VariationOfInformation": {},
}
Sample = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]


def classes(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randint(0, 3, (2, 5), generator=generator))


def probabilities(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(5, 3, generator=generator).softmax(1), torch.tensor([0, 1, 2, 1, 0])


def surfaces(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.zeros(5, 9, 9, 9, dtype=torch.int64)
    target[:4, 4] = 1
    target[:, :, :2] = 2
    return torch.where(torch.rand(target.shape, generator=generator) < 0.1, 1, target % 2), target


def rows(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.rand(5, 2, 9, generator=generator) * 50
    target[1, :, 3] = torch.nan
    return target + torch.randn(target.shape, generator=generator), target


OTHERS: dict[str, tuple[Callable[[], object], Sample]] = {
    "Auroc": (lambda: Auroc(3), probabilities),
    "Calibration": (Calibration, probabilities),
    "ConfusionMatrix": (lambda: ConfusionMatrix(3), classes),
    "LayerBoundaryErrors": (
        lambda: LayerBoundaryErrors(missing="penalize", height=99.0),
        lambda generator: rows(generator),
    ),
    "SurfaceDetectionScore": (SurfaceDetectionScore, surfaces),
}


def accumulators() -> set[str]:
    """Every public class that can be updated and merged."""
    public = {name: getattr(medkit.metrics, name) for name in medkit.metrics.__all__}
    return {n for n, c in public.items() if hasattr(c, "update") and hasattr(c, "merge")}


@pytest.mark.parametrize("law", metric_laws())
@pytest.mark.parametrize("name", sorted({*STRUCTURES, *OTHERS}))
def test_law(name: str, law: str) -> None:
    if name == "ClDiceScore":
        pytest.importorskip("skimage")
    kind = getattr(medkit.metrics, name)
    if name in OTHERS:
        factory, sample = OTHERS[name]
    else:
        factory, sample = lambda: kind(3, include_background=False, **STRUCTURES[name]), None

    report = metric_report(factory, sample=sample, laws=[law])

    report.raise_if_violated()


def test_every_public_accumulator_is_held_to_the_laws() -> None:
    assert accumulators() == {*STRUCTURES, *OTHERS}


class OfMonai:
    """A metric of MONAI with the methods that the laws call."""

    def __init__(self, metric: object, perfect: float) -> None:
        self.metric, self.perfect = metric, perfect

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        masks = [torch.nn.functional.one_hot(e, 3).movedim(-1, 1) for e in (prediction, target)]
        self.metric(*masks)

    def compute(self) -> "OfMonai":
        return self

    def mean(self) -> float:
        return self.metric.aggregate().item()

    def merge(self, other: object) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        self.metric.reset()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*NaN:UserWarning")
@pytest.mark.filterwarnings("ignore:.*may result in nan/inf distance:UserWarning")
def test_monai_s_dropped_miss_is_found() -> None:
    """The 95th percentile of a missed structure is NaN, and its mean leaves it out."""
    monai = pytest.importorskip("monai.metrics")

    def factory() -> OfMonai:
        return OfMonai(monai.HausdorffDistanceMetric(percentile=95), perfect=0.0)

    report = metric_report(factory, laws=["missing_never_improves", "truth_is_perfect"])

    assert set(report.violations) == {"missing_never_improves"}


def test_monai_s_free_invention_is_found() -> None:
    """Its Dice leaves out what is predicted where there is nothing."""
    monai = pytest.importorskip("monai.metrics")

    def factory() -> OfMonai:
        return OfMonai(monai.DiceMetric(include_background=False), perfect=1.0)

    report = metric_report(factory, laws=["inventing_costs", "truth_is_perfect"])

    assert set(report.violations) == {"inventing_costs"}


class Dropping(medkit.metrics.DiceScore):
    """A Dice score that leaves misses out."""

    def compute(self) -> medkit.metrics.Scores:
        scores = super().compute()
        scores.values[scores.is_status("missed")] = torch.nan
        return scores


class OfBatches(ConfusionMatrix):
    """A mean of the accuracies of batches, of which a reset does not know."""

    def __init__(self) -> None:
        super().__init__(3)
        self.accuracies: list[float] = []

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        self.accuracies.append((prediction == target).double().mean().item())

    def compute(self) -> float:
        return sum(self.accuracies) / len(self.accuracies)

    def merge(self, other: "OfBatches") -> None:
        self.accuracies += other.accuracies


def test_a_metric_that_drops_misses_is_found() -> None:
    report = metric_report(lambda: Dropping(3, include_background=False))

    assert set(report.violations) == {"missing_never_improves", "values_have_a_status"}


def test_a_mean_of_batch_means_is_found() -> None:
    def decisions(_: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([0, 1, 2, 0, 0]), torch.tensor([0, 1, 0, 0, 1])

    report = metric_report(OfBatches, sample=decisions)

    assert {"batching_changes_nothing", "reset_forgets"} <= set(report.violations)
    assert "missing_never_improves" in report.not_applicable
