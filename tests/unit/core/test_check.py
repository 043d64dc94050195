"""Argument errors name the argument, the rule and the value."""

from collections.abc import Callable

import pytest

from medkit._core import check


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: check.one_of("reduction", "avg", ("mean", "sum")),
            "reduction must be one of 'mean', 'sum'; got 'avg'",
        ),
        (lambda: check.integer("depth", 0, minimum=1), "depth must be at least 1; got 0"),
        (lambda: check.real("smooth", float("nan")), "smooth must be finite; got nan"),
        (lambda: check.positive("spacing", 0.0), "spacing must be positive; got 0.0"),
        (lambda: check.non_negative("gamma", -1), "gamma must be zero or positive; got -1"),
        (lambda: check.fraction("dropout", 1.5), r"dropout must be in \[0, 1\]; got 1.5"),
        (
            lambda: check.fraction("overlap", 1.0, below_one=True),
            r"overlap must be in \[0, 1\); got 1.0",
        ),
        (
            lambda: check.per_axis("stride", (1, 2), 3),
            r"stride must be one value or 3, one per spatial axis; got \(1, 2\)",
        ),
    ],
)
def test_a_broken_rule_is_a_value_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()


@pytest.mark.parametrize("value", ["3", None, True, 2.5])
def test_a_wrong_kind_of_integer_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="depth must be an integer; got "):
        check.integer("depth", value)


@pytest.mark.parametrize("values", ["12", None, 3])
def test_one_number_is_not_several(values: object) -> None:
    with pytest.raises(TypeError, match="classes must be one or more integers; got "):
        check.integers("classes", values)


@pytest.mark.parametrize("value", ["3", None, True, 1j])
def test_a_wrong_kind_of_number_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="smooth must be a number; got "):
        check.real("smooth", value)


def test_a_value_of_another_kind_is_a_type_error() -> None:
    check.kind("maps", {}, (dict, list), "a mapping")
    with pytest.raises(TypeError, match=r"^maps must be a mapping; got 2$"):
        check.kind("maps", 2, dict, "a mapping")
    with pytest.raises(TypeError, match=r"^maps must be a mapping; got list$"):
        check.kind("maps", [1], dict, "a mapping")


def test_good_values_come_back() -> None:
    assert check.integer("depth", 2, minimum=1) == 2
    assert check.integers("classes", {2: 0.5, 3: 1.0}) == (2, 3)
    assert check.positive("spacing", 1) == 1.0
    assert check.non_negative("gamma", 0) == 0.0
    assert check.fraction("dropout", 1) == 1.0
    assert check.per_axis("stride", 2, 3) == (2, 2, 2)
    assert check.per_axis("stride", [1, 2, 3], 3) == (1, 2, 3)
    check.one_of("reduction", "mean", ("mean", "sum"))
