"""Deprecated callables warn, and are gone when their time is up."""

import importlib

import pytest

import medkit
from medkit._core import deprecation


def test_a_deprecated_function_warns_and_works() -> None:
    @deprecation.deprecated(since="0.3", until="0.4", use="medkit.ops.new")
    def old(x: int) -> int:
        return x + 1

    deprecation.REGISTRY.pop()

    with pytest.warns(
        FutureWarning, match=r"old is deprecated since 0.3 and will go in 0.4; use medkit.ops.new"
    ):
        assert old(1) == 2


def test_nothing_outlives_its_removal_release() -> None:
    for name in set(medkit.__all__) - {"__version__"}:
        importlib.import_module(f"medkit.{name}")
    now = _release(medkit.__version__)

    overdue = [entry.name for entry in deprecation.REGISTRY if _release(entry.until) <= now]

    assert not overdue


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])
