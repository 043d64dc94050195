"""U-Nets beside MONAI's DynUNet with the same weights, at any size, around any encoder."""

import copy
import itertools
from collections.abc import Iterator, Mapping
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medkit.nn import DeepSupervised, DropPath, MixTransformer3D, UNet2D, UNet3D
from medkit.testing import assert_close
from unit.losses.refusals import refuses

WIDTHS = (4, 6, 8, 10)
STRIDES = {
    "isotropic": (1, 2, 2, 2),
    "anisotropic": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 1, 2)),
}
KERNELS = {"isotropic": (3, 3, 3, 3), "anisotropic": ((1, 3, 3),) * 4}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def renamed(
    theirs: nn.Module, values: Mapping[str, Tensor], *, heads: int
) -> Iterator[tuple[str, Tensor]]:
    """Return tensors of a DynUNet under medkit's names."""
    block = {
        "conv1.conv": "conv1.0",
        "norm1": "conv1.1",
        "conv2.conv": "conv2.0",
        "norm2": "conv2.1",
        "conv3.conv": "shortcut.0",
        "norm3": "shortcut.1",
    }
    levels = len(theirs.downsamples) + 2
    places = [
        ("input_block", "encoder.levels.0.0"),
        ("bottleneck", f"encoder.levels.{levels - 1}.0"),
    ]
    places += [
        (f"downsamples.{i}", f"encoder.levels.{i + 1}.0") for i in range(len(theirs.downsamples))
    ]
    places += [
        (f"upsamples.{i}.conv_block", f"decoder.levels.{i}.block") for i in range(levels - 1)
    ]
    names = {
        f"{source}.{a}.": f"{target}.{b}." for source, target in places for a, b in block.items()
    }
    for i in range(levels - 1):
        names[f"upsamples.{i}.transp_conv.conv."] = f"decoder.levels.{i}.up."
    names["output_block.conv.conv."] = "heads.0."
    for i in range(heads):
        names[f"deep_supervision_heads.{i}.conv.conv."] = f"heads.{i + 1}."
    for name, value in values.items():
        for source, target in names.items():
            if name.startswith(source):
                yield target + name.removeprefix(source), value


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("spacing", STRIDES)
@pytest.mark.parametrize("dims", [2, 3])
def test_logits_and_gradients_are_those_of_monai(dims: int, spacing: str, residual: bool) -> None:
    nets = pytest.importorskip("monai.networks.nets")
    strides, kernels = STRIDES[spacing], KERNELS[spacing]
    if dims == 2:
        strides, kernels = (
            [v if isinstance(v, int) else v[1:] for v in values] for values in (strides, kernels)
        )
    theirs = nets.DynUNet(
        dims,
        2,
        3,
        kernels,
        strides,
        strides[1:],
        filters=WIDTHS,
        res_block=residual,
        deep_supervision=True,
        deep_supr_num=2,
    )
    for p in theirs.parameters():
        p.data += 0.1 * torch.randn_like(p)
    network = UNet2D if dims == 2 else UNet3D
    ours = network(
        2,
        3,
        channels=WIDTHS,
        strides=strides,
        kernel_sizes=kernels,
        residual=residual,
        deep_supervision=2,
    )
    ours.load_state_dict(dict(renamed(theirs, theirs.state_dict(), heads=2)), strict=True)
    x = torch.randn(2, 2, *(16, 24, 32)[:dims])

    expected = theirs.train()(x)
    # MONAI resizes coarser logits to the nearest neighbour and stacks them
    resized = [nn.functional.interpolate(m, size=x.shape[2:]) for m in ours.deep_logits(x)]
    found = torch.stack(resized, 1)
    w = torch.randn_like(found)
    (found * w).sum().backward()
    (expected * w).sum().backward()

    assert_close(ours(x), theirs.eval()(x), atol=1e-6, rtol=1e-5)
    assert_close(found, expected, atol=1e-6, rtol=1e-5)
    grads = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    for name, expected_grad in renamed(theirs, grads, heads=2):
        atol = 1e-4 * float(expected_grad.abs().max())
        assert_close(ours.get_parameter(name).grad, expected_grad, rtol=1e-4, atol=atol)


@pytest.mark.parametrize(
    ("network", "parameters", "size", "multiply_adds"),
    [(UNet2D, 20_611_170, (512, 512), 56.9e9), (UNet3D, 31_189_410, (128, 128, 128), 477e9)],
)
def test_sizes_of_the_default_network(network, parameters, size, multiply_adds) -> None:
    model = network(device="meta")

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 1, *size, device="meta"))

    assert count(model) == parameters
    assert counter.get_total_flops() / 2 == pytest.approx(multiply_adds, rel=0.01)


