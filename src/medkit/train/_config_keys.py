"""Keys of nested dataclasses by dotted name: listed, read, replaced, and refused by name."""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import cast

from medkit._core import check

from ._checked import Json

WORDS: dict[str, Json] = {"none": None, "null": None, "true": True, "false": False}


def leaves(config: object, *, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted name and the value of every key; no attribute is touched."""
    for name, value in entries(config).items():
        if is_dataclass(value):
            yield from leaves(value, prefix=f"{prefix}{name}.")
        else:
            yield prefix + name, value


def entries(config: object) -> dict[str, object]:
    """Return the fields of a dataclass by name, past whatever watches its attributes."""
    held = vars(config)
    return {field.name: held[field.name] for field in fields(cast("type", config))}


def as_mapping(config: object) -> dict[str, Json]:
    """Return a dataclass as nested dicts of what JSON can hold."""
    return {
        name: as_mapping(value) if is_dataclass(value) else _plain(value)
        for name, value in entries(config).items()
    }


def flat(mapping: Mapping[str, object], *, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted name and the value of everything in nested mappings."""
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from flat(cast("Mapping[str, object]", value), prefix=f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_known(name: str, known: list[str]) -> None:
    """Raise for a key that does not exist, with the nearest that does."""
    if name in known:
        return
    last = name.rpartition(".")[2]
    near = [key for key in known if key.rpartition(".")[2] == last]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    rule = f"{near[0]!r}, the nearest there is" if near else f"one of {', '.join(known)}"
    raise check.fail("key", rule, repr(name))


def parsed(text: str) -> Json:
    """Return what a value on the command line means: a number, a word, or several with commas."""
    text = text.strip()
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if "," in text:
        return [parsed(part) for part in text.strip("()[], ").split(",")]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _plain(value: object) -> Json:
    if isinstance(value, tuple):
        return list(cast("tuple[Json, ...]", value))
    return cast("Json", value)
