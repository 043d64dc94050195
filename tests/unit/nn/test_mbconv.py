"""MBConv, Fused-MBConv and depthwise separable convolution: widths, shortcuts, limits."""

from functools import partial

import pytest
import torch
from torch import nn

import medkit.nn
from medkit.nn import DepthwiseSeparableConv3D, DropPath, FusedMBConv3D, MBConv2D, MBConv3D
from medkit.testing import assert_close
from unit.nn.blocks import settled

BLOCKS = ["MBConv", "FusedMBConv", "DepthwiseSeparableConv"]


def test_gates_are_reduced_from_the_input_channels() -> None:
    block = MBConv3D(32, 16, expand_ratio=4)

    assert block.squeeze_excite.reduce.weight.shape == (8, 128, 1, 1, 1)
    assert block.squeeze_excite.expand.weight.shape == (128, 8, 1, 1, 1)


def test_parameters_are_counted_in_closed_form() -> None:
    c, h, r = 32, 192, 8
    gates = 2 * h * r + h + r

    counts = [sum(p.numel() for p in b.parameters()) for b in (MBConv2D(c, c), MBConv3D(c, c))]

    assert counts == [2 * c * h + k * h + gates + 4 * h + 2 * c for k in (9, 27)]


def test_efficient_net_b0_has_its_published_number_of_parameters() -> None:
    """Its seven stages as in table 1 of the paper; without stem and head 5.3 M become 3.59 M."""
    stages = [
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ]
    total, channels = 0, 32
    for ratio, kernel_size, stride, width, depth in stages:
        for layer in range(depth):
            step = stride if layer == 0 else 1
            block = MBConv2D(
                channels, width, kernel_size=kernel_size, stride=step, expand_ratio=ratio
            )
            total += sum(p.numel() for p in block.parameters())
            channels = width
    stem, head = 27 * 32 + 64, 320 * 1280 + 2560 + 1281 * 1000

    assert total + stem + head == 5_288_548


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("dims", [2, 3])
def test_the_shortcut_is_there_where_shapes_agree(name: str, dims: int) -> None:
    block = getattr(medkit.nn, f"{name}{dims}D")
    x = torch.randn(2, 8, *(6, 5, 7)[:dims])

    for out_channels, stride in ((8, 1), (12, 1), (8, 2)):
        y = settled(block(8, out_channels, stride=stride, drop=ToZero))(x)
        assert (y.shape == x.shape and torch.equal(y, x)) == (out_channels == 8 and stride == 1)


class ToZero(nn.Module):
    """A drop that drops everything."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(input)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_dropped_sample_passes_through(name: str) -> None:
    block = getattr(medkit.nn, f"{name}3D")(8, 8, drop=partial(DropPath, 0.999999))
    x = torch.randn(3, 8, 4, 4, 4)

    assert torch.equal(block.train()(x), x)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("size", [(1, 1, 2), (7, 4, 5)])
def test_a_stride_halves_and_rounds_up(name: str, size: tuple[int, ...]) -> None:
    y = settled(getattr(medkit.nn, f"{name}3D")(4, 6, stride=2))(torch.randn(2, 4, *size))

    assert y.shape == (2, 6, *(-(-n // 2) for n in size))


def test_an_expansion_of_one_leaves_a_convolution_out() -> None:
    wide, narrow = MBConv3D(8, 8), MBConv3D(8, 8, expand_ratio=1)
    fused = FusedMBConv3D(8, 12, expand_ratio=1)

    assert isinstance(narrow.expand, nn.Identity)
    assert not isinstance(wide.expand, nn.Identity)
    assert [m.weight.shape for m in fused.modules() if isinstance(m, nn.Conv3d)] == [
        (12, 8, 3, 3, 3)
    ]


def test_layers_are_what_the_callables_make() -> None:
    block = DepthwiseSeparableConv3D(8, 16, norm=partial(nn.GroupNorm, 4), activation=nn.Tanh)

    assert isinstance(block.depthwise.norm, nn.GroupNorm)
    assert isinstance(block.depthwise.activation, nn.Tanh)
    assert isinstance(block.pointwise.activation, nn.Identity)
    assert all(isinstance(c.conv, nn.Conv3d) for c in (block.depthwise, block.pointwise))


def test_memory_layout_of_the_input_does_not_matter() -> None:
    block = settled(MBConv3D(8, 8)).double()
    x = torch.randn(2, 8, 4, 5, 6, dtype=torch.float64)

    assert_close(block(x.contiguous(memory_format=torch.channels_last_3d)), block(x))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_folded_norm_changes_nothing(name: str) -> None:
    """A hook on the norm makes it be called; without one it is folded into the convolution."""
    block = settled(getattr(medkit.nn, f"{name}3D")(8, 8)).double()
    x = torch.randn(2, 8, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        folded = block(x)
    seen: list[nn.Module] = []
    for module in block.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.register_forward_hook(lambda norm, *_: seen.append(norm))

    assert_close(block(x), folded)
    assert len(seen) == sum(isinstance(m, nn.BatchNorm3d) for m in block.modules())


@pytest.mark.parametrize("name", BLOCKS)
def test_a_hook_on_an_activation_sees_its_output(name: str) -> None:
    block = settled(getattr(medkit.nn, f"{name}3D")(8, 8))
    seen: list[bool] = []
    for module in block.modules():
        if isinstance(module, nn.SiLU | nn.ReLU):
            module.register_forward_hook(lambda _, args, y: seen.append(bool((y != args[0]).any())))

    with torch.no_grad():
        block(torch.randn(2, 8, 4, 5, 6))

    assert seen
    assert all(seen)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_kernels_larger_than_the_image_have_finite_gradients_in_bfloat16(
    name: str, layout: torch.memory_format
) -> None:
    block = settled(getattr(medkit.nn, f"{name}3D")(8, 8, kernel_size=5))
    x = torch.randn(2, 8, 2, 3, 3).contiguous(memory_format=layout)
    parameters = list(block.parameters())
    wanted = torch.autograd.grad(block(x).square().sum(), parameters)

    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)

    for found, expected in zip(
        torch.autograd.grad(y.float().square().sum(), parameters), wanted, strict=True
    ):
        assert (found - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, "in_channels must be at least 1; got 0"),
        ({"out_channels": 0}, "out_channels must be at least 1; got 0"),
        ({"kernel_size": 4}, "kernel_size must be odd; got 4"),
        ({"stride": 0}, "stride must be at least 1; got 0"),
    ],
)
def test_wrong_sizes_are_named(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(medkit.nn, f"{name}3D")(**{"in_channels": 4, "out_channels": 4, **options})


@pytest.mark.parametrize("name", ["MBConv", "FusedMBConv"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expand_ratio": 0}, "expand_ratio must be at least 1; got 0"),
        ({"squeeze_ratio": 1.5}, r"squeeze_ratio must be in \[0, 1\]; got 1.5"),
    ],
)
def test_wrong_ratios_are_named(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(medkit.nn, f"{name}3D")(4, 4, **options)
