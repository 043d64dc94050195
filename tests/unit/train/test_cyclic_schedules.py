"""Cyclic schedules are their formulas, and torch's and Keras' own where they agree."""

import os
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.optim import SGD, lr_scheduler

from medkit.testing import assert_close
from medkit.train import OneCycle, TriangularCycles, WarmupCosineRestarts


def _optimizer(*rates: float) -> SGD:
    return SGD([{"params": [torch.zeros(1)], "lr": lr} for lr in rates], lr=1.0)


def _walk(scheduler: lr_scheduler.LRScheduler, steps: int) -> list[float]:
    rates: list[float] = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("period", "factor"), [(7, 1), (3, 2), (1, 3)])
def test_restarts_are_torchs(period: int, factor: int) -> None:
    ours = WarmupCosineRestarts(_optimizer(0.1), period, period_factor=factor, alpha=0.05)
    torchs = lr_scheduler.CosineAnnealingWarmRestarts(
        _optimizer(0.1), period, T_mult=factor, eta_min=0.005
    )

    assert_close(_walk(ours, 60), _walk(torchs, 60), rtol=1e-9)


@pytest.mark.parametrize(("factor", "peak"), [(1.0, 1.0), (2.0, 0.5), (1.5, 0.8)])
def test_restarts_are_keras(factor: float, peak: float) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    theirs = keras.optimizers.schedules.CosineDecayRestarts(
        0.1, 8, t_mul=factor, m_mul=peak, alpha=0.01
    )
    ours = WarmupCosineRestarts(
        _optimizer(0.1), 8, period_factor=factor, peak_factor=peak, alpha=0.01
    )
    edges = np.cumsum(8 * factor ** np.arange(8))  # Keras' float32 logarithm may miss them
    steps = [step for step in range(90) if np.abs(edges - step).min() > 1e-3]

    expected = [float(theirs(step)) for step in steps]

    # Keras works in float32
    assert_close([ours.lr_at(step)[0] for step in steps], expected, rtol=2e-5)


def test_restarts_are_their_closed_form_after_a_warmup() -> None:
    schedule = WarmupCosineRestarts(
        _optimizer(0.2), 4, period_factor=2, peak_factor=0.5, warmup_steps=3,
        warmup_start=0.02, alpha=0.1,
    )  # fmt: skip
    expected = [0.02 + 0.18 * t / 3 for t in range(3)]
    for cycle, length in enumerate((4, 8, 16)):
        cosine = 0.5 * (1 + np.cos(np.pi * np.arange(length) / length))
        expected += list(0.2 * (0.9 * 0.5**cycle * cosine + 0.1))

    assert_close(_walk(schedule, len(expected)), expected, rtol=1e-12)


def test_far_steps_cost_no_loop_and_stay_exact() -> None:
    schedule = WarmupCosineRestarts(_optimizer(1.0), 3)

    assert schedule.lr_at(3 * 10**15 + 1) == schedule.lr_at(1)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(("total", "rise"), [(40, 0.3), (100, 0.25), (23, 0.4)])
def test_one_cycle_is_torchs(shape: str, back: bool, total: int, rise: float) -> None:
    torchs = lr_scheduler.OneCycleLR(
        _optimizer(0.1), 0.1, total_steps=total, pct_start=rise, div_factor=20,
        final_div_factor=1e3, anneal_strategy="cos" if shape == "cosine" else "linear",
        three_phase=back, cycle_momentum=False,
    )  # fmt: skip
    ours = OneCycle(
        _optimizer(0.1), total, rise=rise, start=1 / 20, end=1 / 20e3, shape=shape, back=back
    )  # type: ignore[arg-type]

    expected = [*_walk(torchs, total - 1), torchs.get_last_lr()[0]]
    assert_close([ours.lr_at(t)[0] for t in range(total)], expected, rtol=1e-9)


def test_one_cycle_stays_at_its_end() -> None:
    schedule = OneCycle(_optimizer(0.5), 20, end=0.01)

    assert {schedule.lr_at(step)[0] for step in (20, 21, 1000)} == {0.005}
    assert schedule.lr_at(19)[0] == pytest.approx(0.005, rel=1e-12)


@pytest.mark.parametrize(("up", "down"), [(4, None), (3, 5), (1, 7)])
@pytest.mark.parametrize(("mode", "factor"), [("triangular", 1.0), ("triangular2", 0.5)])
def test_triangles_are_torchs(up: int, down: int | None, mode: str, factor: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchs = lr_scheduler.CyclicLR(
            _optimizer(0.1), 0.02, 0.1, step_size_up=up, step_size_down=down, mode=mode,
            cycle_momentum=False,
        )  # type: ignore[arg-type]  # fmt: skip
    ours = TriangularCycles(_optimizer(0.1), up, down_steps=down, low=0.2, peak_factor=factor)

    assert_close(_walk(ours, 50), _walk(torchs, 50), rtol=1e-9)


CYCLIC: list[Callable[[SGD], WarmupCosineRestarts | OneCycle | TriangularCycles]] = [
    lambda o: WarmupCosineRestarts(o, 5, period_factor=1.5, peak_factor=0.9, warmup_steps=2),
    lambda o: OneCycle(o, 30),
    lambda o: TriangularCycles(o, 4, down_steps=7, peak_factor=0.5),
]


@pytest.mark.parametrize("make", CYCLIC)
def test_resume_needs_one_integer(make: Callable[[SGD], OneCycle]) -> None:
    whole = make(_optimizer(0.1, 0.3))
    _walk(whole, 17)

    resumed = make(_optimizer(0.1, 0.3))
    resumed.load_state_dict({"last_epoch": 17})

    assert whole.state_dict() == resumed.state_dict()
    assert whole.state_dict()["last_epoch"] == 17
    assert [g["lr"] for g in resumed.optimizer.param_groups] == whole.get_last_lr()
    assert _walk(resumed, 20) == _walk(whole, 20)


@pytest.mark.parametrize("make", CYCLIC)
def test_every_group_has_its_own_peak(make: Callable[[SGD], OneCycle]) -> None:
    schedule = make(_optimizer(0.1, 0.02))

    for step in range(40):
        first, second = schedule.lr_at(step)
        assert second == pytest.approx(first / 5, rel=1e-12)


@pytest.mark.usefixtures("unhooked")
def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"period_factor must be at least 1; got 0\.5"):
        WarmupCosineRestarts(_optimizer(0.1), 5, period_factor=0.5)
    with pytest.raises(ValueError, match=r"period must be at least 1; got 0"):
        WarmupCosineRestarts(_optimizer(0.1), 0)
    with pytest.raises(ValueError, match=r"every piece of the cycle has a step; got 0\.1"):
        OneCycle(_optimizer(0.1), 5, rise=0.1)
    with pytest.raises(ValueError, match=r"every piece of the cycle has a step; got 0\.6"):
        OneCycle(_optimizer(0.1), 50, rise=0.6, back=True)
    with pytest.raises(ValueError, match=r"shape must be one of 'cosine', 'linear'; got 'step'"):
        OneCycle(_optimizer(0.1), 50, shape="step")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"low must be in \[0, 1\]; got 2"):
        TriangularCycles(_optimizer(0.1), 5, low=2)
