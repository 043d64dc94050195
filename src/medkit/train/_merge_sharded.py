"""One weight file of the parts that several processes wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ._averaged import AVERAGED, States, place_of_average
from ._checked import CheckpointError, read_checked
from ._checkpoint_folder import SHARDS, STATE, WEIGHTS
from ._shard_files import read_shards
from ._shelf import whole_step
from ._weights import save_weights


def merge_sharded(path: str | Path, out: str | Path, *, averaged: bool = False) -> None:
    """Make one weight file of a checkpoint whose model lies in parts (FSDP2).

    One process does it, on any machine: no other process and no model is needed. The memory is that
    of the whole weights. A checkpoint that was saved whole works too.

    Args:
        path: The folder of a checkpoint.
        out: The file to write, for :func:`load_weights` and for torch alone.
        averaged: Whether to take the weights of a :class:`ModelEma` instead of the model's.

    Raises:
        CheckpointError: If the checkpoint is damaged or holds no such weights.
        OSError: If the file cannot be written; an old one is then intact.

    Example:
        >>> import tempfile, torch
        >>> from medkit.train import CheckpointManager, load_weights
        >>> model = torch.nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoints = CheckpointManager(folder)
        ...     checkpoints.register({"model": model})
        ...     merge_sharded(checkpoints.save(7), f"{folder}/weights.pt")
        ...     print(load_weights(f"{folder}/weights.pt", model).metadata)
        {'step': 7}
    """
    folder = Path(path)
    step = whole_step(folder)
    file = folder / (AVERAGED if averaged else WEIGHTS)
    if file.exists():
        weights = cast("dict[str, Tensor]", read_checked(file).value)
    else:
        weights = _from_parts(folder, averaged=averaged)
    save_weights(weights, out, metadata={"step": step})


def _from_parts(folder: Path, *, averaged: bool) -> dict[str, Tensor]:
    states = cast("States", read_checked(folder / STATE).value)
    place, weights = "model", cast("Mapping[str, Tensor]", states.get("model", {}))
    if averaged:
        objects = {n: state for n, state in states.items() if isinstance(state, Mapping)}
        place, weights = place_of_average(objects)
    if not weights:
        what = "no average" if averaged else "no model"
        raise CheckpointError(f"{folder} holds {what}, only {', '.join(sorted(states))}")
    parts = {n: torch.empty(t.shape, dtype=t.dtype) for n, t in weights.items() if t.is_meta}
    read_shards(folder / SHARDS, {f"{place}/{name}": tensor for name, tensor in parts.items()})
    return {**weights, **parts}
