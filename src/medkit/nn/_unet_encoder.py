"""The convolutions of a U-Net: blocks of two, plain or residual, and the encoder made of them."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from ._drop_path import DropPath
from ._factory import Factory
from ._recompute import run

CONV: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
CHANNEL_DROPOUT: dict[int, type[nn.Module]] = {2: nn.Dropout2d, 3: nn.Dropout3d}

PerAxis = tuple[int, ...]


class Layers(NamedTuple):
    """What the layers of a U-Net are made with."""

    spatial_dims: int
    norm: Callable[..., nn.Module]
    activation: Callable[[], nn.Module]
    dropout: float
    factory: Factory

    def conv(
        self, in_channels: int, out_channels: int, kernel_size: PerAxis, stride: PerAxis
    ) -> nn.Module:
        """Return a convolution that keeps the grid but for its stride, and a norm."""
        conv = CONV[self.spatial_dims](
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=tuple(k // 2 for k in kernel_size),
            bias=False,
            **self.factory,
        )
        return nn.Sequential(conv, self.norm(out_channels, **self.factory))

    def same(self, value: int) -> PerAxis:
        """Return a value for every axis."""
        return (value,) * self.spatial_dims


class ConvBlock(nn.Module):
    """Two convolutions, each with norm and activation; with a shortcut, if residual."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: Layers,
        *,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        residual: bool = False,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        one = layers.same(1)
        stride = one if stride is None else stride
        self.conv1: nn.Module = layers.conv(in_channels, out_channels, kernel_size, stride)
        self.activation1: nn.Module = layers.activation()
        self.conv2: nn.Module = layers.conv(out_channels, out_channels, kernel_size, one)
        self.shortcut: nn.Module | None = None
        self.drop_path: DropPath = DropPath(drop_path_rate)
        if residual and (in_channels != out_channels or stride != one):
            self.shortcut = layers.conv(in_channels, out_channels, one, stride)
        elif residual:
            self.shortcut = nn.Identity()
        self.activation2: nn.Module = layers.activation()
        self.dropout: nn.Module = CHANNEL_DROPOUT[layers.spatial_dims](layers.dropout)

    def forward(
        self, input: Float[Tensor, "batch in_channels *size"]
    ) -> Float[Tensor, "batch out_channels *coarser"]:
        """Return the activated maps."""
        output = self.conv2(self.activation1(self.conv1(input)))
        if self.shortcut is not None:
            output = self.shortcut(input) + self.drop_path(output)
        return self.dropout(self.activation2(output))


class UNetEncoder(nn.Module):
    """The contracting path: at each level a strided block, then more blocks on the same grid."""

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        layers: Layers,
        *,
        strides: Sequence[PerAxis],
        kernel_sizes: Sequence[PerAxis],
        depths: Sequence[int],
        residual: bool,
        drop_path_rate: float,
        checkpoint: bool,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        last = max(sum(depths) - 1, 1)
        rates = iter([drop_path_rate * block / last for block in range(sum(depths))])
        self.levels: nn.ModuleList = nn.ModuleList()
        before = (in_channels, *channels)
        for level, (source, target) in enumerate(pairwise(before)):
            blocks = [
                ConvBlock(
                    target if index else source,
                    target,
                    layers,
                    kernel_size=kernel_sizes[level],
                    stride=None if index else strides[level],
                    residual=residual,
                    drop_path_rate=next(rates),
                )
                for index in range(depths[level])
            ]
            self.levels.append(nn.Sequential(*blocks))

    def forward(
        self, input: Float[Tensor, "batch in_channels *size"]
    ) -> list[Float[Tensor, "batch _ ..."]]:
        """Return the maps of all levels, finest first."""
        maps: list[Tensor] = []
        for level in self.levels:
            maps.append(run(level, maps[-1] if maps else input, recompute=self.checkpoint))
        return maps
