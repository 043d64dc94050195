"""Schedules equal their closed forms, Keras' numbers and torch's own where they agree."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD, AdamW, lr_scheduler

from medkit.testing import assert_close
from medkit.train import WarmupCosine, WarmupPoly, scaled_lr

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "golden" / "lr_schedule" / "lr_schedule.json").read_text()
)


def _optimizer(*rates: float) -> SGD:
    return SGD([{"params": [torch.zeros(1)], "lr": lr} for lr in rates], lr=1.0)


def _walk(scheduler: lr_scheduler.LRScheduler, steps: int) -> list[float]:
    rates: list[float] = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("batch", GOLDEN)
def test_cosine_with_warmup_is_keras_cosine_decay(batch: str) -> None:
    golden = GOLDEN[batch]
    schedule = WarmupCosine(
        _optimizer(scaled_lr(int(batch))),
        golden["total"],
        warmup_steps=golden["warmup"],
        warmup_start=1e-6,
        alpha=0.1,
    )

    ours = [schedule.lr_at(step)[0] for step in golden["steps"]]

    assert_close(ours, golden["lr"], rtol=1e-6)


@pytest.mark.parametrize("batch", GOLDEN)
def test_scaled_lr_is_the_pipelines_peak(batch: str) -> None:
    assert scaled_lr(int(batch)) == pytest.approx(GOLDEN[batch]["target"], rel=1e-12)


def test_scaled_lr_takes_another_rule() -> None:
    assert scaled_lr(64, base=0.1, reference=256, cap=1.0) == pytest.approx(0.025, rel=1e-12)


@pytest.mark.parametrize(("warmup", "start"), [(0, 0.0), (1, 0.0), (7, 1e-4), (7, 0.5)])
def test_poly_is_its_closed_form(warmup: int, start: float) -> None:
    total, lr, power, floor = 40, 0.3, 0.9, 1e-2
    t = np.arange(total + 20, dtype=np.float64)
    u = np.clip((t - warmup) / (total - warmup), 0, 1)
    expected = np.maximum(floor, lr * (1 - u) ** power)
    rising = t < warmup
    expected[rising] = start + (lr - start) * t[rising] / max(warmup, 1)

    schedule = WarmupPoly(
        _optimizer(lr), total, warmup_steps=warmup, warmup_start=start, power=power, min_lr=floor
    )

    assert_close(_walk(schedule, total + 20), expected, rtol=1e-12)


def test_poly_without_warmup_is_torchs() -> None:
    ours = _walk(WarmupPoly(_optimizer(0.1), 20, power=0.9), 30)
    torchs = _walk(lr_scheduler.PolynomialLR(_optimizer(0.1), total_iters=20, power=0.9), 30)

    assert_close(ours, torchs, rtol=1e-9, atol=1e-12)


def test_cosine_without_warmup_is_torchs() -> None:
    ours = _walk(WarmupCosine(_optimizer(0.1), 20, alpha=0.05), 21)
    torchs = _walk(lr_scheduler.CosineAnnealingLR(_optimizer(0.1), 20, eta_min=0.005), 21)

    assert_close(ours, torchs, rtol=1e-9)


def test_warmup_then_cosine_is_torchs_sequence() -> None:
    optimizer = _optimizer(0.1)
    parts = [
        lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=5),
        lr_scheduler.CosineAnnealingLR(optimizer, 15),
    ]
    torchs = _walk(lr_scheduler.SequentialLR(optimizer, parts, milestones=[5]), 20)

    ours = _walk(WarmupCosine(_optimizer(0.1), 20, warmup_steps=5, warmup_start=0.01), 20)

    assert_close(ours, torchs, rtol=1e-9)


@pytest.mark.parametrize("kind", [WarmupCosine, WarmupPoly])
def test_rates_stay_where_they_ended(kind: type[WarmupCosine] | type[WarmupPoly]) -> None:
    schedule = kind(_optimizer(0.1), 10, warmup_steps=2)

    assert {schedule.lr_at(step)[0] for step in (10, 11, 15, 20, 1000)} == {0.0}


@pytest.mark.parametrize("kind", [WarmupCosine, WarmupPoly])
def test_every_group_has_its_own_peak(kind: type[WarmupCosine] | type[WarmupPoly]) -> None:
    schedule = kind(_optimizer(0.1, 0.02), 10, warmup_steps=2)

    assert schedule.lr_at(2) == [0.1, 0.02]
    assert schedule.lr_at(1) == [0.05, 0.01]


@pytest.mark.parametrize("kind", [WarmupCosine, WarmupPoly])
def test_resume_needs_one_integer(kind: type[WarmupCosine] | type[WarmupPoly]) -> None:
    whole = kind(_optimizer(0.1, 0.3), 30, warmup_steps=4)
    _walk(whole, 17)

    resumed = kind(_optimizer(0.1, 0.3), 30, warmup_steps=4)
    resumed.load_state_dict({"last_epoch": 17})

    assert whole.state_dict() == resumed.state_dict()
    assert whole.state_dict()["last_epoch"] == 17
    assert [g["lr"] for g in resumed.optimizer.param_groups] == whole.get_last_lr()
    assert resumed.get_last_lr() == whole.get_last_lr()
    assert _walk(resumed, 20) == _walk(whole, 20)


def test_resume_into_an_optimizer_loaded_before_keeps_the_peak() -> None:
    whole = WarmupCosine(_optimizer(0.1), 30)
    _walk(whole, 17)
    optimizer = _optimizer(0.1)
    optimizer.load_state_dict(whole.optimizer.state_dict())

    resumed = WarmupCosine(optimizer, 30)
    resumed.load_state_dict(whole.state_dict())

    assert resumed.lr_at(0) == [0.1]
    assert _walk(resumed, 5) == _walk(whole, 5)


def test_a_rate_held_in_a_tensor_stays_in_that_tensor() -> None:
    rate = torch.tensor(0.1, dtype=torch.float64)
    schedule = WarmupCosine(AdamW([torch.zeros(1)], lr=rate), 10)

    schedule.load_state_dict({"last_epoch": 5})

    held = schedule.optimizer.param_groups[0]["lr"]
    assert held is rate
    assert held.item() == pytest.approx(0.05)


@pytest.mark.parametrize("kind", [WarmupCosine, WarmupPoly])
def test_warmup_must_end_before_the_schedule(
    kind: type[WarmupCosine] | type[WarmupPoly],
) -> None:
    with pytest.raises(ValueError, match=r"warmup_steps must be below total_steps \(5\); got 10"):
        kind(_optimizer(0.1), 5, warmup_steps=10)


@pytest.mark.usefixtures("unhooked")
def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\]; got 2"):
        WarmupCosine(_optimizer(0.1), 5, alpha=2)
    with pytest.raises(ValueError, match="power must be positive; got 0"):
        WarmupPoly(_optimizer(0.1), 5, power=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        scaled_lr(0)
    with pytest.raises(ValueError, match="last_epoch must be at least 0; got -1"):
        WarmupCosine(_optimizer(0.1), 5).load_state_dict({"last_epoch": -1})


def test_steps_past_the_end_are_real_numbers() -> None:
    schedule = WarmupPoly(_optimizer(0.1), 3, power=0.9)

    assert all(isinstance(lr, float) and math.isfinite(lr) for lr in _walk(schedule, 10))


@pytest.mark.parametrize(
    ("make", "changed"),
    [
        (lambda o: WarmupCosine(o, 40), "total_steps 40, was 20"),
        (lambda o: WarmupCosine(o, 20, warmup_steps=3), "warmup_steps 3, was 0"),
        (lambda o: WarmupCosine(o, 20, alpha=0.5), "alpha 0.5, was 0.0"),
    ],
)
def test_a_run_made_longer_says_that_its_rates_change(
    make: Callable[[SGD], WarmupCosine], changed: str
) -> None:
    state = WarmupCosine(_optimizer(0.1), 20).state_dict()
    longer = make(_optimizer(0.1))

    with pytest.warns(RuntimeWarning, match=f"goes on with other options .*: {changed}$"):
        longer.load_state_dict(state)

    assert longer.state_dict()["options"] != state["options"]


def test_a_run_with_another_peak_says_so() -> None:
    state = WarmupPoly(_optimizer(0.1), 20).state_dict()

    with pytest.warns(RuntimeWarning, match=r"lr \[0.2\], was \[0.1\]$"):
        WarmupPoly(_optimizer(0.2), 20).load_state_dict(state)
