"""One block of a Mix Transformer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit.ops import channels_first, channels_last

from ._batch_norm import make_batch_norm
from ._drop_path import DropPath
from ._mix_feed_forward import MixFeedForward
from ._segformer_profile import Numerics
from ._spatial_reduction_attention import (
    SpatialReductionAttention2D,
    SpatialReductionAttention3D,
)


class MixTransformerBlock(nn.Module):
    """Attention and feed-forward network, each behind a LayerNorm and beside a shortcut."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        sr_ratio: int,
        mlp_ratio: int,
        drop_path_rate: float,
        spatial_dims: int,
        numerics: Numerics,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        eps, hidden_dim = numerics.block_norm_eps, dim * mlp_ratio
        divisor = num_heads if numerics.scale_by == "num_heads" else dim // num_heads
        self.norm1 = nn.LayerNorm(dim, eps=eps, device=device, dtype=dtype)
        attention = (
            SpatialReductionAttention3D if spatial_dims == 3 else SpatialReductionAttention2D
        )
        self.attention = attention(
            dim,
            num_heads=num_heads,
            sr_ratio=sr_ratio,
            scale=divisor**-0.5,
            norm_eps=numerics.norm_eps,
            device=device,
            dtype=dtype,
        )
        self.norm2 = nn.LayerNorm(dim, eps=eps, device=device, dtype=dtype)
        self.mlp = MixFeedForward(
            dim,
            hidden_dim,
            spatial_dims=spatial_dims,
            batch_norm=make_batch_norm(
                hidden_dim, spatial_dims=spatial_dims, numerics=numerics, device=device, dtype=dtype
            ),
            activation=nn.GELU(approximate=numerics.gelu),
            device=device,
            dtype=dtype,
        )
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, input: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        """Return the refined positions, channels last."""
        attended = channels_last(self.attention(channels_first(self.norm1(input))))
        output = input + self.drop_path(attended)
        return output + self.drop_path(self.mlp(self.norm2(output)))
