"""SegFormers whose weights are known: filled by name, or read from a file of medicai."""

import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

GOLDEN = Path(__file__).parents[2] / "golden" / "segformer3d"

TINY = {
    "embed_dims": (8, 16, 20, 32),
    "num_heads": (1, 2, 5, 8),
    "depths": (2, 1, 1, 2),
    "mlp_ratios": (2, 2, 4, 4),
    "decoder_dim": 24,
}
"""Sizes of the small networks in the golden files."""


def golden(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a golden file."""
    with np.load(GOLDEN / name) as arrays:
        return dict(arrays)


def filled(module: Module) -> Module:
    """Return the module with every tensor drawn from a generator seeded by its name."""
    state = module.state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            values = _by_name(name, tuple(tensor.shape)).astype(np.float32)
            state[name] = torch.from_numpy(values)
    module.load_state_dict(state)
    return module


def _by_name(name: str, shape: tuple[int, ...]) -> np.ndarray:
    a = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        return 0.5 + np.abs(a)
    if name.endswith("running_mean"):
        return 0.1 * a
    if a.ndim == 1 and name.endswith(".weight"):
        return 1 + 0.1 * a
    if name.endswith(".bias"):
        return 0.1 * a
    return a / math.sqrt(math.prod(shape[1:]))


def medicai_state(path: Path, *, depths: tuple[int, ...]) -> dict[str, Tensor]:
    """Return the tensors of a medicai SegFormer file under the published names.

    Groups of a class are numbered in the order of ``model.layers``, which is sorted by depth:
    the decoder's branches come as c2, c3, c4, c1.
    """
    with h5py.File(path) as file:
        return dict(_medicai_tensors(file["layers"], depths))


def _medicai_tensors(layers: h5py.Group, depths: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    def tensors(
        group: str, names: str, change: Callable[[np.ndarray], np.ndarray] = np.asarray
    ) -> Iterator[tuple[str, Tensor]]:
        values = [np.asarray(layers[f"{group}/vars/{i}"]) for i in range(len(names.split()))]
        values[0] = change(values[0])
        for name, value in zip(names.split(), values, strict=True):
            yield name, torch.from_numpy(np.ascontiguousarray(value))

    def numbered(group: str, index: int) -> str:
        return f"{group}_{index}" if index else group

    encoder, decoder = "segformer_encoder", "segformer_decoder"
    conv = next(name for name in ("conv3d", "conv2d") if name in layers)
    block = 0
    for stage, depth in enumerate(depths):
        source = numbered("overlapping_patching_and_embedding", stage)
        target = f"{encoder}.embed_{stage + 1}"
        yield from tensors(
            f"{source}/proj",
            f"{target}.patch_embeddings.weight {target}.patch_embeddings.bias",
            _conv,
        )
        yield from tensors(f"{source}/norm", f"{target}.norm.weight {target}.norm.bias")
        target = f"{encoder}.norm{stage + 1}"
        yield from tensors(numbered("layer_normalization", stage), f"{target}.weight {target}.bias")
        for index in range(depth):
            source = numbered("hierarchical_transformer_encoder", block)
            target = f"{encoder}.tf_block{stage + 1}.{index}"
            yield from _medicai_block(layers, tensors, source, target)
            block += 1
    for index, level in enumerate((2, 3, 4, 1)):
        target = f"{decoder}.linear_c{level}"
        yield from tensors(
            numbered("dense", index), f"{target}.proj.weight {target}.proj.bias", np.transpose
        )
        yield from tensors(
            f"layer_normalization_{index + 4}", f"{target}.bn.weight {target}.bn.bias"
        )
    yield from tensors(conv, f"{decoder}.linear_fuse.0.weight", _fusion)
    yield from tensors("batch_normalization", _batch_norm(f"{decoder}.linear_fuse.1"))
    target = f"{decoder}.linear_pred"
    yield from tensors(f"{conv}_1", f"{target}.weight {target}.bias", _conv)


def _medicai_block(
    layers: h5py.Group,
    tensors: Callable[..., Iterator[tuple[str, Tensor]]],
    source: str,
    target: str,
) -> Iterator[tuple[str, Tensor]]:
    for norm in ("norm1", "norm2"):
        yield from tensors(f"{source}/{norm}", f"{target}.{norm}.weight {target}.{norm}.bias")
    for ours, theirs in (
        ("attention.query", "attn/q"),
        ("attention.proj", "attn/proj"),
        ("mlp.fc1", "mlp/fc1"),
        ("mlp.fc2", "mlp/fc2"),
    ):
        names = f"{target}.{ours}.weight {target}.{ours}.bias"
        yield from tensors(f"{source}/{theirs}", names, np.transpose)
    key, value = (dict(tensors(f"{source}/attn/{x}", "weight bias", np.transpose)) for x in "kv")
    for name in ("weight", "bias"):
        yield f"{target}.attention.key_value.{name}", torch.cat((key[name], value[name]))
    if "sr" in layers[f"{source}/attn"]:
        names = f"{target}.attention.sr.weight {target}.attention.sr.bias"
        yield from tensors(f"{source}/attn/sr", names, _conv)
        names = f"{target}.attention.sr_norm.weight {target}.attention.sr_norm.bias"
        yield from tensors(f"{source}/attn/norm", names)
    dwconv = f"{source}/mlp/dwconv/layers"
    conv = next(name for name in ("conv3d", "conv2d") if name in layers[dwconv])
    names = f"{target}.mlp.dwconv.dwconv.weight {target}.mlp.dwconv.dwconv.bias"
    yield from tensors(f"{dwconv}/{conv}", names, _conv)
    yield from tensors(f"{dwconv}/batch_normalization", _batch_norm(f"{target}.mlp.dwconv.bn"))


def _batch_norm(target: str) -> str:
    return f"{target}.weight {target}.bias {target}.running_mean {target}.running_var"


def _conv(kernel: np.ndarray) -> np.ndarray:
    """From (kernel, in, out) to (out, in, kernel)."""
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def _fusion(kernel: np.ndarray) -> np.ndarray:
    """As a convolution, and with the levels from coarse to fine instead of fine to coarse."""
    return np.concatenate(np.split(_conv(kernel), 4, axis=1)[::-1], axis=1)
