"""Argument checks with one wording: the argument, the rule, the value.

Every function raises ``ValueError`` or ``TypeError`` with the message
``<name> must be <rule>; got <value>``.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from numbers import Integral, Real
from typing import TypeVar, cast

Scalar = TypeVar("Scalar", int, float)


def fail(name: str, rule: str, got: object) -> ValueError:
    """Return the ``ValueError`` for a value that breaks a rule, ready to be raised."""
    return ValueError(f"{name} must be {rule}; got {got if isinstance(got, str) else repr(got)}")


def kind(name: str, value: object, kinds: type | tuple[type, ...], rule: str) -> None:
    """Raise a ``TypeError`` unless ``value`` is of one of the kinds; ``rule`` says which."""
    if not isinstance(value, kinds):
        got = repr(value) if isinstance(value, Real | str) else type(value).__name__
        raise TypeError(f"{name} must be {rule}; got {got}")


def one_of(name: str, value: object, choices: Collection[object]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise fail(name, f"one of {listed}", repr(value))


def integer(name: str, value: object, *, minimum: int | None = None) -> int:
    """Return ``value`` as an ``int``; raise unless it is a whole number of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    if minimum is not None and value < minimum:
        raise fail(name, f"at least {minimum}", value)
    return int(value)


def integers(name: str, values: object) -> tuple[int, ...]:
    """Return one or more whole numbers as a tuple; raise unless they are that."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be one or more integers; got {values!r}")
    given = cast("Iterable[object]", values)
    numbers = tuple(integer(f"{name}[{i}]", value) for i, value in enumerate(given))
    if not numbers:
        raise fail(name, "one or more integers", "none")
    return numbers


def real(name: str, value: object) -> float:
    """Return ``value`` as a ``float``; raise unless it is a finite real number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise fail(name, "finite", value)
    return number


def positive(name: str, value: object) -> float:
    """Return ``value`` as a ``float``; raise unless it is above zero."""
    number = real(name, value)
    if number <= 0:
        raise fail(name, "positive", value)
    return number


def non_negative(name: str, value: object) -> float:
    """Return ``value`` as a ``float``; raise unless it is zero or above."""
    number = real(name, value)
    if number < 0:
        raise fail(name, "zero or positive", value)
    return number


def fraction(name: str, value: object, *, below_one: bool = False) -> float:
    """Return ``value`` as a ``float``; raise unless it lies in [0, 1], or [0, 1) on request."""
    number = real(name, value)
    if not 0 <= number <= 1 or (below_one and number == 1):
        raise fail(name, "in [0, 1)" if below_one else "in [0, 1]", value)
    return number


def per_axis(name: str, value: Scalar | Sequence[Scalar], spatial_dims: int) -> tuple[Scalar, ...]:
    """Return one value per spatial axis: a single value is repeated, a sequence is counted."""
    if isinstance(value, (int, float)):
        return (value,) * spatial_dims
    if len(value) != spatial_dims:
        raise fail(name, f"one value or {spatial_dims}, one per spatial axis", value)
    return tuple(value)
