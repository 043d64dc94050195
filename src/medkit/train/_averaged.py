"""The averaged weights of a checkpoint, in a weight file of their own."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor

from ._sharded import is_sharded

AVERAGED = "averaged_weights.pt"
States = dict[str, Mapping[str, object]]
_KEYS = {"num_updates", "average"}


def without_average(states: States) -> tuple[States, Mapping[str, Tensor]]:
    """Return the states with the first average of weights taken out, and its tensors."""
    for name, average in _averages(states):
        if average and not any(map(is_sharded, average.values())):
            return _replaced(states, name, {}), average
    return states, {}


def with_average(states: States, average: Mapping[str, Tensor]) -> States:
    """Return the states with the tensors put back to where they were taken out."""
    empty = [name for name, held in _averages(states) if not held]
    return _replaced(states, empty[0], average) if empty else states


def place_of_average(states: States) -> tuple[str, Mapping[str, Tensor]]:
    """Return where the first average stands, e.g. "stepper/ema/average", and its tensors."""
    for name, average in _averages(states):
        return f"{name}/ema/average" if "ema" in states[name] else f"{name}/average", average
    return "", {}


def _averages(states: States) -> list[tuple[str, Mapping[str, Tensor]]]:
    """Return the averages by the object they are in: a ``ModelEma``, or a stepper that has one."""
    emas = {name: state.get("ema", state) for name, state in states.items()}
    return [
        (name, cast("dict[str, Mapping[str, Tensor]]", ema)["average"])
        for name, ema in emas.items()
        if isinstance(ema, Mapping) and set(cast("Mapping[str, object]", ema)) == _KEYS
    ]


def _replaced(states: States, name: str, average: Mapping[str, Tensor]) -> States:
    state = states[name]
    if "ema" not in state:
        return {**states, name: {**state, "average": average}}
    ema = {**cast("Mapping[str, object]", state["ema"]), "average": average}
    return {**states, name: {**state, "ema": ema}}
