"""Patience is counted from the best value, and survives a restart."""

import math

import pytest

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
