"""The public API as text: every public name with its signature, methods and fields.

``python tests/api/surface.py`` prints what ``tests/api/public_api.txt`` must hold.
"""

import inspect
import sys
import types
from collections.abc import Callable, Iterator
from enum import Enum
from importlib import import_module

import medkit

SUBPACKAGES = sorted(set(medkit.__all__) - {"__version__"})


def public_objects() -> Iterator[tuple[str, object]]:
    """Yield ``("losses.DiceLoss", <class>)`` for every public name, in order."""
    for subpackage in SUBPACKAGES:
        module = import_module(f"medkit.{subpackage}")
        for name in module.__all__:
            yield f"{subpackage}.{name}", getattr(module, name)


def public_callables() -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield every public function and class, and the public methods defined in medkit."""
    for name, thing in public_objects():
        if callable(thing) and (inspect.isclass(thing) or inspect.isfunction(thing)):
            yield name, thing
        if inspect.isclass(thing) and thing.__module__.startswith("medkit"):
            for attribute, method in public_methods(thing):
                yield f"{name}.{attribute}", method


def public_methods(cls: type) -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield the methods, class methods and static methods a class adds to its foreign parents."""
    for attribute, value in sorted(_own_attributes(cls).items()):
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isfunction(function) and function.__module__.startswith("medkit"):
            yield attribute, function


def render() -> str:
    """Return the snapshot, a line for each name."""
    lines: list[str] = []
    for name, thing in public_objects():
        lines.extend(_render(name, thing))
    return "\n".join(lines) + "\n"


def _render(name: str, thing: object) -> Iterator[str]:
    if inspect.isfunction(thing):
        yield f"{name}{_signature(thing)}"
    elif not inspect.isclass(thing):
        kind = (
            "type alias"
            if isinstance(thing, types.UnionType | types.GenericAlias)
            else type(thing).__name__
        )
        yield f"{name}: {kind}"
    elif issubclass(thing, Enum):
        yield f"{name} = {' | '.join(member.name for member in thing)}"
    else:
        bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
        yield f"{name}{_signature(thing)}" + (f" <- {bases}" if bases else "")
        for attribute, value in sorted(_own_attributes(thing).items()):
            if isinstance(value, property):
                yield f"{name}.{attribute}: property"
        for attribute, method in public_methods(thing):
            yield f"{name}.{attribute}{_signature(method)}"


def _own_attributes(cls: type) -> dict[str, object]:
    merged: dict[str, object] = {}
    for ancestor in reversed(cls.__mro__):
        if ancestor.__module__.startswith("medkit"):
            merged.update(vars(ancestor))
    return {key: value for key, value in merged.items() if not key.startswith("_")}


def _signature(thing: Callable[..., object]) -> str:
    try:
        signature = inspect.signature(thing)
    except ValueError:
        return "(...)"
    text = (
        str(signature)
        .replace("torch._C.", "torch.")
        .replace("collections.abc.", "")
        .replace("typing.", "")
    )
    return text.replace("torch.Tensor", "Tensor")


if __name__ == "__main__":
    sys.stdout.write(render())
