"""SegFormer3D: counts, any size, axes, initial weights, precision, limits."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medkit.nn import SegFormer2D, SegFormer3D
from medkit.testing import assert_close
from unit.nn.segformers import TINY, filled

TOTALS = {  # medicai 0.0.4, keras 3.15.1: with the statistics of batch normalisation
    "b0": (4_501_027, 3_733_859),
    "b1": (16_623_939, 13_713_347),
    "b2": (25_950_275, 24_792_003),
    "b3": (41_237_315, 44_729_283),
    "b4": (54_087_043, 61_554_115),
    "b5": (69_955_779, 82_216_899),
}


def trainable(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def statistics(model: nn.Module) -> int:
    return sum(b.numel() for name, b in model.named_buffers() if "running" in name)


def test_published_number_of_parameters() -> None:
    model = SegFormer3D(device="meta")

    assert trainable(model) == 4_525_251
    assert trainable(model.segformer_encoder) == 4_127_680
    assert trainable(model.segformer_decoder) == 397_571
    assert sum(buffer.numel() for buffer in model.buffers()) == 8_713


@pytest.mark.parametrize("variant", TOTALS)
def test_parameters_of_the_variants(variant: str) -> None:
    volumes, images = TOTALS[variant]

    model = SegFormer3D(1, 3, variant=variant, device="meta")
    assert trainable(model) + statistics(model) == volumes

    model = SegFormer2D(3, 3, variant=variant, device="meta")
    assert trainable(model) + statistics(model) == images


def multiply_adds(size: int) -> float:
    def added_products(sums, left, right, **_: object) -> int:  # which PyTorch forgets in place
        return 2 * math.prod(left) * right[-1]

    model = SegFormer3D(device="meta").eval()
    more = {torch.ops.aten.baddbmm_: added_products}
    with FlopCounterMode(display=False, custom_mapping=more) as counter, torch.no_grad():
        model(torch.empty(1, 4, size, size, size, device="meta"))
    return counter.get_total_flops() / 2


def test_multiply_adds() -> None:
    """The published program takes 15.55e9 at 128^3 and 5.86e9 at 96^3, attention included."""
    assert multiply_adds(128) == pytest.approx(7.70e9, rel=1e-3)
    assert multiply_adds(96) < 0.45 * 5.86e9


def tiny(**options: object) -> SegFormer3D:
    return filled(SegFormer3D(2, 3, **{**TINY, **options})).eval()


@pytest.mark.parametrize("size", [(32, 32, 32), (33, 47, 64), (41, 32, 90), (37, 37, 37)])
@pytest.mark.parametrize("training", [False, True])
def test_logits_have_the_size_of_the_input(size: tuple[int, ...], training: bool) -> None:
    model = tiny().train(training)

    y = model(torch.randn(2, 2, *size))

    assert y.shape == (2, 3, *size)
    assert y.isfinite().all()


@pytest.mark.parametrize("order", list(itertools.permutations((0, 1, 2)))[1:])
def test_permuted_kernels_permute_the_output(order: tuple[int, ...]) -> None:
    axes = (0, 1, *(axis + 2 for axis in order))
    model, turned = tiny(dtype=torch.float64), tiny(dtype=torch.float64)
    state = {
        name: tensor.permute(axes) if tensor.ndim == 5 else tensor
        for name, tensor in model.state_dict().items()
    }
    turned.load_state_dict(state)
    x = torch.randn(1, 2, 34, 45, 56, dtype=torch.float64)

    with torch.no_grad():
        found, expected = turned(x.permute(axes)), model(x).permute(axes)

    assert_close(found, expected)


def test_evaluation_equals_training_with_the_statistics_of_the_batch() -> None:
    """What is folded in evaluation is what batch normalisation does in training."""
    model = tiny(dtype=torch.float64)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = 1.0
    x = torch.randn(2, 2, 40, 33, 48, dtype=torch.float64)

    with torch.no_grad():
        expected = model.train()(x)
    for norm, count in zip(norms, _counts(model, x), strict=True):
        norm.running_var *= (count - 1) / count
    with torch.no_grad():
        found = model.eval()(x)

    assert_close(found, expected)


def _counts(model: nn.Module, x: Tensor) -> list[int]:
    """Return how many values each batch normalisation averages over."""
    counts: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.register_forward_hook(lambda _, args, __: counts.append(args[0][:, 0].numel()))
    with torch.no_grad():
        model.eval()(x)
    for module in model.modules():
        module._forward_hooks.clear()
    return counts


def test_a_pruned_or_hooked_layer_is_not_folded_away() -> None:
    model, x = tiny(), torch.randn(1, 2, 32, 32, 32)
    with torch.no_grad():
        expected = model(x)
        calls: list[str] = []
        for name, module in model.named_modules():
            if name.endswith(("dwconv.dwconv", "dwconv.bn", "linear_fuse.1")):
                module.register_forward_hook(lambda *_, name=name: calls.append(name))
        found = model(x)

    assert len(calls) == 2 * sum(TINY["depths"]) + 1
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_alone() -> None:
    model, x = tiny(dropout=0.5), torch.randn(2, 2, 32, 32, 48)

    with torch.no_grad():
        assert torch.equal(model(x), tiny()(x))
        model.train()
        assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_float32(dtype: torch.dtype) -> None:
    model, x = tiny(), torch.randn(1, 2, 33, 40, 32)

    with torch.no_grad():
        expected = model(x)
        found = model.to(dtype)(x.to(dtype))

    assert found.dtype == dtype
    error = (found.float() - expected).norm() / expected.norm()
    assert error < {torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]


def standard_deviation(values: Tensor) -> Tensor:
    return values.double().std()


def test_published_initial_weights() -> None:
    model = SegFormer3D()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert_close(standard_deviation(module.weight), 0.02, rtol=0.05, message=name)
        elif isinstance(module, nn.Conv3d) and module.weight.numel() > 5000:
            fan_out = module.out_channels * math.prod(module.kernel_size)
            expected = math.sqrt(2 / fan_out)
            assert_close(standard_deviation(module.weight), expected, rtol=0.05, message=name)
        elif name.endswith("dwconv.dwconv"):
            expected = math.sqrt(2 / 27)
            assert_close(standard_deviation(module.weight), expected, rtol=0.1, message=name)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_initial_weights_of_keras() -> None:
    """Glorot's bound, of two Dense layers for keys and values, as in medicai."""
    model = SegFormer3D(profile="medicai")
    attention = model.segformer_encoder.get_submodule("tf_block4.0.attention")
    bounds = {
        "query": (attention.query.weight, math.sqrt(6 / (256 + 256))),
        "key_value": (attention.key_value.weight, math.sqrt(6 / (256 + 256))),
        "depthwise": (
            model.get_parameter("segformer_encoder.tf_block4.0.mlp.dwconv.dwconv.weight"),
            math.sqrt(6 / (27 + 27 * 1024)),
        ),
        "patch": (
            model.get_parameter("segformer_encoder.embed_1.patch_embeddings.weight"),
            math.sqrt(6 / (343 * 4 + 343 * 32)),
        ),
    }
    for name, (weight, bound) in bounds.items():
        assert_close(weight.detach().abs().max(), bound, rtol=2e-3, message=name)
        assert_close(standard_deviation(weight), bound / math.sqrt(3), rtol=0.03, message=name)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_arguments_replace_their_part_of_a_variant() -> None:
    model = SegFormer3D(variant="b2", depths=(1, 1, 1, 1), decoder_dim=32, device="meta")

    encoder = model.segformer_encoder
    assert encoder.embed_dims == (64, 128, 320, 512)
    assert [len(encoder.get_submodule(f"tf_block{stage}")) for stage in range(1, 5)] == [1] * 4
    assert model.segformer_decoder.linear_pred.weight.shape[1] == 32


