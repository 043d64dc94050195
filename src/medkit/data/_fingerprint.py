"""What a dataset is made of, in a few bytes that change when it does."""

import functools
import hashlib
import inspect
import json
import os
import pickle
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from medkit._core import check

from ._file_state import file_state
from ._mha import is_mha, mha_data_file
from ._nifti_header import HEADER_BYTES
from ._nrrd import nrrd_data_file
from ._nrrd_header import NRRD_MAGIC
from ._volume import Volume

Item_co = TypeVar("Item_co", covariant=True)


@runtime_checkable
class Indexed(Protocol[Item_co]):
    """A dataset: items by number, and how many there are."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Item_co: ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A dataset that knows what its items depend on."""

    def fingerprint(self) -> str:
        """Return a text that differs when any item may differ."""
        ...


def digest(*parts: object) -> str:
    """Return a short text for texts and numbers, in lists, tuples and dicts."""
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def part_fingerprint(part: str | os.PathLike[str] | Volume) -> str:
    """Return a text for a volume, or for size and time of change of a file or a folder's files."""
    if isinstance(part, Volume):
        content = hashlib.blake2b(_bytes(part.data), digest_size=16).hexdigest()
        form = [str(part.data.dtype), part.shape, part.source, part.warnings]
        return digest(content, form, part.affine.tolist())
    place = Path(part)
    if place.is_dir():
        files = sorted(str(file) for file in place.rglob("*") if file.is_file())
    else:
        files = [str(place), _data_file(str(place))]
    return digest([(file, *file_state(file)) for file in files])


def _data_file(path: str) -> str:
    """Return the file that holds the voxels of an image, itself unless it is a header alone."""
    with FileIO(path, "r") as file:
        head = file.read(HEADER_BYTES)
    if head.startswith(NRRD_MAGIC):
        return nrrd_data_file(path)
    return mha_data_file(path) if is_mha(head) else path


def function_fingerprint(function: Callable[..., object]) -> str:
    """Return a text for a named function, its source, and the arguments bound to it."""
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    named = inner if inspect.isfunction(inner) or inspect.isclass(inner) else type(inner)
    try:
        state = pickle.dumps(function, protocol=5)
    except Exception as error:  # whatever the objects in it raise
        rule = "a function that can be pickled, as it is part of what the cache depends on"
        raise check.fail("prepare", rule, repr(function)) from error
    try:
        source = inspect.getsource(named)
    except (OSError, TypeError):
        source = ""  # typed at a prompt, or not Python
    return digest(hashlib.blake2b(state, digest_size=16).hexdigest(), source)


def _bytes(data: Tensor) -> memoryview:
    plain = data.detach().cpu().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().data
