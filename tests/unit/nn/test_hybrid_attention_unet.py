"""The OCT network: counts, the published program's names and numbers, edges, any size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medkit.nn import HybridAttentionUNet, sobel_magnitude
from medkit.testing import assert_close
from unit.nn.segformers import filled

GOLDEN = Path(__file__).parents[2] / "golden" / "oct"
PARTS = {
    "encoder1": 9_696,
    "encoder2": 55_680,
    "encoder3": 221_952,
    "encoder4": 886_272,
    "bottleneck": 3_542_016,
    "upconv4": 524_544,
    "upconv3": 131_200,
    "upconv2": 32_832,
    "upconv1": 8_224,
    "decoder4": 1_771_008,
    "decoder3": 443_136,
    "decoder2": 110_976,
    "decoder1": 27_840,
    "edge_att1": 12_899,
    "edge_att2": 50_371,
    "spatial_att3": 320_707,
    "spatial_att4": 1_280_387,
    "final_conv": 99,
}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def first_channel(x: Tensor) -> Tensor:
    return x[:, :1]


def published() -> tuple[HybridAttentionUNet, Tensor, dict[str, Tensor]]:
    model = filled(HybridAttentionUNet(2, 3, base_channels=4, edges=first_channel))
    x = np.random.default_rng(11).standard_normal((2, 2, 32, 48)).astype(np.float32)
    with np.load(GOLDEN / "hybrid_attention_unet.npz") as arrays:
        expected = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return model, torch.from_numpy(x), expected


@pytest.mark.parametrize(
    ("base_channels", "expected"), [(16, 2_361_263), (32, 9_429_839), (64, 37_688_975)]
)
def test_sizes_are_the_published_ones(base_channels: int, expected: int) -> None:
    assert count(HybridAttentionUNet(base_channels=base_channels, device="meta")) == expected


def test_parts_have_the_published_sizes() -> None:
    model = HybridAttentionUNet(base_channels=32, device="meta")

    assert {n: count(c) for n, c in model.named_children() if count(c)} == PARTS


def test_tensors_have_the_published_names_and_shapes() -> None:
    state = HybridAttentionUNet(1, 3, base_channels=32, device="meta").state_dict()

    expected = json.loads((GOLDEN / "state_dict.json").read_text())
    assert {name: list(tensor.shape) for name, tensor in state.items()} == expected
    assert {"encoder1.conv_block.0.weight", "final_conv.weight"} < set(state)


def test_multiply_adds() -> None:
    model = HybridAttentionUNet(base_channels=32, device="meta").eval()

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 1, 480, 768, device="meta"))

    assert counter.get_total_flops() / 2e9 == pytest.approx(89.97, rel=0.005)


def test_logits_are_those_of_the_published_program() -> None:
    model, x, expected = published()

    with torch.no_grad():
        y = model.eval()(x)

    assert_close(y, expected["y"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_training_step_is_that_of_the_published_program(checkpoint: bool) -> None:
    model, x, expected = published()
    model.checkpoint = checkpoint

    y = model.train()(x)
    w = np.random.default_rng(13).standard_normal(tuple(y.shape)).astype(np.float32)
    (y * torch.from_numpy(w)).sum().backward()

    assert_close(y, expected["train_y"], atol=1e-5, rtol=1e-5)
    mean = model.get_buffer("bottleneck.conv_block.1.running_mean")
    assert_close(mean, expected["after_mean"], atol=1e-6)
    for name, gradient in expected.items():
        if name.startswith("grad:"):
            found = model.get_parameter(name.removeprefix("grad:")).grad
            assert_close(found, gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))


@pytest.mark.parametrize("size", [(16, 17), (33, 62), (496, 40)])
def test_logits_have_the_size_of_the_input(size: tuple[int, int]) -> None:
    model = HybridAttentionUNet(1, 4, base_channels=2).eval()

    maps = model.features(torch.randn(1, 1, *size))

    assert model(torch.randn(1, 1, *size)).shape == (1, 4, *size)
    for level, m in enumerate(maps):
        assert m.shape[2:] == tuple(-(-n // 2**level) for n in size)


def test_a_mirrored_network_mirrors_its_output() -> None:
    model = HybridAttentionUNet(base_channels=4).double().eval()
    mirrored = HybridAttentionUNet(base_channels=4).double().eval()
    state = {n: t.flip(-1) if t.ndim == 4 else t for n, t in model.state_dict().items()}
    mirrored.load_state_dict(state)
    x = torch.randn(1, 1, 32, 48, dtype=torch.float64)

    assert_close(mirrored(x.flip(-1)), model(x).flip(-1), atol=1e-10)


def test_an_edge_image_made_beforehand_takes_the_place_of_the_function() -> None:
    called: list[tuple[int, ...]] = []

    def edges(x: Tensor) -> Tensor:
        called.append(tuple(x.shape[2:]))
        image = torch.ones_like(x[:, :1])
        image[..., : x.shape[-1] // 2] = 0
        return image

    model = HybridAttentionUNet(base_channels=2, edges=edges).eval()
    x = torch.randn(1, 1, 32, 64)
    image = edges(x)
    called.clear()

    y = model(x, edges=image)

    assert not called
    assert_close(y, model(x), atol=1e-6)
    assert called == [(16, 32), (32, 64)]
    assert not torch.equal(y, model(x, edges=torch.zeros_like(image)))


def test_gradients_pass_through_the_edges() -> None:
    model = HybridAttentionUNet(base_channels=2).eval()
    x = torch.randn(1, 1, 32, 32, requires_grad=True)

    full = torch.autograd.grad(model(x).square().sum(), x)[0]
    model.edges = lambda m: sobel_magnitude(m.detach())
    part = torch.autograd.grad(model(x).square().sum(), x)[0]

    assert not torch.allclose(full, part)


def test_dropout_gives_samples_while_training_alone() -> None:
    model = HybridAttentionUNet(base_channels=4, dropout=0.5).eval()
    x = torch.randn(1, 1, 32, 32)
    assert torch.equal(model(x), model(x))

    model.dropout.train()

    samples = torch.stack([model(x) for _ in range(4)])
    assert float((samples.std(0) > 0).float().mean()) > 0.9


def test_initial_weights_are_those_of_he() -> None:
    model = HybridAttentionUNet(base_channels=32)
    conv = model.get_parameter("bottleneck.conv_block.3.weight")

    assert float(conv.detach().std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert not model.get_parameter("bottleneck.conv_block.3.bias").any()


def test_edges_are_those_of_scipy() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 9))
    squares = [
        [sum((ndimage.sobel(c, axis, mode="nearest") / 8) ** 2 for axis in (0, 1)) for c in image]
        for image in x
    ]

    expected = np.sqrt(np.mean(squares, axis=1, keepdims=True))

    assert_close(sobel_magnitude(torch.from_numpy(x)), torch.from_numpy(expected), atol=1e-13)


def test_edges_have_exact_and_finite_gradients() -> None:
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sobel_magnitude, x)

    flat = torch.ones(1, 1, 4, 4, requires_grad=True)
    sobel_magnitude(flat).sum().backward()
    assert torch.equal(flat.grad, torch.zeros_like(flat))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_edges_of_half_precision_do_not_overflow(dtype: torch.dtype) -> None:
    x = 3e4 * torch.arange(4).remainder(2).to(dtype).expand(1, 1, 4, 4)

    assert sobel_magnitude(x).dtype is dtype
    assert bool(sobel_magnitude(x).isfinite().all())


def test_edges_of_a_volume_are_refused() -> None:
    with pytest.raises(ValueError, match=r"input must be \(batch, channel, height, width\)"):
        sobel_magnitude(torch.zeros(1, 1, 4, 4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_channels": 0}, "base_channels must be at least 1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
    ],
)
def test_wrong_options_are_named(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HybridAttentionUNet(**options)


def test_too_small_an_input_is_refused() -> None:
    with pytest.raises(ValueError, match="input must be at least 16 along height, width"):
        HybridAttentionUNet(base_channels=2)(torch.zeros(1, 1, 32, 15))
