"""ResNet V2 of Keras: our tensors are named as its layers, with a dot behind the block.

Layers stand in the order of ``model.layers``, in which Keras 3 numbers them by class. Checked
against ``keras.applications`` of Keras 3.15.
"""

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from ._keras_layer import (
    BATCH_NORM,
    CONV,
    CONV_WITHOUT_BIAS,
    DENSE,
    Counted,
    Layer,
)


class _Row(NamedTuple):
    """One layer of a block: the end of its name and its class."""

    name: str
    kind: str


_START = (
    _Row("input_layer", "input_layer"),
    _Row("conv1_pad", "zero_padding2d"),
    _Row("conv1_conv", "conv2d"),
    _Row("pool1_pad", "zero_padding2d"),
    _Row("pool1_pool", "max_pooling2d"),
)

_BLOCK = (
    _Row("preact_bn", "batch_normalization"),
    _Row("preact_relu", "activation"),
    _Row("1_conv", "conv2d"),
    _Row("1_bn", "batch_normalization"),
    _Row("1_relu", "activation"),
    _Row("2_pad", "zero_padding2d"),
    _Row("2_conv", "conv2d"),
    _Row("2_bn", "batch_normalization"),
    _Row("2_relu", "activation"),
    _Row("0_conv", "conv2d"),  # in the first block of a stage
    _Row("max_pooling2d", "max_pooling2d"),  # in the last block of the first three
    _Row("3_conv", "conv2d"),
    _Row("out", "add"),
)

_END = (
    _Row("post_bn", "batch_normalization"),
    _Row("post_relu", "activation"),
    _Row("avg_pool", "global_average_pooling2d"),
    _Row("dense", "dense"),
    _Row("dropout", "dropout"),
    _Row("predictions", "dense"),
)

_VARIABLES = {"batch_normalization": BATCH_NORM, "conv2d": CONV, "dense": DENSE}


def resnet_v2_layers(tensors: Collection[str]) -> Iterator[Layer]:
    """Yield the layers of a ResNet V2 file.

    Args:
        tensors: Names of the tensors of our network, which tell its depth and its head.
    """
    table = _Table(tensors)
    blocks = _blocks(tensors)
    yield from table.rows(_START)
    for block, following in zip(blocks, [*blocks[1:], ""], strict=True):
        stage = block.partition("_")[0]
        strided = stage not in ("conv5", following.partition("_")[0])
        yield from table.rows(_BLOCK, block, strided=strided)
    yield from table.rows(_END)


def _blocks(tensors: Collection[str]) -> list[str]:
    """Return the names of the blocks in order: ``conv2_block1`` and so on."""
    numbers = {
        (int(match[1]), int(match[2]))
        for name in tensors
        if (match := re.match(r"conv(\d)_block(\d+)\.", name))
    }
    return [f"conv{stage}_block{block}" for stage, block in sorted(numbers)]


class _Table:
    """Turns rows into layers, and numbers them on the way."""

    def __init__(self, tensors: Collection[str]) -> None:
        self._tensors = frozenset(tensors)
        self._place = Counted()
        self._name = Counted()

    def rows(
        self, rows: tuple[_Row, ...], block: str = "", *, strided: bool = False
    ) -> Iterator[Layer]:
        """Yield the layers of a table that the network has."""
        for row in rows:
            module = f"{block}.{row.name}" if block else row.name
            variables = _VARIABLES.get(row.kind, ())
            if variables and f"{module}.weight" not in self._tensors:
                continue
            if row.name == "max_pooling2d" and not strided:
                continue
            if row.name == "dropout" and "dense.weight" not in self._tensors:
                continue
            if row.kind == "conv2d" and f"{module}.bias" not in self._tensors:
                variables = CONV_WITHOUT_BIAS
            counted = row.kind in ("dense", row.name)
            name = self._name(row.kind) if counted else module.replace(".", "_")
            path = f"layers/{self._place(row.kind)}"
            yield Layer(path, name, variables, module, own_name=not counted)
