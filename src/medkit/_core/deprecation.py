"""Renames and removals that warn one minor release ahead."""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Deprecation(NamedTuple):
    """One deprecated callable: where it is, since when, until when, and what replaces it."""

    name: str
    since: str
    until: str
    use: str


REGISTRY: list[Deprecation] = []
"""Every deprecated callable imported so far; a test fails when one outlives its release."""


def deprecated(*, since: str, until: str, use: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function as deprecated: each call warns with what to use instead.

    Args:
        since: First release that warns, e.g. ``"0.3"``.
        until: First release without the function, e.g. ``"0.4"``.
        use: The replacement, as the user would write it.
    """

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        name = f"{function.__module__}.{function.__qualname__}"
        REGISTRY.append(Deprecation(name, since, until, use))
        message = f"{name} is deprecated since {since} and will go in {until}; use {use}"

        @functools.wraps(function)
        def warn_and_call(*args: P.args, **kwargs: P.kwargs) -> R:
            warnings.warn(message, FutureWarning, stacklevel=2)
            return function(*args, **kwargs)

        return warn_and_call

    return mark
