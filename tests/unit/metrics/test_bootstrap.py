"""Bootstrap intervals: loops over the same draws, SciPy's interval, patients as clusters."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from medkit.metrics import Scores, bootstrap_interval, bootstrap_statistic
from unit.losses.refusals import refuses


def scores(values: torch.Tensor) -> Scores:
    status = values.isnan().to(torch.uint8)
    return Scores(values.double(), status, tuple(range(values.shape[1])))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_limits_equal_plain_loops_over_the_same_draws() -> None:
    values = torch.rand(7, 2, generator=seeded(1)).double()
    values[2, 0], values[4] = torch.nan, torch.nan
    patients = ["a", "b", "a", "c", "d", "d", "b"]

    ours = bootstrap_interval(
        scores(values), patients=patients, num_draws=50, level=0.8, generator=seeded()
    )

    draws = torch.randint(0, 4, (50, 4), generator=seeded())
    means = []
    for draw in draws.tolist():
        rows = [values[i] for u in draw for i, p in enumerate(patients) if p == "abcd"[u]]
        columns = [[float(r[c]) for r in rows if not r[c].isnan()] for c in range(2)]
        means.append(np.mean([np.mean(column) for column in columns if column]))
    expected = np.quantile(means, [0.1, 0.9])
    assert (ours.low, ours.high) == pytest.approx(tuple(expected))
    assert ours.mean == scores(values).mean()
    assert ours.units == 4


def test_interval_is_scipy_s() -> None:
    values = torch.rand(40, 1, generator=seeded(2)) ** 2
    theirs = stats.bootstrap(
        (values[:, 0].numpy(),), np.mean, method="percentile", n_resamples=9999, rng=0
    ).confidence_interval

    ours = bootstrap_interval(scores(values), num_draws=9999, generator=seeded())

    # two samples of 9999 draws; the limits of each are known to about 0.002
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.008)


def test_alike_images_of_a_patient_are_no_evidence() -> None:
    """Every image ten times: the interval of patients stays, that of images shrinks."""
    values = torch.rand(12, 1, generator=seeded(3))
    often = values.repeat_interleave(10, dim=0)
    patients = torch.arange(12).repeat_interleave(10).tolist()

    once = bootstrap_interval(scores(values), generator=seeded())
    clustered = bootstrap_interval(scores(often), patients=patients, generator=seeded())
    naive = bootstrap_interval(scores(often), generator=seeded())

    assert clustered[:3] == pytest.approx(once[:3])
    assert naive.high - naive.low < 0.5 * (clustered.high - clustered.low)


def test_draws_without_a_value_are_counted() -> None:
    values = torch.tensor([[0.5], [torch.nan]])

    ours = bootstrap_interval(scores(values), generator=seeded())

    assert ours.low == ours.high == 0.5
    assert 150 < ours.skipped < 350
    perfect = bootstrap_interval(scores(values), empty="perfect", generator=seeded())
    assert (perfect.low, perfect.mean, perfect.high) == (0.5, 0.75, 1.0)
    nothing = bootstrap_interval(scores(values[1:]), generator=seeded())
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.low)


def test_bad_input_is_refused() -> None:
    some = scores(torch.rand(3, 1))
    with refuses("patients"):
        bootstrap_interval(some, patients=[1, 2])
    with refuses("level"):
        bootstrap_interval(some, level=1.0)
    with refuses("num_draws"):
        bootstrap_interval(some, num_draws=0)
    with refuses("scores"):
        bootstrap_interval(scores(torch.full((2, 1), math.inf)))


class TestStatistic:
    def test_mean_gives_the_interval_of_means(self) -> None:
        values = torch.rand(11, 1, generator=seeded(3)).double()
        patients = [sample // 3 for sample in range(11)]
        options = {"num_draws": 200, "level": 0.9}
        of_means = bootstrap_interval(
            scores(values), patients=patients, **options, generator=seeded()
        )

        ours = bootstrap_statistic(
            lambda i: float(values[i].mean()), patients, **options, generator=seeded()
        )

        assert ours._replace(skipped=0) == pytest.approx(of_means)
        assert ours.units == 4

    def test_is_scipy_s_interval_of_a_correlation(self) -> None:
        x = torch.randn(50, generator=seeded(4))
        pair = torch.stack([x, x + 0.5 * torch.randn(50, generator=seeded(5))]).double()
        theirs = stats.bootstrap(
            tuple(pair.numpy()),
            lambda a, b: np.corrcoef(a, b)[0, 1],
            paired=True,
            vectorized=False,
            method="percentile",
            n_resamples=4000,
            rng=0,
        ).confidence_interval

        ours = bootstrap_statistic(
            lambda i: float(torch.corrcoef(pair[:, i])[0, 1]),
            range(50),
            num_draws=4000,
            generator=seeded(),
        )

        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)

    def test_draws_without_a_value_are_counted(self) -> None:
        labels = torch.tensor([0, 0, 1])

        def share_if_both(samples: torch.Tensor) -> float:
            drawn = labels[samples]
            return float(drawn.double().mean()) if len(set(drawn.tolist())) > 1 else math.nan

        ours = bootstrap_statistic(share_if_both, "abc", num_draws=300, generator=seeded())

        assert abs(ours.skipped - 100) < 40  # (2/3)^3 + (1/3)^3 of the draws, deviation 8
        assert ours.mean == pytest.approx(1 / 3)

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="patients must be of at least one sample; got none"):
            bootstrap_statistic(float, [])
        with pytest.raises(ValueError, match=r"level must be in \(0, 1\); got 1"):
            bootstrap_statistic(float, [1], level=1.0)
        with refuses("num_draws"):
            bootstrap_statistic(float, [1], num_draws=0)


def test_patients_may_be_a_tensor() -> None:
    scores = Scores(
        torch.arange(6.0, dtype=torch.float64)[:, None], torch.zeros(6, 1, dtype=torch.uint8), (0,)
    )
    names = [1, 1, 2, 2, 3, 3]
    intervals = [
        bootstrap_interval(scores, patients=each, generator=torch.Generator().manual_seed(0))
        for each in (names, torch.tensor(names))
    ]
    assert intervals[0] == intervals[1]
    assert intervals[0].units == 3
