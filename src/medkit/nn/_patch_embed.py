"""Overlapping patch embedding: a strided convolution and a LayerNorm over channels."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check
from medkit.nn._spatial_dims import CONV


class PatchEmbed(nn.Module):
    """Patch embedding for 2-D or 3-D images, channels last on the way out."""

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        *,
        kernel_size: int,
        stride: int,
        spatial_dims: int,
        norm_eps: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.patch_embeddings = CONV[spatial_dims](
            in_channels,
            embed_dim,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            device=device,
            dtype=dtype,
        )
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps, device=device, dtype=dtype)

    def forward(
        self, input: Float[Tensor, "batch in_channel *size"]
    ) -> Float[Tensor, "batch *grid embed_dim"]:
        """Return the normalised patches, channels last."""
        return self.norm(self.patch_embeddings(input).movedim(1, -1))
