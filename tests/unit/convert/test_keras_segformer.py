"""SegFormer files of medicai: every array finds its place, from file to network and back."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medkit.convert import load_keras_weights, save_keras_weights
from medkit.convert._keras_layer import slots
from medkit.convert._medicai_segformer import segformer_layers
from medkit.nn import SegFormer2D, SegFormer3D
from medkit.testing import assert_close
from unit.convert.trees import golden_tree, numbered_from_the_first, tree
from unit.nn.segformers import GOLDEN, TINY, filled, golden, medicai_state

WEIGHTS = GOLDEN / "medicai_segformer3d_tiny.weights.h5"
IO = golden("medicai_segformer3d_tiny_io.npz")


def tiny(**options: object) -> SegFormer3D:
    return SegFormer3D(2, 3, **{**TINY, "profile": "medicai", "norm_eps": 1e-5, **options}).eval()


def error(model: nn.Module) -> float:
    """Return the largest difference of the logits from those of medicai."""
    with torch.no_grad():
        y = model(torch.from_numpy(IO["x"]).movedim(-1, 1)).movedim(1, -1)
    return (y - torch.from_numpy(IO["logits"])).abs().max().item()


def test_logits_are_those_of_medicai() -> None:
    model = tiny()

    load_keras_weights(model, WEIGHTS)

    assert error(model) < 1e-5


def test_every_tensor_is_the_one_that_another_reader_finds() -> None:
    model = tiny()

    report = load_keras_weights(model, WEIGHTS)

    expected = medicai_state(WEIGHTS, depths=TINY["depths"])
    assert set(report.loaded) == set(expected)
    state = model.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def test_layers_without_variables_are_reported() -> None:
    report = load_keras_weights(tiny(), WEIGHTS)

    assert {"encoder", "layers/activation", "layers/dropout", "layers/reshape_7"} <= {
        *report.skipped
    }
    assert not any(part.endswith("vars") for part in report.skipped)


def _reversed_fusion(model: nn.Module) -> None:
    weight = model.segformer_decoder.linear_fuse[0].weight
    weight.copy_(torch.cat(weight.chunk(4, 1)[::-1], 1))


def _exact_gelu(model: nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, nn.GELU):
            part.approximate = "none"


def _swapped_key_and_value(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if "key_value" in name:
            parameter.copy_(torch.cat(parameter.chunk(2)[::-1]))


def _scaled_by_heads(model: nn.Module) -> None:
    for part in model.modules():
        if hasattr(part, "num_heads"):
            part.scale = part.num_heads**-0.5


def _epsilon_of_torch(model: nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, nn.BatchNorm3d):
            part.eps = 1e-5


def _other_layer_norms(model: nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = 1e-6


@pytest.mark.parametrize(
    ("mistake", "cost"),
    [
        (_reversed_fusion, 1.9),
        (_scaled_by_heads, 1.6),
        (_swapped_key_and_value, 1.0),
        (_epsilon_of_torch, 1.8e-3),
        (_exact_gelu, 4e-4),
        (_other_layer_norms, 4e-5),
    ],
)
def test_a_mistake_costs_more_than_the_tolerance(mistake, cost: float) -> None:
    model = tiny()
    load_keras_weights(model, WEIGHTS)

    with torch.no_grad():
        mistake(model)

    assert error(model) > cost


def test_the_epsilon_of_another_encoder_costs_more_than_the_tolerance() -> None:
    """A file of ``MiTBackbone`` in a network with the epsilon of ``mit_b0``."""
    model = tiny(norm_eps=1e-6)

    load_keras_weights(model, WEIGHTS)

    assert error(model) > 1.1e-5


def test_another_precision_takes_the_same_values() -> None:
    model = tiny(dtype=torch.float64)

    load_keras_weights(model, WEIGHTS)

    for name, tensor in medicai_state(WEIGHTS, depths=TINY["depths"]).items():
        assert torch.equal(model.state_dict()[name], tensor.double()), name


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("tiny_3d", tiny()),
        ("mit_b0_3d", SegFormer3D(1, 3, profile="medicai")),
        ("mit_b0_2d", SegFormer2D(3, 3, profile="medicai")),
    ],
)
def test_files_have_the_tree_of_medicai(tmp_path: Path, name: str, model: nn.Module) -> None:
    save_keras_weights(model, tmp_path / "x.weights.h5")

    ours, theirs = tree(tmp_path / "x.weights.h5"), golden_tree(name)

    if name == "mit_b0_2d":  # the second network of its process
        ours, theirs = numbered_from_the_first(ours), numbered_from_the_first(theirs)
    assert ours == theirs


@pytest.mark.parametrize("kind", [SegFormer2D, SegFormer3D])
def test_what_is_saved_is_loaded(tmp_path: Path, kind: type[SegFormer3D]) -> None:
    options = {**TINY, "depths": (1, 3, 2, 12), "profile": "medicai"}
    ours, other = filled(kind(2, 3, **options)), kind(2, 3, **options)

    save_keras_weights(ours, tmp_path / "x.weights.h5")
    report = load_keras_weights(other, tmp_path / "x.weights.h5")

    assert len(report.loaded) == sum("num_batches" not in name for name in ours.state_dict())
    for name, tensor in ours.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(other.state_dict()[name], tensor), name


@pytest.mark.parametrize("variant", ["b0", "b1", "b2", "b3", "b4", "b5"])
@pytest.mark.parametrize(("kind", "dims"), [(SegFormer2D, 2), (SegFormer3D, 3)])
def test_every_value_of_every_variant_has_one_place(variant: str, kind: type, dims: int) -> None:
    model = kind(1, 3, variant=variant, profile="medicai", device="meta")
    state = {n: t for n, t in model.state_dict().items() if "num_batches" not in n}
    width = model.segformer_encoder.embed_dims[0]

    layers = list(segformer_layers(state, dims=dims, width=width))

    filled_values = dict.fromkeys(state, 0)
    for slot in slots(layers):
        size = state[slot.tensor].numel()
        assert size % slot.layer.parts == 0
        filled_values[slot.tensor] += size // slot.layer.parts
    assert filled_values == {name: tensor.numel() for name, tensor in state.items()}
    paths = [layer.path for layer in layers]
    assert len(set(paths)) == len(paths)
    assert next(layer.name for layer in layers if layer.path == "encoder") == (
        f"MixViT{variant.upper()}{dims}D"
    )


def test_blocks_are_numbered_and_not_sorted_as_texts(tmp_path: Path) -> None:
    model = tiny(depths=(3, 4, 2, 3))
    save_keras_weights(model, tmp_path / "x.weights.h5")

    with h5py.File(tmp_path / "x.weights.h5") as file:
        third = np.asarray(file["layers/hierarchical_transformer_encoder_2/norm1/vars/0"])
        eleventh = np.asarray(file["layers/hierarchical_transformer_encoder_10/norm1/vars/0"])

    assert len(third) == 8
    assert len(eleventh) == 32


def test_saving_leaves_the_module_alone_and_does_not_share_memory(tmp_path: Path) -> None:
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    save_keras_weights(model, tmp_path / "x.weights.h5")

    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_values_are_taken_as_they_are(tmp_path: Path) -> None:
    """A file of a diverged training loads as it is: the values are the user's business."""
    ours, other = tiny(), tiny()
    with torch.no_grad():
        ours.segformer_encoder.norm1.bias[0] = torch.nan
    save_keras_weights(ours, tmp_path / "x.weights.h5")

    load_keras_weights(other, tmp_path / "x.weights.h5")

    bias: Tensor = other.segformer_encoder.norm1.bias
    assert bias.isnan().sum() == 1
    assert_close(bias[1:], ours.segformer_encoder.norm1.bias[1:])
