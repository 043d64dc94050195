"""The expanding path of a U-Net, for the maps of any encoder."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ._on_grid import on_grid
from ._recompute import run
from ._unet_encoder import ConvBlock, Layers, PerAxis

UP: dict[int, Callable[..., nn.Module]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


class UpBlock(nn.Module):
    """A coarser map brought to the grid of a skip connection, joined with it, and convolved."""

    def __init__(
        self,
        coarse_channels: int,
        skip_channels: int,
        out_channels: int,
        layers: Layers,
        *,
        kernel_size: PerAxis,
        stride: PerAxis,
    ) -> None:
        super().__init__()
        self.up: nn.Module = UP[layers.spatial_dims](
            coarse_channels, out_channels, stride, stride=stride, bias=False, **layers.factory
        )
        self.block: ConvBlock = ConvBlock(
            out_channels + skip_channels, out_channels, layers, kernel_size=kernel_size
        )

    def forward(
        self,
        coarse: Float[Tensor, "batch coarse_channels *coarse"],
        skip: Float[Tensor, "batch skip_channels *size"],
    ) -> Float[Tensor, "batch out_channels *size"]:
        """Return the map on the grid of the skip connection."""
        up = on_grid(self.up(coarse), skip.shape[2:])
        return self.block(torch.cat((up, skip), 1))


class UNetDecoder(nn.Module):
    """One block for each skip connection, from the coarsest to the finest."""

    def __init__(
        self,
        channels: Sequence[int],
        out_channels: Sequence[int],
        layers: Layers,
        *,
        strides: Sequence[PerAxis],
        kernel_sizes: Sequence[PerAxis],
        checkpoint: bool,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.levels: nn.ModuleList = nn.ModuleList()
        coarse = channels[-1]
        for level in reversed(range(len(out_channels))):
            block = UpBlock(
                coarse,
                channels[level],
                out_channels[level],
                layers,
                kernel_size=kernel_sizes[level],
                stride=strides[level + 1],
            )
            self.levels.append(block)
            coarse = out_channels[level]

    def forward(
        self, maps: Sequence[Float[Tensor, "batch _ ..."]]
    ) -> list[Float[Tensor, "batch _ ..."]]:
        """Return the decoder's maps, finest first."""
        output = maps[-1]
        outputs: list[Tensor] = []
        for block, skip in zip(self.levels, reversed(maps[:-1]), strict=True):
            output = run(block, output, skip, recompute=self.checkpoint)
            outputs.insert(0, output)
        return outputs
