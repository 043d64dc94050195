"""The encoder: its maps, its limits, its drop path, and blocks computed twice."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from medkit.nn import MixTransformer2D, MixTransformer3D
from medkit.nn._mix_transformer_block import MixTransformerBlock
from medkit.testing import assert_close
from unit.losses.refusals import refuses
from unit.nn.segformers import TINY, filled

SIZES = {name: value for name, value in TINY.items() if name != "decoder_dim"}


def blocks(encoder: nn.Module) -> list[MixTransformerBlock]:
    return [module for module in encoder.modules() if isinstance(module, MixTransformerBlock)]


@pytest.mark.parametrize("size", [(32, 32, 32), (33, 47, 64), (64, 35, 32)])
def test_maps_are_halved_and_rounded_up(size: tuple[int, ...]) -> None:
    encoder = MixTransformer3D(1, **SIZES).eval()

    with torch.no_grad():
        maps = encoder(torch.randn(2, 1, *size))

    for level, channels, stride in zip(maps, encoder.embed_dims, (4, 8, 16, 32), strict=True):
        assert level.shape == (2, channels, *(-(-n // stride) for n in size))
        assert level.is_contiguous(memory_format=torch.channels_last_3d)


def test_images_have_coarser_keys() -> None:
    encoder = MixTransformer2D(3, **SIZES).eval()

    with torch.no_grad():
        maps = encoder(torch.randn(1, 3, 40, 65))

    assert [level.shape[2:] for level in maps] == [(10, 17), (5, 9), (3, 5), (2, 3)]
    kernels = [block.attention.sr.kernel_size for block in blocks(encoder)[:-2]]
    assert kernels == [(8, 8), (8, 8), (4, 4), (2, 2)]


@pytest.mark.parametrize(
    ("sr_ratios", "minimum"), [((4, 2, 1, 1), 32), ((16, 1, 1, 1), 61), ((1, 1, 3, 2), 33)]
)
def test_the_smallest_size_leaves_a_key_in_every_stage(
    sr_ratios: tuple[int, ...], minimum: int
) -> None:
    encoder = MixTransformer3D(1, **SIZES, sr_ratios=sr_ratios).eval()

    with torch.no_grad():
        assert encoder(torch.randn(1, 1, minimum, 64, 64)).c4.isfinite().all()

    message = rf"input must be at least {minimum} along depth, height, width; got shape \(1, 1, "
    with pytest.raises(ValueError, match=message):
        encoder(torch.zeros(1, 1, minimum - 1, 64, 64))


def test_drop_path_grows_from_block_to_block() -> None:
    encoder = MixTransformer3D(1, **{**SIZES, "depths": (2, 1, 1, 1)}, drop_path_rate=0.2)

    rates = [block.drop_path.rate for block in blocks(encoder)]

    assert_close(torch.tensor(rates), [0.0, 0.05, 0.1, 0.15, 0.2])


def test_a_dropped_block_passes_its_input_on() -> None:
    block = blocks(MixTransformer3D(1, **SIZES))[0].train()
    block.drop_path.rate = 0.999999
    x = torch.randn(4, 8, 8, 8, 8)

    assert torch.equal(block(x), x)


def trained(checkpoint: bool, *, saved: Callable[[Tensor], Tensor]) -> nn.Module:
    """Take one training step with drop path, from known weights and a known random state."""
    encoder = filled(
        MixTransformer3D(1, **SIZES, drop_path_rate=0.3, checkpoint=checkpoint, profile="medicai")
    ).train()
    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        total = sum(level.square().mean() for level in encoder(torch.randn(2, 1, 48, 40, 32)))
    total.backward()
    return encoder


def test_blocks_computed_twice_change_nothing_but_memory() -> None:
    kept = {False: 0, True: 0}

    def train(checkpoint: bool) -> nn.Module:
        def count(tensor: Tensor) -> Tensor:
            kept[checkpoint] += tensor.nbytes
            return tensor

        return trained(checkpoint, saved=count)

    plain, twice = train(checkpoint=False), train(checkpoint=True)

    for (name, a), b in zip(plain.named_parameters(), twice.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(plain.named_buffers(), twice.named_buffers(), strict=True):
        assert torch.equal(a, b[1]), name
    assert kept[True] < kept[False] / 2


def test_statistics_move_after_blocks_computed_twice() -> None:
    """What is set aside for the second run is put back."""
    encoder = trained(checkpoint=True, saved=lambda tensor: tensor)

    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm3d)]

    assert [norm.momentum for norm in norms] == [0.01] * len(norms)
    assert [int(norm.num_batches_tracked) for norm in norms] == [1] * len(norms)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (2, 2)}, r"depths must be four numbers, one per stage; got \(2, 2\)"),
        ({"depths": (2, 2, 0, 2)}, r"depths\[2\] must be at least 1; got 0"),
        (
            {"num_heads": (3, 2, 5, 8)},
            r"embed_dims\[0\] must be divisible by num_heads\[0\]=3; got 32",
        ),
        ({"norm_eps": -1.0}, "norm_eps must be positive; got -1.0"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate must be in \[0, 1\); got 1.0"),
        ({"in_channels": 0}, "in_channels must be at least 1; got 0"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixTransformer3D(**options)


@pytest.mark.parametrize(("argument", "value"), [("variant", "b6"), ("profile", "nvidia")])
def test_an_unknown_name_is_refused(argument: str, value: str) -> None:
    with refuses(argument):
        MixTransformer3D(**{argument: value})


@pytest.mark.parametrize("shape", [(1, 2, 32, 32, 32), (1, 1, 64, 64), (1, 1, 32, 32, 32, 32)])
def test_an_input_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    message = r"input must be \(batch, 1, depth, height, width\); got shape"
    with pytest.raises(ValueError, match=message):
        MixTransformer3D(1, **SIZES)(torch.zeros(shape))
