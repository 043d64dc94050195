"""The parts of tensors on several processes, in the files of torch's distributed checkpoint.

torch.distributed.checkpoint takes a second to import: that is done where shards are met.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medkit._core.processes import place_among

from ._agreement import is_main, together
from ._checked import CheckpointError, Json
from ._commit import file_crc32, sync_folder
from ._shard_index import INDEX, read_index
from ._sharded import is_sharded
from ._state_tree import with_tensors

if TYPE_CHECKING:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
    from torch.distributed.checkpoint.storage import WriteResult
    from torch.futures import Future


def without_shards(states: object) -> tuple[object, dict[str, Tensor]]:
    """Return the states with empty places for tensors that lie in parts, and those by place."""
    shards: dict[str, Tensor] = {}

    def take_out(place: str, tensor: Tensor) -> Tensor:
        if not is_sharded(tensor):
            return tensor
        shards[place] = tensor.detach()
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    return with_tensors(states, take_out), shards


def write_shards(folder: Path, shards: Mapping[str, Tensor], *, fsync: bool) -> dict[str, Json]:
    """Let every process write its parts; return size and checksum of each file."""
    rank, _ = place_among(None, None)

    def write() -> dict[str, Json]:
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict_saver import (
            save,  # pyright: ignore[reportUnknownVariableType]  untyped
        )

        try:
            save(dict(shards), storage_writer=_writer(folder, fsync=fsync))
        except CheckpointException as error:
            raise _cause(error) from error
        if fsync and is_main():
            sync_folder(folder)
        own = [*folder.glob(f"__{rank}_*"), *([folder / INDEX] if is_main() else [])]
        found = {path.name: file_crc32(path) for path in own}
        return {name: {"size": size, "crc32": crc} for name, (size, crc) in found.items()}

    return {name: entry for files in together(write) for name, entry in files.items()}


def read_shards(folder: Path, targets: Mapping[str, Tensor]) -> None:
    """Fill tensors, whole ones or parts as this process holds them, from whatever parts there are.

    Nothing in the files is executed.
    """
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    index = read_index(folder)
    for name, target in targets.items():
        size = getattr(index.state_dict_metadata.get(name), "size", "missing")
        if size != target.shape:
            rule = f"{name} should have shape {tuple(target.shape)} in {folder}"
            raise CheckpointError(f"{rule}, and is {size}")
    planner, reader = DefaultLoadPlanner(), FileSystemReader(folder)
    planner.set_up_planner(dict(targets), index, is_coordinator=True)  # pyright: ignore[reportUnknownMemberType]  untyped
    reader.set_up_storage_reader(index, is_coordinator=True)
    plan = planner.create_global_plan([planner.create_local_plan()])[0]
    reader.read_data(planner.finish_plan(plan), planner).wait()


def _writer(folder: Path, *, fsync: bool) -> "FileSystemWriter":
    from torch.distributed.checkpoint.filesystem import FileSystemWriter

    class Writer(FileSystemWriter):
        """Says what the disk said, which torch hides behind an error about positions."""

        def write_data(
            self, plan: "SavePlan", planner: "SavePlanner"
        ) -> "Future[list[WriteResult]]":
            try:
                return super().write_data(plan, planner)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise

    return Writer(folder, sync_files=fsync)


def _cause(error: "CheckpointException") -> Exception:
    """Return the first failure of any process; torch's own error is no Exception."""
    for rank, (cause, _) in error.failures.items():
        if isinstance(cause, OSError):
            return OSError(cause.errno, f"{cause.strerror} (process {rank})", cause.filename)
        return CheckpointError(f"process {rank} could not write its shards: {cause!r}")
    return CheckpointError(str(error))
