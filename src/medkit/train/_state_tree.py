"""The tensors in nested states, by where they stand."""

from collections.abc import Callable, Iterator, Mapping
from typing import cast

from torch import Tensor


def tensors(state: object, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested dicts and lists with its place, e.g. "state/0/exp_avg"."""
    if isinstance(state, Tensor):
        yield path, state
        return
    for place, _, part in _parts(state, path):
        yield from tensors(part, place)


def with_tensors(state: object, change: Callable[[str, Tensor], Tensor], path: str = "") -> object:
    """Return a copy of nested dicts and lists in which every tensor is changed."""
    if isinstance(state, Tensor):
        return change(path, state)
    new = [(key, with_tensors(part, change, place)) for place, key, part in _parts(state, path)]
    if isinstance(state, Mapping):
        return dict(new)
    values = [value for _, value in new]
    if isinstance(state, tuple):
        return tuple(values)
    return values if isinstance(state, list) else state


def num_bytes(state: object) -> int:
    """Return the bytes of all tensors in nested dicts and lists."""
    return sum(tensor.numel() * tensor.element_size() for _, tensor in tensors(state))


def _parts(state: object, path: str) -> Iterator[tuple[str, object, object]]:
    """Yield place, key and value of what a dict or a list holds."""
    if isinstance(state, Mapping):
        pairs = cast("Mapping[object, object]", state).items()
    elif isinstance(state, list | tuple):
        pairs = enumerate(cast("list[object]", state))
    else:
        return
    for key, part in pairs:
        yield f"{path}/{key}" if path else str(key), key, part
