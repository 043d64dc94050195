"""A checkpoint of torch from anyone: only tensors and plain values are taken out of it."""

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import NamedTuple, TypeGuard, cast

import torch
from torch import Tensor

from medkit.data import FormatError, LimitError

STATE_KEYS = ("model_state_dict", "state_dict", "model")
"""Under which names training programs keep the weights among other things."""
_NESTED = 3  # how deep the weights may lie
_PREFIXES = ("module.", "_orig_mod.")
_RESAVE = (
    "Nothing in it was executed. If you trust its source, load it with the program that wrote it "
    "and save model.state_dict() alone"
)


class Checkpoint(NamedTuple):
    """The weights of a file, and the names of what else it holds."""

    tensors: dict[str, Tensor]
    others: tuple[str, ...]


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Return the tensors of a checkpoint by name, without the prefixes of wrappers.

    Raises:
        DataError: If the file is damaged, holds anything but tensors and plain values, or has no
            tensors by name.
        OSError: If it cannot be opened.
    """
    name = os.fspath(path)
    _check_archive(name)
    value = _load(name)
    others: list[str] = []
    for _ in range(_NESTED):
        if _is_state(value):
            return Checkpoint(_plain(value), tuple(others))
        inner = next((value[key] for key in STATE_KEYS if key in value), None)
        if not isinstance(inner, Mapping):
            break
        others.extend(str(key) for key in value if value[key] is not inner)
        value = cast("Mapping[object, object]", inner)
    keys = ", ".join(map(str, list(value)[:5])) or "nothing"
    rule = f"tensors by name, or hold them as {' or '.join(STATE_KEYS)}"
    raise FormatError(rule, path=name, field="content", value=keys)


def _check_archive(path: str) -> None:
    """Raise if the file is an archive that grows when it is opened."""
    with open(path, "rb") as stream:  # noqa: PTH123  the error of a missing file names it as given
        if not zipfile.is_zipfile(stream):
            return
        size = stream.seek(0, os.SEEK_END)
        try:
            with zipfile.ZipFile(stream) as archive:
                declared = sum(info.file_size for info in archive.infolist())
        except zipfile.BadZipFile as error:
            value = f"damage ({error})"
            raise FormatError("a torch file", path=path, field="file", value=value) from error
    if declared > size:
        rule = f"at most the {size} bytes of the file, since torch compresses nothing"
        raise LimitError(rule, path=path, field="content", value=f"{declared} bytes")


def _load(path: str) -> Mapping[object, object]:
    try:
        value = cast("object", torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"{found[1]}, which runs code" if found else "something else"
        rule = "tensors and plain values"
        raise FormatError(rule, path=path, field="content", value=what, remedy=_RESAVE) from error
    except Exception as error:  # a damaged pickle may raise anything
        first_line = str(error).partition("\n")[0] or type(error).__name__
        value = f"damage ({first_line})"
        raise FormatError("a torch file", path=path, field="file", value=value) from error
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise FormatError("tensors by name", path=path, field="content", value=kind)
    return cast("Mapping[object, object]", value)


def _is_state(value: Mapping[object, object]) -> TypeGuard[Mapping[str, Tensor]]:
    return bool(value) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the prefixes that wrappers put before all names."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return _plain({name.removeprefix(prefix): state[name] for name in state})
    return dict(state)
