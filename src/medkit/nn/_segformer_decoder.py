"""The all-MLP decoder of SegFormer, with the fusion applied before the resizing."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medkit.nn._spatial_dims import CONV

LINEAR_MODE = {2: "bilinear", 3: "trilinear"}


class LinearEmbed(nn.Module):
    """Projection of one pyramid level to the width of the decoder, and a LayerNorm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm_eps: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, out_channels, device=device, dtype=dtype)
        self.bn = nn.LayerNorm(out_channels, eps=norm_eps, device=device, dtype=dtype)

    def forward(self, input: Float[Tensor, "batch *grid in"]) -> Float[Tensor, "batch *grid out"]:
        """Return the embedded level, channels last."""
        return self.bn(self.proj(input))


class SegFormerDecoder(nn.Module):
    """Logits at the resolution of the finest pyramid level."""

    def __init__(
        self,
        in_channels: tuple[int, int, int, int],
        dim: int,
        num_classes: int,
        *,
        spatial_dims: int,
        norm_eps: float,
        batch_norm: nn.Module,
        dropout: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.mode = LINEAR_MODE[spatial_dims]
        c1, c2, c3, c4 = (
            LinearEmbed(channels, dim, norm_eps=norm_eps, device=device, dtype=dtype)
            for channels in in_channels
        )
        self.linear_c4, self.linear_c3, self.linear_c2, self.linear_c1 = c4, c3, c2, c1
        conv = CONV[spatial_dims]
        self.linear_fuse = nn.Sequential(
            conv(4 * dim, dim, 1, bias=False, device=device, dtype=dtype),
            batch_norm,
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.linear_pred = conv(dim, num_classes, 1, device=device, dtype=dtype)

    def forward(
        self,
        c1: Float[Tensor, "batch channel1 *grid1"],
        c2: Float[Tensor, "batch channel2 *grid2"],
        c3: Float[Tensor, "batch channel3 *grid3"],
        c4: Float[Tensor, "batch channel4 *grid4"],
    ) -> Float[Tensor, "batch num_classes *grid1"]:
        """Return the logits on the grid of the finest level."""
        grid = c1.shape[2:]
        fuse = self.linear_fuse[0].weight.flatten(1).chunk(4, dim=1)
        embeds = (self.linear_c4, self.linear_c3, self.linear_c2, self.linear_c1)
        total: Tensor | None = None
        for level, embed, weight in zip((c4, c3, c2, c1), embeds, fuse, strict=True):
            part = F.linear(embed(level.movedim(1, -1)), weight).movedim(-1, 1)
            if part.shape[2:] != grid:
                part = F.interpolate(part, size=grid, mode=self.mode)
            total = part if total is None else total + part
        return self.linear_pred(self.linear_fuse[1:](total))