@pytest.mark.parametrize("size", [(9, 16, 13), (8, 8, 16), (5, 6, 31)])
def test_logits_have_the_size_of_the_input(size: tuple[int, ...]) -> None:
    model = UNet3D(1, 2, channels=(4, 4, 4, 4), deep_supervision=2)

    logits = model.deep_logits(torch.randn(1, 1, *size))

    for level, m in enumerate(logits):
        assert m.shape == (1, 2, *(-(-n // 2**level) for n in size))


def test_forward_is_one_tensor_whatever_heads_and_mode() -> None:
    model = UNet2D(channels=(4, 4, 4), deep_supervision=1)
    x = torch.randn(1, 1, 16, 16)

    for mode in (True, False):
        y = model.train(mode)(x)
        assert isinstance(y, Tensor)
        assert torch.equal(y, model.deep_logits(x)[0])


def test_heads_do_not_change_the_network_behind_them() -> None:
    plain, deep = UNet2D(channels=(4, 4, 4)), UNet2D(channels=(4, 4, 4), deep_supervision=1)
    missing = deep.load_state_dict(plain.state_dict(), strict=False).missing_keys
    x = torch.randn(1, 1, 16, 16)

    assert missing == ["heads.1.weight", "heads.1.bias"]
    assert torch.equal(plain(x), deep(x))


def test_every_head_trains_through_the_wrapper() -> None:
    network = UNet2D(channels=(4, 4, 4, 4), deep_supervision=2)

    logits = DeepSupervised(network)(torch.randn(2, 1, 16, 16))
    sum(m.square().sum() for m in logits).backward()

    assert all(bool(p.grad.any()) for p in network.parameters())


@pytest.mark.parametrize("order", [(1, 0), (0, 1)])
def test_permuted_kernels_permute_the_output(order: tuple[int, int]) -> None:
    model = UNet2D(channels=(4, 4, 4), norm=partial(nn.GroupNorm, 2)).double()
    twin = copy.deepcopy(model)
    axes = tuple(a + 2 for a in order)
    state = {n: t.permute(0, 1, *axes) if t.ndim == 4 else t for n, t in model.state_dict().items()}
    twin.load_state_dict(state)
    x = torch.randn(1, 1, 15, 18, dtype=torch.float64)

    assert_close(twin(x.permute(0, 1, *axes)), model(x).permute(0, 1, *axes), atol=1e-12)


def test_a_slice_thick_network_is_the_network_of_images() -> None:
    """Kernels and strides of 1 along depth: 3D equals 2D, slice by slice."""
    flat = UNet2D(2, 3, channels=(4, 6, 8), norm=nn.Identity).double()
    deep = UNet3D(
        2, 3, channels=(4, 6, 8), norm=nn.Identity,
        strides=(1, (1, 2, 2), (1, 2, 2)), kernel_sizes=((1, 3, 3),) * 3,
    ).double()  # fmt: skip
    deep.load_state_dict(
        {n: t[:, :, None] if t.ndim == 4 else t for n, t in flat.state_dict().items()}
    )
    x = torch.randn(1, 2, 3, 17, 16, dtype=torch.float64)

    slices = torch.stack([flat(x[:, :, i]) for i in range(3)], 2)

    assert_close(deep(x), slices, atol=1e-12)


def test_takes_the_maps_of_any_encoder() -> None:
    encoder = MixTransformer3D(
        2, embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4)
    )
    model = UNet3D(2, 3, encoder=encoder, decoder_channels=(4, 8, 16), deep_supervision=1).eval()
    x = torch.randn(1, 2, 33, 40, 48)

    with torch.no_grad():
        logits = model.deep_logits(x)
        for found, expected in zip(model.features(x), encoder(x), strict=True):
            assert torch.equal(found, expected)

    assert logits[0].shape == (1, 3, 33, 40, 48)
    assert logits[1].shape == (1, 3, 5, 5, 6)


class Floors(nn.Module):
    """An encoder that rounds sizes down, as many do."""

    channels = (3, 5)
    strides = (1, 2)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 1)
        self.second = nn.Conv2d(3, 5, 2, stride=2)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(input)
        return first, self.second(first)


def test_an_encoder_may_round_sizes_down() -> None:
    assert UNet2D(1, 2, encoder=Floors())(torch.randn(1, 1, 15, 16)).shape == (1, 2, 15, 16)


def test_a_given_encoder_keeps_its_weights() -> None:
    encoder = Floors()
    before = encoder.first.weight.detach().clone()

    UNet2D(1, 2, encoder=encoder)

    assert torch.equal(encoder.first.weight, before)


def test_checkpoints_change_no_gradient_and_keep_less() -> None:
    kept, gradients = [], []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        model = UNet3D(channels=(4, 8, 8), residual=True, depths=(1, 2, 2), checkpoint=checkpoint)
        x = torch.randn(1, 1, 16, 16, 16)
        total: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, total=total: (total.append(t.numel()), t)[1], lambda t: t
        ):
            y = model(x)
        y.square().sum().backward()
        kept.append(sum(total))
        gradients.append([p.grad for p in model.parameters()])

    assert kept[1] < kept[0] / 2
    for a, b in zip(*gradients, strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_drop_path_reaches_its_rate_at_the_last_block_and_no_other() -> None:
    model = UNet3D(channels=(4, 4, 4), residual=True, depths=(1, 2, 2), drop_path_rate=0.4)

    rates = [m.rate for m in model.encoder.modules() if isinstance(m, DropPath)]

    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_dropout_drops_whole_channels_while_training_alone() -> None:
    model = UNet2D(channels=(8, 8), dropout=0.5)
    seen: list[Tensor] = []
    model.encoder.levels[0].register_forward_hook(lambda *call: seen.append(call[-1]))
    x = torch.randn(1, 1, 16, 16)

    model(x)
    model.eval()(x)

    zero = [(m == 0).flatten(2).all(2) for m in seen]
    assert bool(zero[0].any())
    assert not bool(zero[1].any())


def test_initial_weights_are_those_of_he_for_leaky_relu() -> None:
    weight = UNet3D().get_parameter("encoder.levels.4.0.conv2.0.weight").detach()

    assert float(weight.std()) == pytest.approx((2 / (1 + 0.01**2) / (320 * 27)) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (4,)}, "channels must be two numbers or more"),
        ({"channels": (4, 8), "strides": (1,)}, "strides must be 2 values, one for each level"),
        ({"channels": (4, 8), "kernel_sizes": (3, 4)}, "kernel_sizes must be odd"),
        ({"channels": (4, 8), "kernel_sizes": (3, (3, 3))}, "kernel_sizes must be one value or 3"),
        ({"channels": (4, 8), "depths": (1, 0)}, "depths must be at least 1"),
        ({"channels": (4, 8), "depths": (1,)}, "depths must be 2 numbers"),
        ({"channels": (4, 8), "deep_supervision": 1}, "deep_supervision must be below 1; got 1"),
        ({"drop_path_rate": 0.1}, "drop_path_rate must be 0 where no encoder block is residual"),
        ({"decoder_channels": (4, 8)}, "decoder_channels must be 5 numbers"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\)"),
        ({"encoder": nn.Identity()}, "channels must be two numbers or more"),
    ],
)
def test_wrong_options_are_named(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet3D(**options)


@pytest.mark.parametrize("name", ["channels", "strides", "kernel_sizes", "depths"])
def test_one_number_for_all_levels_is_refused(name: str) -> None:
    with refuses(name):
        UNet3D(**{name: 2})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float64])
