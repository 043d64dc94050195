"""The index of shards is a pickle; nothing but records comes out of it."""

import os
import pickle
from pathlib import Path

import pytest
from torch import nn
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex

from medkit.train import CheckpointError, CheckpointManager, EarlyStopping, merge_sharded
from medkit.train._shard_index import read_index


class _Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def _index(folder: Path, content: object) -> Path:
    (folder / ".metadata").write_bytes(pickle.dumps(content))
    return folder


def test_nothing_in_it_is_executed(tmp_path: Path) -> None:
    folder = _index(tmp_path, Metadata({}, planner_data=_Trap(tmp_path / "sprung")))

    with pytest.raises(CheckpointError, match=r"nothing in it was executed: posix\.mkdir has no"):
        read_index(folder)

    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "it holds a dict"),
        (Metadata({"a": BytesStorageMetadata()}), "BytesStorageMetadata has no place"),
        (
            Metadata({}, storage_data={MetadataIndex("a"): _StorageInfo("../b", 0, 1)}),
            r"points out of its folder, to \.\./b",
        ),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_index(_index(tmp_path, content))


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Metadata({}))[:-9])

    with pytest.raises(CheckpointError, match=r"\.metadata is damaged or no index"):
        read_index(tmp_path)


def test_merging_needs_a_whole_checkpoint_with_a_model(tmp_path: Path) -> None:
    checkpoints = CheckpointManager(tmp_path / "a")
    checkpoints.register({"stopping": EarlyStopping(1)})
    path = checkpoints.save(1)
    with pytest.raises(CheckpointError, match=r"step_000000001 holds no model, only rng, stopping"):
        merge_sharded(path, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="holds no average, only rng, stopping"):
        merge_sharded(path, tmp_path / "weights.pt", averaged=True)

    other = CheckpointManager(tmp_path / "b")
    other.register({"model": nn.Linear(1, 1)})
    path = other.save(1)
    (path / "weights.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is damaged: weights\.pt is damaged"):
        merge_sharded(path, tmp_path / "weights.pt")
    assert not (tmp_path / "weights.pt").exists()
