"""Items of datasets as named arrays and a line of text, and back."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from medkit._core import check
from medkit._core.hdf5 import Array, Laid

from ._dataset import Case
from ._hdf5 import geometry_attributes
from ._notice import Notice
from ._volume import Volume

Value = Tensor | np.ndarray | str | int | float | bool | None
"""What an item may hold under a key."""
_PLAIN = (str, int, float, bool, type(None))
VOLUMES = ("image", "label")
_RULE = "a plain tensor, a NumPy array, a string, a number, a bool or None"
_NOT_IN_FILES = (torch.bfloat16, torch.complex32, torch.complex64, torch.complex128)


class PackedItem(NamedTuple):
    """An item that is ready to be written."""

    arrays: dict[str, Laid]
    text: str
    """What each key holds, in their order, as JSON."""


class Form(NamedTuple):
    """How the value of a key becomes what the dataset gave."""

    kind: str
    """``"tensor"``, ``"array"`` or ``"value"``."""
    dtype: str
    """Of a tensor, as it is given; it may be stored in a smaller one."""
    axes: int
    value: str | int | float | bool | None
    source: str
    notices: tuple[Notice, ...]


def pack_item(item: object, lay: Callable[[Array, Mapping[str, Array]], Laid]) -> PackedItem:
    """Return arrays and text of an item of any dataset."""
    if not isinstance(item, Mapping):
        raise TypeError(f"item must be a dict of tensors; got {type(item).__name__}")
    mapping = cast("Mapping[str, object]", item)
    affine = mapping.get("affine")
    placed = list(getattr(affine, "shape", ())) == [4, 4]
    volumes: dict[str, Volume] = {}
    for key in VOLUMES:
        data = mapping.get(key)
        if isinstance(data, Tensor) and data.ndim == 4 and data.numel() and placed:
            volumes[key] = Volume(data, np.asarray(torch.as_tensor(affine).cpu(), np.float64))
    arrays: dict[str, Laid] = {}
    forms: dict[str, dict[str, object]] = {}
    for key, value in mapping.items():
        _check_key(key)
        if type(value) in _PLAIN:
            forms[key] = {"kind": "value", "value": value}
            continue
        array, form = _array(key, value)
        arrays[key] = lay(array, geometry_attributes(volumes[key]) if key in volumes else {})
        forms[key] = form
    return PackedItem(arrays, json.dumps(forms))


def pack_case(case: Case, lay: Callable[[Array, Mapping[str, Array]], Laid]) -> PackedItem:
    """Return arrays and text of a case, whose voxels keep their own, smaller type."""
    arrays: dict[str, Laid] = {}
    forms: dict[str, dict[str, object]] = {}

    def add(key: str, volume: Volume, dtype: torch.dtype) -> None:
        data = volume.data.to(dtype) if volume.data.dtype in _NOT_IN_FILES else volume.data
        array, form = _array(key, data)
        arrays[key] = lay(array, geometry_attributes(volume))
        forms[key] = form | {
            "dtype": _name(dtype), "source": volume.source, "notices": volume.warnings,
        }  # fmt: skip

    add("image", case.image, torch.float32)
    arrays["affine"] = lay(case.image.affine, {})
    forms["affine"] = {"kind": "tensor", "dtype": "float64", "axes": 2}
    forms["id"] = {"kind": "value", "value": case.id}
    if case.label is not None:
        add("label", case.label, torch.int64)
    return PackedItem(arrays, json.dumps(forms))


def unpack_forms(text: str) -> dict[str, Form]:
    """Return what each key of an item holds."""
    forms = cast("dict[str, dict[str, Any]]", json.loads(text))
    return {
        key: Form(
            form["kind"],
            form.get("dtype", ""),
            form.get("axes", 0),
            form.get("value"),
            form.get("source", ""),
            tuple(Notice(*notice) for notice in form.get("notices", ())),
        )
        for key, form in forms.items()
    }


def given_dtype(form: Form) -> torch.dtype:
    """Return the dtype of a tensor as the dataset gave it."""
    return cast("torch.dtype", getattr(torch, form.dtype))


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not key or "/" in key or "\0" in key or key == ".":
        raise check.fail("keys of an item", "names without '/'", repr(key))


def _array(key: str, value: object) -> tuple[Array, dict[str, object]]:
    """Return a value as an array of at least one axis, and its form."""
    if type(value) in (Tensor, torch.nn.Parameter):
        tensor = cast("Tensor", value).detach().cpu()
        form: dict[str, object] = {"kind": "tensor", "dtype": _name(tensor.dtype)}
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.view(torch.int16)
        try:
            array = tensor.contiguous().numpy()
        except (TypeError, RuntimeError) as error:
            raise TypeError(f"{key!r} must be {_RULE}; got a tensor: {error}") from error
    elif type(value) in (np.ndarray, np.memmap):
        array = cast("Array", value)
        form = {"kind": "array"}
    else:
        raise TypeError(f"{key!r} must be {_RULE}; got {type(value).__name__}")
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{key!r} must be {_RULE}; got an array of {array.dtype}")
    return np.atleast_1d(np.ascontiguousarray(array)), form | {"axes": array.ndim}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
