"""The layout of Keras 1 and 2, which Keras 3 still reads and writes: layers by name.

An array is at ``<layer>/<layer>/kernel``, under ``model_weights`` where the file holds the whole
model; Keras 2 puts ``:0`` behind it. The order of layers is an attribute, since names of layers
that Keras made up differ from process to process.
"""

from collections.abc import Callable, Iterator, Sequence

from medkit._core.hdf5 import Hdf5File, Written

from ._keras_layer import Array, Layer, Slot

_WHOLE_MODEL = "model_weights"
_OPTIMIZER = "optimizer_weights"
_ORDER = "layer_names"


def is_legacy(file: Hdf5File) -> bool:
    """Return whether a file has this layout."""
    return _order(file, _root(file)) is not None


def place(slot: Slot) -> str:
    """Return where a variable is: the names of layer and variable."""
    return f"{slot.layer.name}/{slot.variable.keras}"


def locate(file: Hdf5File, layers: Sequence[Layer]) -> Iterator[tuple[str, str]]:
    """Yield each array that may hold a variable, and the place of that variable."""
    root = _root(file)
    arrays = [
        (array, array.removeprefix(f"{root}/").split("/"))
        for array in file.arrays
        if not array.startswith(f"{_OPTIMIZER}/")
    ]
    own = {layer.name for layer in layers if layer.own_name}
    alias = _made_up_names(file, root, [parts for _, parts in arrays], layers)
    for array, parts in arrays:
        named = next((part for part in reversed(parts[:-1]) if part in own), None)
        layer = named or alias.get(_owner(parts), _owner(parts))
        yield array, f"{layer}/{parts[-1].partition(':')[0]}"


def groups(layers: Sequence[Layer], value: Callable[[Slot], Array]) -> Iterator[Written]:
    """Yield what a file with the variables of the layers is made of."""
    names = [layer.name for layer in layers]
    yield Written("", {_ORDER: names, "backend": "torch", "keras_version": "3.0.0"}, {})
    for layer in layers:
        variables = {f"{layer.name}/{variable.keras}": variable for variable in layer.variables}
        yield Written(
            layer.name,
            {"weight_names": list(variables)},
            {path: value(Slot(layer, variable)) for path, variable in variables.items()},
        )


def _made_up_names(
    file: Hdf5File, root: str, arrays: Sequence[Sequence[str]], layers: Sequence[Layer]
) -> dict[str, str]:
    """Return our name of each layer that the file names in its own way, matched in order."""
    own = {layer.name for layer in layers if layer.own_name}
    order = _order(file, root) or ()
    theirs = {_owner(parts): parts[0] for parts in arrays if not own.intersection(parts)}
    by_order = sorted(theirs, key=lambda name: _position(order, name, theirs[name]))
    ours = [layer.name for layer in layers if layer.variables and not layer.own_name]
    return dict(zip(by_order, ours, strict=False))


def _position(order: Sequence[str], name: str, group: str) -> int:
    return next((order.index(known) for known in (name, group) if known in order), len(order))


def _owner(parts: Sequence[str]) -> str:
    """Return the layer an array is stored under: the group right above it."""
    return parts[-2] if len(parts) > 1 else ""


def _root(file: Hdf5File) -> str:
    return _WHOLE_MODEL if _WHOLE_MODEL in file.groups else ""


def _order(file: Hdf5File, root: str) -> tuple[str, ...] | None:
    """Return the names of the layers; an attribute too long for HDF5 is cut into numbered ones."""
    whole = file.texts(root, _ORDER)
    if whole is not None:
        return whole
    pieces: list[str] = []
    while (piece := file.texts(root, f"{_ORDER}{len(pieces)}")) is not None:
        pieces.extend(piece)
    return tuple(pieces) if pieces else None