def test_an_image_of_another_type_than_the_weights_is_refused(dtype: torch.dtype) -> None:
    with refuses("input"):
        UNet2D(channels=(4, 4))(torch.ones(1, 1, 8, 8, dtype=dtype))
    with refuses("input"), torch.autocast("cpu", dtype=torch.bfloat16):
        UNet2D(channels=(4, 4))(torch.ones(1, 1, 8, 8, dtype=dtype))


def test_half_precision_is_taken_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        UNet2D(channels=(4, 4))(torch.ones(1, 1, 8, 8, dtype=torch.bfloat16))


def test_an_image_that_shrinks_to_one_position_is_refused_where_the_norm_fails() -> None:
    options = {"channels": (4, 4, 4), "strides": (1, (1, 2, 2), 2)}
    rule = r"^input must be larger than \(2, 4, 4\) along at least one axis .*; got shape "
    with pytest.raises(ValueError, match=rule):
        UNet3D(**options).eval()(torch.ones(1, 1, 2, 4, 4))
    for size in ((3, 4, 4), (2, 5, 4), (1, 1, 5)):
        UNet3D(**options)(torch.ones(1, 1, *size))
    UNet3D(**options, norm=partial(nn.GroupNorm, 1))(torch.ones(1, 1, 2, 4, 4))


def test_deep_supervision_needs_a_network_with_heads() -> None:
    with pytest.raises(TypeError, match="network must have a method deep_logits; got Conv2d"):
        DeepSupervised(nn.Conv2d(1, 1, 1))


def test_all_combinations_of_structure_run() -> None:
    for residual, anisotropic, heads in itertools.product((False, True), repeat=3):
        strides = (1, (1, 2, 2), 2) if anisotropic else None
        model = UNet3D(
            channels=(4, 4, 4), residual=residual, strides=strides, deep_supervision=int(heads)
        )
        assert model(torch.randn(1, 1, 6, 7, 8)).shape == (1, 2, 6, 7, 8)
