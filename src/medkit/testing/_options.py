"""What options a part offers, read from its signature, and settings that cover them in pairs."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Literal, get_args, get_origin

Options = dict[str, object]


def parameters(part: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a callable, with evaluated annotations where that is possible."""
    try:
        signature = inspect.signature(part, eval_str=True)
    except (NameError, TypeError):
        signature = inspect.signature(part)
    return dict(signature.parameters)


def call_parameters(part: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a call of ``part``; of ``forward`` where it is a module."""
    forward: object = getattr(part, "forward", None)
    return parameters(forward if callable(forward) else part)


def literal_values(annotation: object) -> tuple[object, ...]:
    """Return the values that the ``Literal`` parts of an annotation allow, in order."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    aliased: object = getattr(annotation, "__value__", None)  # `type X = Literal[...]`
    inside: list[object] = [] if aliased is None else [*literal_values(aliased)]
    for part in get_args(annotation):
        inside += literal_values(part)
    return tuple(dict.fromkeys(inside))


def pairwise(domains: Mapping[str, Sequence[object]]) -> list[Options]:
    """Return few settings in which every pair of values of two options occurs.

    The first setting holds the first value of every option. The choice is greedy and always the
    same.
    """
    names = [name for name, values in domains.items() if values]
    rows = [dict.fromkeys(names, 0)]
    missing = {
        ((a, i), (b, j))
        for a, b in combinations(names, 2)
        for i in range(len(domains[a]))
        for j in range(len(domains[b]))
    } - _pairs(names, rows[0])
    if len(names) == 1:
        rows = [{names[0]: i} for i in range(len(domains[names[0]]))]
    while missing:
        row: dict[str, int] = dict(min(missing))
        for name in names:
            if name not in row:
                row[name] = max(
                    range(len(domains[name])),
                    key=lambda i: len(_pairs(names, row | {name: i}) & missing),
                )
        rows.append({name: row[name] for name in names})
        missing -= _pairs(names, row)
    return [{name: domains[name][i] for name, i in row.items()} for row in rows]


def _pairs(names: Sequence[str], row: Mapping[str, int]) -> set[tuple[tuple[str, int], ...]]:
    chosen = [(name, row[name]) for name in names if name in row]
    return set(combinations(chosen, 2))


def spell(options: Mapping[str, object]) -> str:
    """Return options as they would be written in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
