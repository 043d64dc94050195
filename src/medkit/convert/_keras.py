"""Weights from Keras and back, without Keras."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from medkit._core import check
from medkit._core.hdf5 import Hdf5File, Written, write_hdf5
from medkit.data import FormatError
from medkit.nn import KerasResNetV2, SegFormer2D, SegFormer3D

from . import _keras3_layout, _legacy_layout
from ._keras_file import open_keras_file
from ._keras_layer import Array, Layer, Slot, slots
from ._keras_resnet_v2 import resnet_v2_layers
from ._medicai_segformer import segformer_layers
from ._weights_error import WeightsError, WeightsReport

_COUNTER = "num_batches_tracked"
_FLOATS = ("float16", "float32", "float64")
_RESAVE = (
    "TensorFlow 2.13 to 2.15 laid it out so; load it there and save the weights to a name that "
    "ends in .h5 but not in .weights.h5"
)


class _Layout(NamedTuple):
    """A way to lay out the layers of a model in a file."""

    recognizes: Callable[[Hdf5File], bool]
    place: Callable[[Slot], str]
    """Where a variable is, in words that do not depend on the file."""
    locate: Callable[[Hdf5File, Sequence[Layer]], Iterator[tuple[str, str]]]
    """Each array that may hold a variable, with the place of that variable, or no known place."""
    groups: Callable[[Sequence[Layer], Callable[[Slot], Array]], Iterator[Written]]


_KERAS_3 = _Layout(
    _keras3_layout.is_keras3, _keras3_layout.place, _keras3_layout.locate, _keras3_layout.groups
)
_LEGACY = _Layout(
    _legacy_layout.is_legacy, _legacy_layout.place, _legacy_layout.locate, _legacy_layout.groups
)


def load_keras_weights(module: nn.Module, path: str | os.PathLike[str]) -> WeightsReport:
    """Fill a network with the weights of a Keras file, every one of them, or raise.

    Nothing changes in the module before the whole file has been read and found right: each array
    has one place, each tensor one source, and shapes agree. Values are taken as they are. h5py
    alone reads the file; nothing in it is executed, and links out of it are refused.

    ====================  =========================================================
    module                files
    ====================  =========================================================
    ``SegFormer2D``,      ``save_weights`` of medicai 0.0.4, ``.weights.h5`` or
    ``SegFormer3D``       ``.keras``, of ``mit_b0`` to ``mit_b5`` or own sizes
    ``KerasResNetV2``     ``keras.applications``, whole models and models with a head
                          on top: ``.weights.h5`` and ``.keras`` of Keras 3, ``.h5``
                          of Keras 1 to 3
    ====================  =========================================================

    The sizes of the module must be those of the file, and a SegFormer must have
    ``profile="medicai"``, or the same weights would give other numbers. medicai's ``mit_b0`` to
    ``mit_b5`` have the profile's ``norm_eps`` of 1e-6; its ``MiTBackbone`` has 1e-5, which the
    file does not say.

    Args:
        module: Receives the weights, on whatever device and in whatever precision it is.
        path: The file; its content decides how it is read, not its name.

    Returns:
        What was loaded, and what the file holds besides.

    Raises:
        WeightsError: If a tensor is missing, left over, or of another shape or type.
        DataError: If the file is of another kind, damaged, or points outside itself.
        TypeError: If there are no rules for the module.
        ValueError: If a SegFormer has another profile.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile, torch
        >>> from medkit.nn import KerasResNetV2
        >>> a, b = (KerasResNetV2(base_channels=2, num_classes=4).eval() for _ in range(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_keras_weights(a, f"{folder}/a.weights.h5")
        ...     report = load_keras_weights(b, f"{folder}/a.weights.h5")
        >>> torch.equal(a(torch.ones(1, 3, 32, 32)), b(torch.ones(1, 3, 32, 32)))
        True
        >>> len(report.loaded)
        272
    """
    layers = _layers(module)
    own = {name: tensor for name, tensor in module.state_dict().items() if _COUNTER not in name}
    with open_keras_file(path) as file:
        arrays = _match(file, layers, own, type(module).__name__)
        dtype = np.result_type(np.float32, *(file.arrays[array].dtype for array in arrays))
        found = {name: np.empty(tensor.shape, dtype) for name, tensor in own.items()}
        for array, slot in arrays.items():
            values = file.read(array, max_bytes=file.arrays[array].nbytes)
            slot.put(values, found[slot.tensor])
        skipped = _skipped(file, arrays)
    state = {name: torch.from_numpy(values) for name, values in found.items()}  # pyright: ignore[reportUnknownMemberType]  untyped in torch
    module.load_state_dict({**module.state_dict(), **state})
    return WeightsReport(tuple(own), skipped)


def save_keras_weights(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the weights of a network to a file that Keras loads into the same network.

    In Keras, ``model.load_weights(path)`` reads it. Values are float32, as in Keras; groups,
    arrays and names are those of ``save_weights`` in a fresh process, and the file appears
    whole or not at all.

    Args:
        module: A network as ``load_keras_weights`` takes it.
        path: Where to: a name that ends in ``.weights.h5`` for the layout of Keras 3, and for
            ``KerasResNetV2`` alternatively in ``.h5`` for that of Keras 1 and 2.

    Raises:
        TypeError: If there are no rules for the module.
        ValueError: If a SegFormer has another profile than medicai's, or the name another ending.
        OSError: If the file cannot be written; an older file of that name is then untouched.

    Example:
        >>> import tempfile, h5py
        >>> from medkit.nn import SegFormer3D
        >>> model = SegFormer3D(1, 2, embed_dims=(8, 16, 20, 32), profile="medicai")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_keras_weights(model, f"{folder}/tiny.weights.h5")
        ...     with h5py.File(f"{folder}/tiny.weights.h5") as file:
        ...         print(file["layers/dense_3/vars/0"].shape)
        (8, 256)
    """
    layers = _layers(module)
    state = module.state_dict()

    def value(slot: Slot) -> Array:
        tensor = state[slot.tensor].detach().to("cpu", torch.float32)
        return np.ascontiguousarray(slot.to_keras(tensor.numpy()))

    write_hdf5(path, _layout_of_name(os.fspath(path), module).groups(layers, value))


def _layers(module: nn.Module) -> list[Layer]:
    """Return the layers of the Keras model that a module stands for."""
    if isinstance(module, KerasResNetV2):
        return list(resnet_v2_layers(module.state_dict()))
    if not isinstance(module, SegFormer2D | SegFormer3D):
        raise TypeError(
            f"module must be a SegFormer2D, SegFormer3D or KerasResNetV2; got {type(module)}"
        )
    if module.profile != "medicai":
        raise check.fail("module.profile", "'medicai'", repr(module.profile))
    width = module.segformer_encoder.embed_dims[0]
    return list(segformer_layers(module.state_dict(), dims=module.spatial_dims, width=width))


def _layout_of_name(path: str, module: nn.Module) -> _Layout:
    """Return the layout that the ending of a name asks for."""
    if path.endswith(".weights.h5"):
        return _KERAS_3
    if not isinstance(module, KerasResNetV2):
        raise check.fail("path", "a name that ends in .weights.h5", repr(path))
    if not path.endswith(".h5"):
        raise check.fail("path", "a name that ends in .weights.h5 or .h5", repr(path))
    return _LEGACY


def _match(
    file: Hdf5File, layers: Sequence[Layer], own: Mapping[str, Tensor], module: str
) -> dict[str, Slot]:
    """Return the variable that each array is for, after checking that it is one to one."""
    layout = next((known for known in (_LEGACY, _KERAS_3) if known.recognizes(file)), None)
    if layout is None:
        rule, value = "laid out as Keras does", f"groups {', '.join(file.groups[:3]) or 'none'}"
        remedy = _RESAVE if _keras3_layout.KERAS_2_ROOT in file.groups else ""
        raise FormatError(rule, path=file.path, field="file", value=value, remedy=remedy)
    missing = {layout.place(slot): slot for slot in slots(layers)}
    arrays: dict[str, Slot] = {}
    unexpected: list[str] = []
    for array, place in layout.locate(file, layers):
        if place in missing:
            arrays[array] = missing.pop(place)
        else:
            unexpected.append(array)
    misshapen = [
        f"{array}: {found.shape} {_kind(found.dtype)} in the file, {expected} in the module"
        for array, slot in arrays.items()
        for found in [file.arrays[array]]
        for expected in [slot.to_keras(_like(own[slot.tensor])).shape]
        if found.shape != expected or found.dtype.name not in _FLOATS
    ]
    if missing or unexpected or misshapen:
        raise WeightsError(
            module,
            path=file.path,
            missing=[f"{place} for {slot.tensor}" for place, slot in missing.items()],
            unexpected=unexpected,
            misshapen=misshapen,
        )
    return arrays


def _kind(dtype: np.dtype[Any]) -> str:
    """Return the name of a type; h5py gives bfloat16 as two bytes without a meaning."""
    return "of two raw bytes, as Keras stores bfloat16" if dtype.str == "|V2" else dtype.name


def _like(tensor: Tensor) -> Array:
    """Return an array of the shape of a tensor that takes no memory."""
    return np.broadcast_to(np.float32(0), tuple(tensor.shape))


def _skipped(file: Hdf5File, loaded: Mapping[str, Slot]) -> tuple[str, ...]:
    """Return the arrays that were not loaded, and the groups that hold none that were."""
    above = {str(parent) for array in loaded for parent in PurePosixPath(array).parents}
    rest = [name for name in (*file.groups, *file.arrays) if name not in above | loaded.keys()]
    return tuple(
        sorted(
            name
            for name in rest
            if str(PurePosixPath(name).parent) in above and PurePosixPath(name).name != "vars"
        )
    )
