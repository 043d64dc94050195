"""The layout of Keras 3: ``layers/<class>_<number>/vars/<index>``.

The groups say the class of a layer and its number in the model, not its name. From Keras 3.6 on
the name is an attribute beside the variables.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

from medkit._core.hdf5 import Hdf5File, Written

from ._keras_layer import Array, Layer, Slot

ROOT = "layers"
KERAS_2_ROOT = "_layer_checkpoint_dependencies"
"""Where TensorFlow 2.13 to 2.15 put the layers, numbered in another way."""
_NO_WEIGHTS = re.compile(r"(^|/)(optimizer/|seed_generator(_\d+)?/)")


def is_keras3(file: Hdf5File) -> bool:
    """Return whether a file has this layout."""
    return ROOT in file.groups


def place(slot: Slot) -> str:
    """Return where a variable is: the path of its array."""
    return f"{slot.layer.path}/vars/{slot.layer.variables.index(slot.variable)}"


def locate(file: Hdf5File, layers: Sequence[Layer]) -> Iterator[tuple[str, str]]:
    """Yield each array that may hold a variable, and the place of that variable.

    A layer whose name is the same in every process is known by it, where the file has names;
    the others by class and number. Layers of a model inside the model are numbered on their own.
    """
    by_name = {layer.name: layer for layer in layers if layer.own_name}
    by_path = {layer.path: layer for layer in layers}
    for array in file.arrays:
        if _NO_WEIGHTS.search(array):
            continue
        path = PurePosixPath(array)
        group = str(path.parent)
        layer = _layer(file.texts(group, "name"), str(path.parent.parent), by_name, by_path)
        yield array, f"{layer.path}/vars/{path.name}" if layer else ""


def _layer(
    name: tuple[str, ...] | None, path: str, by_name: dict[str, Layer], by_path: dict[str, Layer]
) -> Layer | None:
    named = by_name.get(name[0]) if name else None
    if named is not None:
        return named
    _, nested, end = path.rpartition(f"/{ROOT}/")
    numbered = by_path.get(path) or (by_path.get(f"{ROOT}/{end}") if nested else None)
    return None if name and numbered is not None and numbered.own_name else numbered


def groups(layers: Sequence[Layer], value: Callable[[Slot], Array]) -> Iterator[Written]:
    """Yield what a file with the variables of the layers is made of."""
    for layer in layers:
        variables = {
            str(index): value(Slot(layer, variable))
            for index, variable in enumerate(layer.variables)
        }
        group = f"{layer.path}/vars" if layer.path else "vars"
        yield Written(group, {"name": layer.name}, variables)
