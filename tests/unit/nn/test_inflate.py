"""Inflated networks give the maps of the network for images."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from medkit.nn import UNet2D, UNet3D, inflate_weights
from medkit.testing import assert_close

WIDTHS = (4, 6, 8)
# affine of its own, no statistics: a constant axis changes nothing
NORM = partial(nn.GroupNorm, 2)


def flat() -> UNet2D:
    return UNet2D(2, 3, channels=WIDTHS, norm=NORM).double()


def image() -> Tensor:
    return torch.randn(1, 2, 16, 18, dtype=torch.float64)


def volume(x: Tensor, depth: int) -> Tensor:
    return x[:, :, None].expand(-1, -1, depth, -1, -1)


@pytest.mark.parametrize("method", ["average", "centre"])
def test_kernels_of_depth_one_give_the_network_for_images(method) -> None:
    small, x = flat(), image()
    deep = UNet3D(
        2, 3, channels=WIDTHS, norm=NORM, strides=(1, (1, 2, 2), (1, 2, 2)),
        kernel_sizes=((1, 3, 3),) * 3,
    ).double()  # fmt: skip

    deep.load_state_dict(inflate_weights(small.state_dict(), deep, method=method))

    assert_close(deep(x[:, :, None])[:, :, 0], small(x), atol=1e-12)


def test_centred_kernels_give_each_slice_its_own_map() -> None:
    small = UNet2D(2, 3, channels=WIDTHS, norm=nn.Identity).double()
    deep = UNet3D(
        2, 3, channels=WIDTHS, norm=nn.Identity, strides=(1, (1, 2, 2), (1, 2, 2))
    ).double()
    x = torch.randn(1, 2, 5, 16, 18, dtype=torch.float64)

    deep.load_state_dict(inflate_weights(small.state_dict(), deep, method="centre"))

    slices = torch.stack([small(x[:, :, i]) for i in range(5)], 2)
    assert_close(deep(x), slices, atol=1e-12)


@pytest.mark.parametrize("method", ["average", "centre"])
def test_a_volume_of_equal_slices_gives_the_maps_of_the_image(method) -> None:
    small = UNet2D(2, 3, channels=WIDTHS, norm=nn.Identity).double()
    deep = UNet3D(2, 3, channels=WIDTHS, norm=nn.Identity).double()
    x, depth = image(), 48

    deep.load_state_dict(inflate_weights(small.state_dict(), deep, method=method))

    y = deep(volume(x, depth))
    # averaged kernels see the zeros beyond the ends
    inside = slice(20, 28) if method == "average" else slice(None)
    assert_close(y[:, :, inside], volume(small(x), depth)[:, :, inside], atol=1e-11)


def test_statistics_and_linear_layers_pass_unchanged() -> None:
    small = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    deep = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Flatten(), nn.Linear(2, 2))

    state = inflate_weights(small.state_dict(), deep)

    for name, value in small.state_dict().items():
        assert torch.equal(state[name], value) or name == "0.weight"
        assert state[name].data_ptr() != value.data_ptr()
    deep.load_state_dict(state, strict=True)


def test_weights_that_do_not_fit_are_named() -> None:
    conv, deep = nn.Conv2d(1, 2, 3), nn.Conv3d(1, 2, 3)

    with pytest.raises(ValueError, match=r"weights\['weight'\] must be of .* got \(2, 1, 5, 5\)"):
        inflate_weights(nn.Conv2d(1, 2, 5).state_dict(), deep)
    with pytest.raises(ValueError, match="weights must be named as in module; got 'bias'"):
        inflate_weights(nn.Conv2d(1, 2, 3, bias=False).state_dict(), deep)
    with pytest.raises((ValueError, TypeError), match="method"):
        inflate_weights(conv.state_dict(), deep, method="center")
    with pytest.raises(ValueError, match="'average' for a kernel of even depth"):
        inflate_weights(conv.state_dict(), nn.Conv3d(1, 2, (2, 3, 3)), method="centre")
