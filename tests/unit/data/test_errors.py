"""Errors say what is wrong, and say it from a worker process too."""

import builtins
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import medkit.data
from medkit.data import (
    AmbiguousSeriesError,
    ChecksumError,
    CodecMissingError,
    DataError,
    FormatError,
    GeometryError,
    LimitError,
    TruncatedError,
    UnsafeReferenceError,
    VolumeDataset,
)

KINDS = [
    AmbiguousSeriesError, ChecksumError, CodecMissingError, FormatError, GeometryError, LimitError,
    TruncatedError, UnsafeReferenceError,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_a_data_error_and_a_value_error(kind: type[DataError]) -> None:
    assert issubclass(kind, DataError)
    assert issubclass(kind, ValueError)


def test_message_names_path_field_rule_value_and_remedy() -> None:
    error = FormatError("in 1..7", path="a.nii", field="dim[0]", value=9, remedy="Write it again.")

    assert str(error) == "a.nii: dim[0] must be in 1..7; got 9. Write it again."
    assert (error.path, error.field, error.value) == ("a.nii", "dim[0]", 9)
    assert error.remedy == "Write it again."


def test_message_can_stand_alone() -> None:
    assert str(DataError("nothing to read")) == "nothing to read"


def test_error_survives_pickling() -> None:
    error = LimitError("at most 5", path="a", field="size", value=6)
    copied = pickle.loads(pickle.dumps(error))

    assert type(copied) is LimitError
    assert str(copied) == str(error)
    assert copied.value == 6


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_error_keeps_its_type_and_file_through_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "broken.nii"
    path.write_bytes(b"nothing")
    loader = DataLoader(VolumeDataset([{"image": path}]), batch_size=None, num_workers=1)

    with pytest.raises(FormatError, match=r"broken\.nii"):
        next(iter(loader))


WRITERS = {
    ".nii": medkit.data.write_nifti,
    ".h5": medkit.data.write_hdf5,
    ".nrrd": medkit.data.write_nrrd,
    ".mha": medkit.data.write_mha,
    ".npz": medkit.data.write_npz,
    ".tif": medkit.data.write_tiff,
}


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("data", [torch.zeros(1, 2, 3, 4), np.zeros((1, 2, 3, 4))], ids=type)
def test_voxels_without_a_place_are_not_written(
    data: object, ending: str, tmp_path: Path, unhooked
) -> None:
    path = tmp_path / f"a{ending}"
    kind = type(data).__name__
    writers: tuple[Callable[..., None], ...] = (WRITERS[ending], medkit.data.write)
    for writer in writers:
        with pytest.raises(TypeError, match=f"volume must be a Volume; got {kind}"):
            writer(data, path)
    assert not path.exists()


def test_open_is_public_and_never_taken_for_the_builtin(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    exec("from medkit.data import *", names)
    path = tmp_path / "notes.txt"
    path.write_text("precious")

    assert names["open"] is medkit.data.open is not builtins.open
    with pytest.raises(TypeError):
        medkit.data.open(path, "w")
    with pytest.raises(FormatError):
        medkit.data.open(path)
    assert path.read_text() == "precious"
