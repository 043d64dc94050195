"""SegFormers beside medicai itself, in 2-D and 3-D, at sizes that no reduction divides."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
pytest.importorskip("medicai")
if keras.backend.backend() != "torch":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

from medicai.models import MiTBackbone, SegFormer  # noqa: E402

from medkit.nn import SegFormer2D, SegFormer3D  # noqa: E402
from medkit.testing import assert_close  # noqa: E402
from unit.nn.segformers import TINY, medicai_state  # noqa: E402

# Keras asks its tensors for arrays in a way that NumPy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZES = {3: 44, 2: 76}
SR_RATIOS = {3: (4, 2, 1, 1), 2: (8, 4, 2, 1)}


class Pair(NamedTuple):
    """medicai's network and ours, with the same weights."""

    theirs: keras.Model
    ours: nn.Module


@pytest.fixture(params=[2, 3])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    dims: int = request.param
    backbone = MiTBackbone(
        input_shape=(*(SIZES[dims],) * dims, 2),
        max_drop_path_rate=0.0,
        project_dim=list(TINY["embed_dims"]),
        sr_ratios=list(SR_RATIOS[dims]),
        num_heads=list(TINY["num_heads"]),
        depths=list(TINY["depths"]),
        mlp_ratios=list(TINY["mlp_ratios"]),
    )
    theirs = SegFormer(
        encoder=backbone, num_classes=3, decoder_head_embedding_dim=TINY["decoder_dim"]
    )
    random = np.random.default_rng(dims)
    for variable in theirs.weights:
        noise = 0.1 * random.standard_normal(variable.shape)
        variable.assign(
            variable.value.detach().numpy() + (abs(noise) if "variance" in variable.path else noise)
        )
    theirs.save_weights(tmp_path / "x.weights.h5")
    kind = SegFormer3D if dims == 3 else SegFormer2D
    ours = kind(2, 3, **TINY, profile="medicai", norm_eps=1e-5, drop_path_rate=0.0)
    state = medicai_state(tmp_path / "x.weights.h5", depths=TINY["depths"])
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return Pair(theirs, ours)


def image(pair: Pair, samples: int) -> Tensor:
    dims = len(pair.theirs.input_shape) - 2
    return torch.randn(samples, 2, *(SIZES[dims],) * dims)


def theirs(pair: Pair, x: Tensor, *, training: bool) -> Tensor:
    with torch.no_grad():
        return pair.theirs(x.movedim(1, -1), training=training).movedim(-1, 1)


def test_logits_are_equal_in_evaluation(pair: Pair) -> None:
    x = image(pair, 1)

    with torch.no_grad():
        y = pair.ours.eval()(x)

    assert_close(y, theirs(pair, x, training=False), atol=1e-5)


def test_logits_and_statistics_are_equal_in_training(pair: Pair, tmp_path: Path) -> None:
    x = image(pair, 2)

    with torch.no_grad():
        y = pair.ours.train()(x)

    assert_close(y, theirs(pair, x, training=True), atol=1e-5)
    pair.theirs.save_weights(tmp_path / "after.weights.h5")
    after = medicai_state(tmp_path / "after.weights.h5", depths=TINY["depths"])
    for name, buffer in pair.ours.named_buffers():
        if "running" in name:
            assert_close(buffer, after[name], rtol=1e-5, atol=1e-6, message=name)
