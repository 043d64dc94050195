"""SegFormer3D gives the numbers of the published program and of medicai."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from medkit.nn import SegFormer3D
from medkit.testing import assert_close
from unit.nn.segformers import GOLDEN, TINY, filled, golden, medicai_state

PUBLISHED = golden("segformer3d_orig.npz")
MEDICAI = golden("medicai_segformer3d_tiny_io.npz")
MEDICAI_WEIGHTS = GOLDEN / "medicai_segformer3d_tiny.weights.h5"


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def scaled(expected: np.ndarray, tolerance: float) -> float:
    """Tolerance relative to the largest value: float32 sums of a thousand terms round like it."""
    return tolerance * float(np.abs(expected).max())


def tiny(dtype: torch.dtype) -> SegFormer3D:
    return filled(SegFormer3D(2, 3, **TINY, profile="segformer3d_published", dtype=dtype)).eval()


def test_tensor_names_shapes_and_order_are_those_published() -> None:
    expected = json.loads((GOLDEN / "segformer3d_state_dict.json").read_text())

    state = SegFormer3D(device="meta").state_dict()

    assert [[name, list(tensor.shape)] for name, tensor in state.items()] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_default_network_equals_the_published_program(dtype: torch.dtype) -> None:
    model = filled(SegFormer3D(profile="segformer3d_published", dtype=dtype)).eval()
    x = normal(11, 1, 4, 64, 64, 64).to(dtype)

    with torch.no_grad():
        maps, y = model.features(x), model(x)

    assert_close(y[:, :, ::8, ::8, ::8], PUBLISHED["full_y"], atol=1e-5)
    assert_close(y.double().mean(), PUBLISHED["full_y_mean"].item(), atol=1e-5)
    assert_close(y.double().std(correction=0), PUBLISHED["full_y_std"].item(), atol=1e-5)
    # the stored maps are off by up to 2.3e-5, where they reach 4, from the same in float64
    for found, name in ((maps.c1[:, :, ::4, ::4, ::4], "full_c1_sub"), (maps.c4, "full_c4")):
        assert_close(found, PUBLISHED[name], atol=scaled(PUBLISHED[name], 1e-5), message=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_network_equals_the_published_program(dtype: torch.dtype) -> None:
    model, x = tiny(dtype), torch.from_numpy(PUBLISHED["tiny_x"]).to(dtype)

    with torch.no_grad():
        maps, y = model.features(x), model(x)

    assert_close(y, PUBLISHED["tiny_y"], atol=1e-5)
    for index, level in enumerate(maps, start=1):
        assert_close(level, PUBLISHED[f"tiny_c{index}"], atol=1e-5, message=f"c{index}")


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_training_step_equals_the_published_program(dtype: torch.dtype, checkpoint: bool) -> None:
    model = tiny(dtype).train()
    model.segformer_encoder.checkpoint = checkpoint
    x = torch.from_numpy(PUBLISHED["tiny_x"]).to(dtype).requires_grad_()

    y = model(x)
    (y * normal(13, 2, 3, 32, 32, 32)).sum().backward()

    assert_close(y[:, :, ::4, ::4, ::4], PUBLISHED["tiny_train_y_sub"], atol=1e-5)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    found = {
        name: gradients[name.partition("/")[2]]
        for name in PUBLISHED
        if name.startswith("tiny_grad/")
    }
    assert x.grad is not None
    found["tiny_grad_x_sub"] = x.grad[:, :, ::4, ::4, ::4]
    assert len(found) == 5
    for name, gradient in found.items():
        # the stored gradients are off by up to 2e-5 of the largest from the same in float64:
        # the batch statistics of stage 4 are those of two values
        assert_close(gradient, PUBLISHED[name], atol=scaled(PUBLISHED[name], 1e-4), message=name)
    for name, expected in PUBLISHED.items():
        if name.startswith("tiny_after"):
            buffer = model.get_buffer(name.partition("/")[2])
            assert_close(buffer, expected, atol=1e-6, message=name)


def test_the_scale_of_the_attention_is_a_matter_of_the_query() -> None:
    """The later scale is the published one with queries rescaled: so it has its numbers, too."""
    published = tiny(torch.float64)
    later = SegFormer3D(2, 3, **TINY, dtype=torch.float64).eval()
    state = published.state_dict()
    for name, tensor in state.items():
        if "attention.query" in name:
            stage = int(name.partition("tf_block")[2][0]) - 1
            heads = TINY["num_heads"][stage]
            state[name] = tensor * (TINY["embed_dims"][stage] / heads / heads) ** 0.5
    later.load_state_dict(state)

    with torch.no_grad():
        y = later(torch.from_numpy(PUBLISHED["tiny_x"]).double())

    assert_close(y, PUBLISHED["tiny_y"], atol=1e-5)


def medicai_logits(model: SegFormer3D) -> Tensor:
    model.load_state_dict(_with_counters(model))
    x = torch.from_numpy(MEDICAI["x"]).movedim(-1, 1)
    with torch.no_grad():
        return model.eval()(x.to(next(model.parameters()).dtype))


def _with_counters(model: SegFormer3D) -> dict[str, Tensor]:
    """Keras counts no batches; everything else must be in its file, and nothing more."""
    counters = {n: b for n, b in model.named_buffers() if n.endswith("num_batches_tracked")}
    return medicai_state(MEDICAI_WEIGHTS, depths=TINY["depths"]) | counters


def test_medicai_weights_give_the_logits_and_maps_of_medicai() -> None:
    model = SegFormer3D(2, 3, **TINY, profile="medicai", norm_eps=1e-5)

    logits = medicai_logits(model)

    assert_close(logits.movedim(1, -1), MEDICAI["logits"], atol=1e-5)
    with torch.no_grad():
        maps = model.features(torch.from_numpy(MEDICAI["x"]).movedim(-1, 1))
    for index, level in enumerate(maps, start=1):
        assert_close(level.movedim(1, -1), MEDICAI[f"P{index}"], atol=1e-5, message=f"P{index}")


@pytest.mark.parametrize(
    ("options", "cost"),
    [
        ({"profile": "medicai"}, 1e-5),  # LayerNorm epsilon 1e-6 of mit_b0 to mit_b5
        ({"profile": "segformer3d", "norm_eps": 1e-5}, 1e-3),  # GELU and batch norm
        ({"profile": "segformer3d_published", "norm_eps": 1e-5}, 1.0),  # and the scale
    ],
)
def test_another_profile_is_told_apart(options: dict[str, object], cost: float) -> None:
    logits = medicai_logits(SegFormer3D(2, 3, **TINY, **options, dtype=torch.float64))

    off = (logits.movedim(1, -1) - torch.from_numpy(MEDICAI["logits"])).abs().max()
    assert off > cost
