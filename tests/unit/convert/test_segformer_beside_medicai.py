"""SegFormers beside medicai itself: its files load here, and ours load there."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
pytest.importorskip("medicai")
if keras.backend.backend() != "torch":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

from medicai.models import MiTBackbone, SegFormer  # noqa: E402

from medkit.convert import load_keras_weights, save_keras_weights  # noqa: E402
from medkit.nn import SegFormer2D, SegFormer3D  # noqa: E402
from medkit.testing import assert_close  # noqa: E402
from unit.convert.trees import numbered_from_the_first, tree  # noqa: E402
from unit.nn.segformers import TINY, filled  # noqa: E402

# Keras asks its tensors for arrays in a way that NumPy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = {2: 76, 3: 44}
SR_RATIOS = {2: [8, 4, 2, 1], 3: [4, 2, 1, 1]}
DIMS = pytest.mark.parametrize("dims", [2, 3])


def theirs(dims: int, *, activation: str | None = None):
    """Return a small SegFormer of medicai with random weights and statistics."""
    backbone = MiTBackbone(
        input_shape=(*(SIZE[dims],) * dims, 2),
        project_dim=list(TINY["embed_dims"]),
        sr_ratios=SR_RATIOS[dims],
        num_heads=list(TINY["num_heads"]),
        depths=list(TINY["depths"]),
        mlp_ratios=list(TINY["mlp_ratios"]),
    )
    model = SegFormer(
        encoder=backbone,
        num_classes=3,
        classifier_activation=activation,
        decoder_head_embedding_dim=TINY["decoder_dim"],
    )
    randomize(model)
    return model


def randomize(model) -> None:
    """Move every variable, statistics of batch normalisation included."""
    random = np.random.default_rng(3)
    for variable in model.weights:
        noise = 0.1 * random.standard_normal(variable.shape) / np.sqrt(np.prod(variable.shape[:-1]))
        noise = abs(noise) if "variance" in variable.path else noise
        variable.assign(variable.value.detach().numpy() + noise)


def ours(dims: int) -> SegFormer2D | SegFormer3D:
    kind = {2: SegFormer2D, 3: SegFormer3D}[dims]
    return kind(2, 3, **TINY, profile="medicai", norm_eps=1e-5).eval()


def image(dims: int) -> torch.Tensor:
    return torch.randn(1, 2, *(SIZE[dims],) * dims)


@DIMS
@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_their_files_load_here(tmp_path: Path, dims: int, ending: str) -> None:
    model, other, x = theirs(dims), ours(dims), image(dims)
    path = tmp_path / f"x{ending}"
    model.save(path) if ending == ".keras" else model.save_weights(path)

    report = load_keras_weights(other, path)

    with torch.no_grad():
        assert_close(other(x), model(x.movedim(1, -1)).movedim(-1, 1), rtol=0, atol=1e-5)
    assert len(report.loaded) == len(model.weights) - 12  # two variables are one in six blocks


@DIMS
def test_our_files_load_there(tmp_path: Path, dims: int) -> None:
    model, other, x = theirs(dims, activation="softmax"), filled(ours(dims)), image(dims)

    save_keras_weights(other, tmp_path / "x.weights.h5")
    model.load_weights(tmp_path / "x.weights.h5")

    with torch.no_grad():
        expected = other(x).softmax(1)
        assert_close(model(x.movedim(1, -1)).movedim(-1, 1), expected, rtol=0, atol=1e-6)


@DIMS
def test_our_files_have_the_tree_of_theirs(tmp_path: Path, dims: int) -> None:
    theirs(dims).save_weights(tmp_path / "theirs.weights.h5")
    save_keras_weights(ours(dims), tmp_path / "ours.weights.h5")

    found, expected = (
        numbered_from_the_first(tree(tmp_path / f"{x}.weights.h5")) for x in ("ours", "theirs")
    )
    assert found == expected


def test_a_named_encoder_has_the_epsilon_of_the_profile(tmp_path: Path) -> None:
    model = SegFormer(input_shape=(64, 64, 3), encoder_name="mit_b0", num_classes=3)
    randomize(model)
    other, x = SegFormer2D(3, 3, variant="b0", profile="medicai").eval(), torch.randn(1, 3, 64, 64)
    model.save_weights(tmp_path / "b0.weights.h5")

    load_keras_weights(other, tmp_path / "b0.weights.h5")

    with torch.no_grad():
        assert_close(other(x), model(x.movedim(1, -1)).movedim(-1, 1), rtol=0, atol=1e-5)
