"""The public API changes on purpose only, and every signature has the house form."""

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from api import surface

SNAPSHOT = Path(__file__).with_name("public_api.txt")
CALLABLES = dict(surface.public_callables())
DATA_ARGUMENTS = 4
FIRST_TWO_OF_A_NETWORK = {"in_channels", "num_classes"}
AS_TORCH_SCATTER = frozenset({"dim", "dim_size"})
BY_POSITION = {
    "ops.scatter_max": AS_TORCH_SCATTER,
    "ops.scatter_mean": AS_TORCH_SCATTER,
    "ops.scatter_min": AS_TORCH_SCATTER,
    "ops.scatter_sum": AS_TORCH_SCATTER,
    "nn.DropPath": {"rate"},  # as torch.nn.Dropout
    "plot.overlay": {"maps"},  # data that may be left out
    "train.KerasAdamW.step": {"closure"},  # as every torch optimizer
}


def test_public_api_is_the_recorded_one() -> None:
    assert surface.render() == SNAPSHOT.read_text(), "run `make api`, and say why in CHANGELOG.md"


@pytest.mark.parametrize("subpackage", surface.SUBPACKAGES)
def test_public_names_are_sorted_and_exist(subpackage: str) -> None:
    module = import_module(f"medkit.{subpackage}")

    assert module.__doc__
    assert list(module.__all__) == sorted(set(module.__all__), key=_capitals_first)
    assert all(hasattr(module, name) for name in module.__all__)


def _capitals_first(name: str) -> tuple[bool, str]:
    """Order names as ruff does, for which a name all in capitals is a constant."""
    return (not name.isupper(), name)


@pytest.mark.parametrize("name", CALLABLES)
def test_options_are_keyword_only(name: str) -> None:
    parameters = _parameters(CALLABLES[name])

    optional = [
        p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is not p.empty
    ]
    data = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    catch_all = [p.name for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]

    assert not catch_all, f"{name} takes {catch_all}: name every argument"
    assert len(data) <= DATA_ARGUMENTS or _is_record(CALLABLES[name]), (
        f"{name} takes {data} by position: make options keyword-only"
    )
    assert _may_stand_by_position(name, optional), (
        f"{name} takes the options {optional} by position"
    )


def _may_stand_by_position(name: str, optional: list[str]) -> bool:
    """Allow fields of records, the first two arguments of a network, and stated exceptions."""
    thing = CALLABLES[name]
    allowed = BY_POSITION.get(name, FIRST_TWO_OF_A_NETWORK)
    return _is_record(thing) or _is_error(thing) or set(optional) <= allowed


def _is_record(thing: object) -> bool:
    """Return whether a public object is a result with named fields."""
    return inspect.isclass(thing) and (
        issubclass(thing, tuple) or hasattr(thing, "__dataclass_fields__")
    )


def _is_error(thing: object) -> bool:
    """Return whether a public object is an exception, whose arguments are its message."""
    return inspect.isclass(thing) and issubclass(thing, BaseException)


def _parameters(thing: Callable[..., object]) -> list[inspect.Parameter]:
    if _is_error(thing) and "__init__" not in vars(thing):
        return []
    if getattr(thing, "_is_protocol", False):
        return []
    try:
        return [
            p for p in inspect.signature(thing).parameters.values() if p.name not in ("self", "cls")
        ]
    except ValueError:
        return []
