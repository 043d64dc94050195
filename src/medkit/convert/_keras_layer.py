"""How Keras keeps the variables of a layer, and how they become tensors of ours and back."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Change(NamedTuple):
    """Another order of the same values; both ways give views where they can."""

    to_torch: Callable[[Array], Array]
    to_keras: Callable[[Array], Array]


def _out_in_first(kernel: Array) -> Array:
    """From (kernel, in, out) to (out, in, kernel)."""
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def _in_out_last(weight: Array) -> Array:
    """From (out, in, kernel) to (kernel, in, out)."""
    return np.moveaxis(weight, (0, 1), (-1, -2))


def _mirror_levels(weight: Array) -> Array:
    """Reverse the four blocks of input channels, one for each level of a pyramid."""
    return np.concatenate(np.split(weight, 4, axis=1)[::-1], axis=1)


def _same(array: Array) -> Array:
    return array


def _fusion_to_torch(kernel: Array) -> Array:
    return _mirror_levels(_out_in_first(kernel))


def _fusion_to_keras(weight: Array) -> Array:
    return _in_out_last(_mirror_levels(weight))


SAME = Change(_same, _same)
TRANSPOSED = Change(np.transpose, np.transpose)
KERNEL = Change(_out_in_first, _in_out_last)
FUSION_KERNEL = Change(_fusion_to_torch, _fusion_to_keras)


class Variable(NamedTuple):
    """A variable of a Keras layer and the tensor of ours that holds it."""

    keras: str
    torch: str
    change: Change = SAME


DENSE = (Variable("kernel", "weight", TRANSPOSED), Variable("bias", "bias"))
CONV = (Variable("kernel", "weight", KERNEL), Variable("bias", "bias"))
CONV_WITHOUT_BIAS = CONV[:1]
FUSION = (Variable("kernel", "weight", FUSION_KERNEL),)
BATCH_NORM = (
    Variable("gamma", "weight"),
    Variable("beta", "bias"),
    Variable("moving_mean", "running_mean"),
    Variable("moving_variance", "running_var"),
)
LAYER_NORM = BATCH_NORM[:2]


class Layer(NamedTuple):
    """A layer of a Keras model, and the module of ours that holds its variables."""

    path: str
    """Where Keras 3 keeps it: the class, numbered in the order of the model."""
    name: str
    """What Keras calls it."""
    variables: tuple[Variable, ...] = ()
    """In the order of Keras; none for a layer without weights."""
    module: str = ""
    """The name of our module."""
    part: int = 0
    parts: int = 1
    """Which of how many equal parts of our tensors, along the first axis."""
    own_name: bool = False
    """Whether every process calls the layer so: no number of a counter is in the name."""


class Slot(NamedTuple):
    """One variable of one layer."""

    layer: Layer
    variable: Variable

    @property
    def tensor(self) -> str:
        """The name of our tensor."""
        return f"{self.layer.module}.{self.variable.torch}"

    def to_keras(self, tensor: Array) -> Array:
        """Return the variable, from the whole of our tensor."""
        return self.variable.change.to_keras(np.split(tensor, self.layer.parts)[self.layer.part])

    def put(self, variable: Array, tensor: Array) -> None:
        """Write the variable into its place in the whole of our tensor."""
        place = np.split(tensor, self.layer.parts)[self.layer.part]
        place[...] = self.variable.change.to_torch(variable)


def slots(layers: Iterable[Layer]) -> Iterator[Slot]:
    """Yield every variable of every layer."""
    for layer in layers:
        for variable in layer.variables:
            yield Slot(layer, variable)


class Counted:
    """Numbers names as Keras does: the first has no number, the second ``_1``, and so on."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def __call__(self, name: str) -> str:
        """Return the next of this name."""
        number = self._counts[name]
        self._counts[name] += 1
        return numbered(name, number)


def numbered(name: str, number: int) -> str:
    """Return the name with its number; zero has none."""
    return f"{name}_{number}" if number else name
