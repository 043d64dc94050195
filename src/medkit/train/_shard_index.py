"""Where each part of a tensor stands: the index of torch's distributed checkpoint."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from ._checked import CheckpointError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata

INDEX = ".metadata"
_RECORDS = {
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "torch": {"Size"} | {n for n in dir(torch) if isinstance(getattr(torch, n), torch.dtype)},
}  # fmt: skip


def read_index(folder: Path) -> "Metadata":
    """Read the index of a folder of shards. It is a pickle: only records are taken from it."""
    from torch.distributed.checkpoint.metadata import Metadata

    path = folder / INDEX
    try:
        with path.open("rb") as stream:
            index = cast("object", _Records(stream).load())
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError) as error:
        why = f"is damaged or no index of shards; nothing in it was executed: {error}"
        raise CheckpointError(f"{path} {why}") from error
    if not isinstance(index, Metadata):
        raise CheckpointError(f"{path} is no index of shards: it holds a {type(index).__name__}")
    files = cast("Mapping[object, object]", index.storage_data or {}).values()
    names = {str(getattr(place, "relative_path", "..")) for place in files}
    if outside := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{path} points out of its folder, to {outside[0]}")
    return index


class _Records(pickle.Unpickler):
    """Builds the records of an index and nothing else."""

    def find_class(self, module_name: str, global_name: str, /) -> object:
        if global_name not in _RECORDS.get(module_name, ()):
            raise pickle.UnpicklingError(f"{module_name}.{global_name} has no place in an index")
        return cast("Callable[..., object]", super().find_class(module_name, global_name))
