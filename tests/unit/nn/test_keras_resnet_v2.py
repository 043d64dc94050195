"""ResNet V2 of Keras: published sizes, the pyramid, the head, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medkit.nn import KerasResNetV2
from medkit.testing import assert_close


def values(module: nn.Module) -> int:
    return sum(t.numel() for n, t in module.state_dict().items() if "num_batches" not in n)


@pytest.mark.parametrize(
    ("depth", "trainable", "total"),
    [
        (50, 23_519_360, 23_564_800),
        (101, 42_528_896, 42_626_560),
        (152, 58_187_904, 58_331_648),
    ],
)
def test_sizes_are_those_of_keras(depth: int, trainable: int, total: int) -> None:
    model = KerasResNetV2(depth=depth, device="meta")

    assert sum(p.numel() for p in model.parameters()) == trainable
    assert values(model) == total


def test_the_head_for_histology_has_its_size() -> None:
    model = KerasResNetV2(num_classes=3, hidden_dim=256, dropout=0.5, device="meta")

    assert values(model) == 24_090_115
    assert sum(p.numel() for p in model.parameters()) == 24_044_675


def test_biases_are_where_keras_has_them() -> None:
    model = KerasResNetV2(device="meta")
    biases = {
        name: part.bias.numel()
        for name, part in model.named_modules()
        if isinstance(part, nn.Conv2d) and part.bias is not None
    }

    assert sum(biases.values()) == 19_008
    assert {name.partition(".")[2] for name in biases} == {"", "0_conv", "3_conv"}


def test_only_the_last_block_of_a_stage_halves_the_resolution() -> None:
    model = KerasResNetV2(device="meta")

    strided = [n for n, m in model.named_modules() if getattr(m, "stride", 1) == (2, 2)]

    assert strided == [
        "conv1_conv",
        "conv2_block3.2_conv",
        "conv3_block4.2_conv",
        "conv4_block6.2_conv",
    ]


@pytest.mark.parametrize("size", [(64, 96), (33, 50), (1, 1)])
def test_features_are_a_pyramid_of_halves_rounded_up(size: tuple[int, int]) -> None:
    model = KerasResNetV2(base_channels=2).eval()
    x = torch.randn(1, 3, *size)

    pyramid = model.features(x)

    expected = size
    for level, channels in zip(pyramid, (2, 8, 16, 32, 64), strict=True):
        expected = tuple(-(-length // 2) for length in expected)
        assert level.shape[1:] == (channels, *expected)
    assert torch.equal(pyramid.c5, model.forward_features(x))
    assert_close(model(x), pyramid.c5.mean((2, 3)))
    assert pyramid.c5.min() >= 0 > pyramid.c4.min()


def test_the_first_pooling_sees_zeros_around_negative_values() -> None:
    """With infinite padding, as elsewhere, a map of -1 would stay at -1 along its edges."""
    model = KerasResNetV2(1, base_channels=1).eval()
    with torch.no_grad():
        model.conv1_conv.weight.zero_()
        model.conv1_conv.bias.fill_(-1)
    pooled = []
    model.conv2_block1.register_forward_pre_hook(lambda _, inputs: pooled.extend(inputs))

    model(torch.zeros(1, 1, 16, 16))

    assert pooled[0][0, 0].tolist() == [[0, 0, 0, 0], *[[0, -1, -1, -1]] * 3]


def test_the_head_is_dense_relu_dropout_dense() -> None:
    model = KerasResNetV2(num_classes=3, hidden_dim=5, dropout=0.5, base_channels=1).double()
    features = torch.rand(4, 32, 2, 3, dtype=torch.float64)

    hidden = F.relu(F.linear(features.mean((2, 3)), model.dense.weight, model.dense.bias))
    expected = F.linear(hidden, model.predictions.weight, model.predictions.bias)

    assert_close(model.eval().forward_head(features), expected)
    torch.manual_seed(3)
    dropped = F.dropout(hidden, 0.5)
    expected = F.linear(dropped, model.predictions.weight, model.predictions.bias)
    torch.manual_seed(3)
    assert_close(model.train().forward_head(features), expected)


def test_initial_weights_are_those_of_glorot() -> None:
    model = KerasResNetV2()
    kernel = model.conv5_block2["2_conv"].weight
    bound = (6 / (9 * 512 * 2)) ** 0.5

    assert bound * 0.999 < kernel.abs().max() <= bound
    assert_close(kernel.std(), bound / 3**0.5, rtol=1e-2)
    assert model.conv1_conv.bias.count_nonzero() == 0


def test_backward_reaches_every_parameter() -> None:
    model = KerasResNetV2(num_classes=2, hidden_dim=8, base_channels=2)

    model(torch.randn(2, 3, 64, 64)).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, "in_channels must be at least 1; got 0"),
        ({"num_classes": -1}, "num_classes must be at least 0; got -1"),
        ({"hidden_dim": 8}, "hidden_dim must be None without num_classes; got 8"),
        ({"num_classes": 2, "hidden_dim": 0}, "hidden_dim must be at least 1; got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); got 1.0"),
        ({"base_channels": 0}, "base_channels must be at least 1; got 0"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KerasResNetV2(**options)
