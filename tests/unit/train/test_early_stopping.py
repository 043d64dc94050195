"""Patience is counted from the best value, and survives a restart."""

import math

import pytest
import torch
from torch import nn

from medkit.train import EarlyStopping


def _first_stop(stopping: EarlyStopping, values: list[float]) -> int | None:
    return next((i for i, value in enumerate(values) if stopping.update(value)), None)


@pytest.mark.parametrize(
    ("mode", "min_delta", "values", "expected"),
    [
        ("min", 0.0, [3.0, 2.0, 2.0, 2.0, 1.0], 3),
        ("max", 0.0, [0.1, 0.3, 0.2, 0.3, 0.9], 3),
        ("min", 0.5, [3.0, 2.6, 2.55, 2.4], 2),
        ("min", 0.0, [3.0, 2.0, 1.0, 0.5], None),
        ("max", 0.0, [math.nan, 0.5, math.nan, math.nan], 3),
        ("min", 0.0, [math.nan, math.nan], 1),
    ],
)
def test_it_stops_after_two_values_without_improvement(
    mode: str, min_delta: float, values: list[float], expected: int | None
) -> None:
    stopping = EarlyStopping(2, mode=mode, min_delta=min_delta)  # type: ignore[arg-type]

    assert _first_stop(stopping, values) == expected


def test_a_state_goes_on_counting() -> None:
    first, second = EarlyStopping(3), EarlyStopping(3)
    first.update(1.0)
    first.update(2.0)

    second.load_state_dict(first.state_dict())

    assert (second.best, second.num_bad) == (1.0, 1)
    assert _first_stop(second, [1.5, 1.5]) == 1
    assert second.stopped


@pytest.mark.usefixtures("unhooked")
def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="patience must be at least 1; got 0"):
        EarlyStopping(0)
    with pytest.raises(ValueError, match="mode must be one of 'min', 'max'; got 'best'"):
        EarlyStopping(2, mode="best")  # type: ignore[arg-type]


def _walk(stopping: EarlyStopping, model: nn.Module, losses: list[float]) -> None:
    """Let weights and statistics take the value of the loss."""
    for loss in losses:
        for tensor in model.state_dict().values():
            tensor.fill_(loss)
        stopping.update(loss)


def test_the_best_weights_and_buffers_come_back() -> None:
    model = nn.BatchNorm1d(2)
    stopping = EarlyStopping(5, model=model)
    _walk(stopping, model, [4.0, 2.0, 3.0])

    stopping.restore()

    assert all((tensor == 2).all() for tensor in model.state_dict().values())


def test_the_best_weights_survive_a_restart() -> None:
    model, resumed = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    first, second = EarlyStopping(5, model=model), EarlyStopping(5, model=resumed)
    _walk(first, model, [2.0, 3.0])
    second.load_state_dict(first.state_dict())
    _walk(first, model, [1.0])
    _walk(second, resumed, [4.0])

    second.restore()

    assert all((tensor == 2).all() for tensor in resumed.state_dict().values())


def test_without_an_improvement_the_model_stays() -> None:
    model = nn.Linear(1, 1)
    before = model.weight.clone()
    stopping = EarlyStopping(5, model=model)
    stopping.update(math.nan)

    stopping.restore()

    assert torch.equal(model.weight, before)


def test_nothing_to_restore_is_an_error() -> None:
    with pytest.raises(ValueError, match="model must be given to restore its best weights"):
        EarlyStopping(5).restore()
