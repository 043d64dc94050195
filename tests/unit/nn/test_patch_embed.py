"""PatchEmbed3D is a convolution and a LayerNorm, written by hand here."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medkit.nn import PatchEmbed2D, PatchEmbed3D
from medkit.testing import assert_close


def by_hand(image: np.ndarray, embed: PatchEmbed3D, kernel: int, stride: int) -> np.ndarray:
    """Return the embedded patches of one sample by loops over positions."""
    weight, bias = (t.detach().numpy() for t in embed.patch_embeddings.parameters())
    gamma, beta = (t.detach().numpy() for t in embed.norm.parameters())
    padded = np.pad(image, ((0, 0), *((kernel // 2,) * 2,) * 3))
    grid = tuple((n - 1) // stride + 1 for n in image.shape[1:])
    output = np.empty((len(weight), *grid))
    for place in np.ndindex(*grid):
        d, h, w = (stride * index for index in place)
        patch = padded[:, d : d + kernel, h : h + kernel, w : w + kernel]
        y = np.tensordot(weight, patch, 4) + bias
        output[:, *place] = (y - y.mean()) / np.sqrt(y.var() + embed.norm.eps) * gamma + beta
    return output


@pytest.mark.parametrize(("kernel", "stride"), [(7, 4), (3, 2), (5, 1)])
@pytest.mark.parametrize("channels", [1, 2])
def test_equals_loops(kernel: int, stride: int, channels: int) -> None:
    embed = PatchEmbed3D(channels, 6, kernel_size=kernel, stride=stride, dtype=torch.float64)
    torch.nn.init.normal_(embed.norm.weight)
    torch.nn.init.normal_(embed.norm.bias)
    x = torch.randn(2, channels, 9, 6, 8, dtype=torch.float64)

    y = embed(x)

    for sample, found in zip(x, y, strict=True):
        assert_close(found, by_hand(sample.numpy(), embed, kernel, stride))


def test_works_on_images() -> None:
    embed = PatchEmbed2D(3, 8, dtype=torch.float64)
    x = torch.randn(2, 3, 17, 30, dtype=torch.float64)
    patches = F.conv2d(
        x, embed.patch_embeddings.weight, embed.patch_embeddings.bias, stride=4, padding=3
    )

    expected = F.layer_norm(patches.movedim(1, -1), (8,)).movedim(-1, 1)

    assert_close(embed(x), expected)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_map_is_in_channels_last_memory(channels: int) -> None:
    y = PatchEmbed3D(channels, 8)(torch.randn(1, channels, 12, 12, 12))

    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    assert y.stride(1) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, "in_channels must be at least 1; got 0"),
        ({"embed_dim": 0}, "embed_dim must be at least 1; got 0"),
        ({"kernel_size": 4}, "kernel_size must be odd; got 4"),
        ({"stride": 0}, "stride must be at least 1; got 0"),
        ({"norm_eps": 0.0}, "norm_eps must be positive; got 0.0"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchEmbed3D(**{"in_channels": 1, "embed_dim": 8, **options})


@pytest.mark.parametrize("shape", [(1, 3, 8, 8, 8), (1, 2, 8, 8), (1, 2, 8, 8, 8, 8)])
def test_an_input_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    expected = rf"input must be \(batch, 2, depth, height, width\); got shape \({shape[0]}, "
    with pytest.raises(ValueError, match=expected):
        PatchEmbed3D(2, 8)(torch.zeros(shape))
