"""States brought into the form that the objects of this run have: whole, or in parts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ._agreement import together
from ._averaged import States
from ._shard_files import read_shards
from ._sharded import cut_like, is_sharded
from ._state_tree import tensors, with_tensors
from ._stateful import Stateful
from ._weights import plain_name


def placed(states: States, objects: Mapping[str, Stateful], shards: Path) -> States:
    """Return states whose tensors lie as those of the objects: parts are read, whole ones cut.

    Empty places are filled from the folder ``shards``. The state of an optimizer that has not
    stepped yet lies as its parameters do; what the objects do not know stays whole.
    """
    if not shards.exists() and not any(map(_is_cut, objects.values())):
        return states
    targets = dict(_targets(objects))
    wanted: dict[str, Tensor] = {}

    def place(where: str, tensor: Tensor) -> Tensor:
        target = targets.get(where, targets.get(where.rpartition("/")[0]))
        fits = target is not None and target.shape == tensor.shape
        if not tensor.is_meta:
            return cut_like(tensor, target) if target is not None and fits else tensor
        like = target if target is not None and fits else torch.empty(tensor.shape)
        wanted[where] = torch.empty_like(like.detach(), dtype=tensor.dtype)
        return wanted[where]

    filled = cast("States", with_tensors(states, place))
    if wanted:
        together(lambda: read_shards(shards, wanted))
    return filled


def _targets(objects: Mapping[str, Stateful]) -> Iterator[tuple[str, Tensor]]:
    """Yield the objects' tensors by place, and parameters by that of their optimizer state."""
    for name, thing in objects.items():
        for where, tensor in tensors(thing.state_dict(), name):
            yield (f"model/{plain_name(where[6:])}" if name == "model" else where), tensor
        inner = getattr(thing, "optimizer", None)
        for optimizer, place in ((thing, f"{name}/state"), (inner, f"{name}/optimizer/state")):
            if isinstance(optimizer, Optimizer):
                parameters = (p for group in optimizer.param_groups for p in group["params"])
                yield from ((f"{place}/{number}", p) for number, p in enumerate(parameters))


def _is_cut(thing: object) -> bool:
    return isinstance(thing, nn.Module) and any(map(is_sharded, thing.parameters()))
