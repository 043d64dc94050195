"""One weight file of the parts that several processes wrote."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ._checked import CheckpointError, read_checked
from ._checkpoint_folder import SHARDS, STATE, WEIGHTS
from ._shard_files import read_shards
from ._shelf import whole_step
from ._weights import save_weights


def merge_sharded(path: str | Path, out: str | Path) -> None:
    """Make one weight file of a checkpoint whose model lies in parts (FSDP2).

    One process does it, on any machine: no other process and no model is needed. The memory is that
    of the whole weights. A checkpoint that was saved whole works too.

    Args:
        path: The folder of a checkpoint.
        out: The file to write, for :func:`load_weights` and for torch alone.

    Raises:
        CheckpointError: If the checkpoint is damaged or holds no model.
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
    if (folder / WEIGHTS).exists():
        weights = cast("dict[str, Tensor]", read_checked(folder / WEIGHTS).value)
    else:
        weights = _from_parts(folder)
    save_weights(weights, out, metadata={"step": step})


def _from_parts(folder: Path) -> dict[str, Tensor]:
    states = cast("dict[str, object]", read_checked(folder / STATE).value)
    if "model" not in states:
        raise CheckpointError(f"{folder} holds no model, only {', '.join(sorted(states))}")
    weights = cast("dict[str, Tensor]", states["model"])
    parts = {n: torch.empty(t.shape, dtype=t.dtype) for n, t in weights.items() if t.is_meta}
    read_shards(folder / SHARDS, {f"model/{name}": tensor for name, tensor in parts.items()})
    return {**weights, **parts}