def test_profiles_change_no_shape() -> None:
    shapes = [
        {n: t.shape for n, t in SegFormer3D(profile=profile, device="meta").state_dict().items()}
        for profile in ("segformer3d", "segformer3d_published", "medicai")
    ]

    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize(
    ("profile", "block", "others", "batch", "rate"),
    [("segformer3d", 1e-5, 1e-5, (1e-5, 0.1), 0.0), ("medicai", 1e-6, 1e-5, (1e-3, 0.01), 0.1)],
)
def test_numerics_of_the_profiles(
    profile: str, block: float, others: float, batch: tuple[float, float], rate: float
) -> None:
    model = SegFormer3D(profile=profile, device="meta")
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.LayerNorm):
            of_block = last in {"norm1", "norm2", "norm3", "norm4"}
            assert module.eps == (block if of_block else others), name
        elif isinstance(module, nn.BatchNorm3d):
            assert (module.eps, module.momentum) == batch, name
    assert model.get_submodule("segformer_encoder.tf_block4.1").drop_path.rate == rate


def test_an_unknown_tensor_is_refused() -> None:
    model = tiny()
    state = model.state_dict() | {"segformer_decoder.linear_c5.proj.weight": torch.zeros(1)}

    with pytest.raises(RuntimeError, match="linear_c5"):
        model.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1; got 0"),
        ({"decoder_dim": 0}, "decoder_dim must be at least 1; got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); got 1.0"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegFormer3D(**options)


@pytest.mark.parametrize("size", [(31, 64, 64), (64, 64, 16)])
def test_too_small_an_input_is_refused(size: tuple[int, ...]) -> None:
    message = r"input must be at least 32 along depth, height, width; got shape \(1, 2, "
    with pytest.raises(ValueError, match=message):
        tiny()(torch.zeros(1, 2, *size))
