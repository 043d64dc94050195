"""medicai's SegFormer: where its file keeps what the published network names otherwise.

Layers stand in the order in which medicai makes them, from which the numbers in their names
follow. The file numbers the layers of a class in the order of ``model.layers`` instead, which is
sorted by depth: the branches of the decoder come as c2, c3, c4, c1.

Checked against medicai 0.0.4 with Keras 3.8 and 3.15.
"""

from collections.abc import Collection, Iterator
from itertools import count
from typing import NamedTuple

from ._keras_layer import (
    BATCH_NORM,
    CONV,
    DENSE,
    FUSION,
    LAYER_NORM,
    Counted,
    Layer,
    numbered,
)


class _Row(NamedTuple):
    """One line of a table."""

    path: str
    """Below the path of the whole; ``{d}`` is the number of spatial axes."""
    kind: str
    """The class, from which Keras makes the name where it has none."""
    module: str = ""
    """Below the module of the whole; empty for a layer without variables."""
    part: int = 0
    parts: int = 1
    name: str = ""


_VARIABLES = {
    "batch_normalization": BATCH_NORM,
    "conv{d}d": CONV,
    "dense": DENSE,
    "fusion": FUSION,
    "layer_normalization": LAYER_NORM,
}

_EMBEDDING = (
    _Row("", "overlapping_patching_and_embedding", name="overlap_patch_and_embed_{stage}"),
    _Row("padding", "zero_padding{d}d"),
    _Row("proj", "conv{d}d", "patch_embeddings"),
    _Row("norm", "layer_normalization", "norm"),
)

_BLOCK = (
    _Row("", "hierarchical_transformer_encoder", name="hierarchical_encoder_{stage}_{block}"),
    _Row("norm1", "layer_normalization", "norm1"),
    _Row("attn", "seg_former_multihead_attention"),
    _Row("attn/q", "dense", "attention.query"),
    _Row("attn/k", "dense", "attention.key_value", part=0, parts=2),
    _Row("attn/v", "dense", "attention.key_value", part=1, parts=2),
    _Row("attn/proj", "dense", "attention.proj"),
    _Row("attn/sr", "conv{d}d", "attention.sr"),
    _Row("attn/norm", "layer_normalization", "attention.sr_norm"),
    _Row("attn/dropout", "dropout"),
    _Row("attn/proj_drop", "dropout"),
    _Row("norm2", "layer_normalization", "norm2"),
    _Row("mlp", "mix_ffn"),
    _Row("mlp/fc1", "dense", "mlp.fc1"),
    _Row("mlp/dwconv", "sequential"),
    _Row("mlp/dwconv/layers/conv{d}d", "conv{d}d", "mlp.dwconv.dwconv"),
    _Row(
        "mlp/dwconv/layers/batch_normalization",
        "batch_normalization",
        "mlp.dwconv.bn",
        name="dwconv_bn",
    ),
    _Row("mlp/fc2", "dense", "mlp.fc2"),
    _Row("mlp/dropout1", "dropout"),
    _Row("mlp/dropout2", "dropout"),
    _Row("drop_path", "drop_path"),
)

_LEVELS = {4: 2, 3: 1, 2: 0, 1: 3}
"""The levels of the decoder as they are made, with their places in ``model.layers``."""

_END = (
    _Row("layers/concatenate", "concatenate"),
    _Row("layers/conv{d}d", "fusion", "linear_fuse.0", name="linear_fuse_conv_conv_{d}D"),
    _Row(
        "layers/batch_normalization",
        "batch_normalization",
        "linear_fuse.1",
        name="linear_fuse_conv_norm_{d}D",
    ),
    _Row("layers/re_lu", "re_lu", name="linear_fuse_conv_activation"),
    _Row("layers/dropout", "dropout"),
    _Row("layers/conv{d}d_1", "conv{d}d", "linear_pred"),
    _Row("layers/resizing_nd_3", "resizing_nd", name="resize_op4"),
    _Row("layers/activation", "activation", name="predictions"),
    _Row("", "", name="SegFormer{d}D"),
)

