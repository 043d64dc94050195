"""Shuffle attention is the formula of SA-Net, written in NumPy here, and really shuffles."""

import numpy as np
import pytest
import torch

import medkit.nn
from medkit.nn import ShuffleAttention2D, ShuffleAttention3D
from medkit.testing import assert_close
from unit.nn.blocks import numbers, settled, sigmoid


def by_formula(sample: np.ndarray, block: ShuffleAttention3D) -> np.ndarray:
    """Return the gated and shuffled channels of one sample by a loop over groups and channels."""
    width = len(sample) // (2 * block.groups)
    w1, b1, w2, b2 = (
        numbers(getattr(block, f"{kind}_{part}"))
        for kind in ("channel", "spatial")
        for part in ("weight", "bias")
    )
    gamma, beta = numbers(block.norm.weight), numbers(block.norm.bias)
    gated = np.empty_like(sample)
    for group in range(block.groups):
        for c in range(width):
            first = 2 * width * group + c
            x = sample[first]
            gated[first] = x * sigmoid(w1[c] * x.mean() + b1[c])
            x = sample[first + width]
            normal = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * gamma[c] + beta[c]
            gated[first + width] = x * sigmoid(w2[c] * normal + b2[c])
    half = len(sample) // 2
    return np.stack([gated[half * (i % 2) + i // 2] for i in range(len(sample))])


@pytest.mark.parametrize(("channels", "groups"), [(12, 3), (12, 6), (4, 1), (16, 2)])
@pytest.mark.parametrize("dims", [2, 3])
def test_equals_the_formula(channels: int, groups: int, dims: int) -> None:
    block = settled(getattr(medkit.nn, f"ShuffleAttention{dims}D")(channels, groups=groups))
    x = torch.randn(2, channels, *(4, 5, 3)[:dims], dtype=torch.float64)

    y = block.double()(x)

    for sample, found in zip(x, y, strict=True):
        assert_close(found, by_formula(numbers(sample), block))


def test_channels_of_all_groups_are_interleaved() -> None:
    """The order of the authors' program for 16 channels in 2 groups."""
    x = torch.arange(16.0).reshape(1, 16, 1, 1).expand(-1, -1, 3, 2)

    y = ShuffleAttention2D(16, groups=2)(x)[0, :, 0, 0].detach() / torch.sigmoid(torch.tensor(1.0))

    assert_close(y, [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15])


@pytest.mark.parametrize("groups", [1, 8, 16])
def test_parameters_are_shared_by_all_groups(groups: int) -> None:
    block = ShuffleAttention3D(64, groups=groups)

    assert sum(p.numel() for p in block.parameters()) == 6 * 64 // (2 * groups)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"channels": 24, "groups": 8},
            "channels must be divisible by twice the groups, 16; got 24",
        ),
        ({"channels": 0}, "channels must be at least 1; got 0"),
        ({"groups": 0}, "groups must be at least 1; got 0"),
        ({"norm_eps": 0.0}, "norm_eps must be positive; got 0.0"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShuffleAttention3D(**{"channels": 16, **options})