_SIZES: dict[tuple[int, ...], str] = {
    (32, 2, 2, 2, 2): "MixViTB0",
    (64, 2, 2, 2, 2): "MixViTB1",
    (64, 3, 4, 6, 3): "MixViTB2",
    (64, 3, 4, 18, 3): "MixViTB3",
    (64, 3, 8, 27, 3): "MixViTB4",
    (64, 3, 6, 40, 3): "MixViTB5",
}
"""Width of the first stage and depths of the named encoders; any other is called ``mit``."""


def segformer_layers(tensors: Collection[str], *, dims: int, width: int) -> Iterator[Layer]:
    """Yield the layers of a SegFormer file.

    Args:
        tensors: Names of the tensors of our network, which tell its depths.
        dims: Number of spatial axes.
        width: Channels of the first stage.
    """
    table = _Table(tensors, dims)
    encoder, decoder = "segformer_encoder", "segformer_decoder"
    depths = tuple(table.depth(f"{encoder}.tf_block{stage}") for stage in (1, 2, 3, 4))
    yield Layer("layers/input_layer", "mixvit_input")
    number = 0
    for stage, depth in enumerate(depths):
        path = numbered("layers/overlapping_patching_and_embedding", stage)
        yield from table.rows(_EMBEDDING, path, f"{encoder}.embed_{stage + 1}", stage=stage)
        for block in range(depth):
            path = numbered("layers/hierarchical_transformer_encoder", number)
            module = f"{encoder}.tf_block{stage + 1}.{block}"
            yield from table.rows(_BLOCK, path, module, stage=stage, block=block)
            number += 1
        path = numbered("layers/layer_normalization", stage)
        norm = _Row("", "layer_normalization", f"norm{stage + 1}")
        yield from table.rows((norm,), path, encoder)
        path = numbered("layers/reshape", stage)
        yield from table.rows((_Row("", "reshape"),), path)
    yield Layer("encoder", f"{_SIZES.get((width, *depths), 'mit')}{dims}D")
    for level, place in _LEVELS.items():
        yield from table.level(f"{decoder}.linear_c{level}", level, place)
    yield from table.rows(_END, "", decoder)


class _Table:
    """Turns rows into layers, and numbers the names on the way."""

    def __init__(self, tensors: Collection[str], dims: int) -> None:
        self._tensors = frozenset(tensors)
        self._dims = dims
        self._next = Counted()

    def depth(self, blocks: str) -> int:
        """Return how many blocks a stage has."""
        return next(i for i in count() if f"{blocks}.{i}.norm1.weight" not in self._tensors)

    def rows(
        self, rows: tuple[_Row, ...], path: str, module: str = "", *, stage: int = 0, block: int = 0
    ) -> Iterator[Layer]:
        """Yield the layers of a table whose variables the network has."""
        for row in rows:
            ours = f"{module}.{row.module}" if row.module else ""
            if ours and f"{ours}.weight" not in self._tensors:
                continue
            own = row.name.format(d=self._dims, stage=stage, block=block)
            name = own or self._next(row.kind.format(d=self._dims))
            below = "/".join(part for part in (path, row.path) if part)
            variables = _VARIABLES[row.kind] if ours else ()
            yield Layer(below.format(d=self._dims), name, variables, ours, row.part, row.parts)

    def level(self, module: str, level: int, place: int) -> Iterator[Layer]:
        """Yield the branch of the decoder for one level of the pyramid."""
        rows = (
            _Row(numbered("layers/dense", place), "dense", "proj"),
            _Row(f"layers/layer_normalization_{place + 4}", "layer_normalization", "bn"),
            _Row(f"layers/reshape_{place + 4}", "reshape"),
        )
        yield from self.rows(rows, "", module)
        self._next("reshape")  # medicai makes a second one, which is not part of the model
        if level > 1:
            yield Layer(numbered("layers/resizing_nd", place), f"resize_op{5 - level}")
