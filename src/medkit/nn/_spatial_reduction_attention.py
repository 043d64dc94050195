"""Self-attention whose keys and values live on a coarser grid than the queries."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medkit.nn._spatial_dims import CONV


class SpatialReductionAttention(nn.Module):
    """Multi-head attention of every position to a grid reduced by a strided convolution."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        sr_ratio: int,
        scale: float,
        spatial_dims: int,
        norm_eps: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = scale
        self.query = nn.Linear(dim, dim, device=device, dtype=dtype)
        self.key_value = nn.Linear(dim, 2 * dim, device=device, dtype=dtype)
        self.proj = nn.Linear(dim, dim, device=device, dtype=dtype)
        self.sr: nn.Module | None = None
        self.sr_norm: nn.LayerNorm | None = None
        if sr_ratio > 1:
            self.sr = CONV[spatial_dims](
                dim, dim, sr_ratio, stride=sr_ratio, device=device, dtype=dtype
            )
            self.sr_norm = nn.LayerNorm(dim, eps=norm_eps, device=device, dtype=dtype)

    def forward(self, input: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        """Return the attended values, projected."""
        context = input
        if self.sr is not None and self.sr_norm is not None:
            context = self.sr_norm(self.sr(input.movedim(-1, 1)).movedim(1, -1))
        query = self._heads(self.query(input))
        key, value = (self._heads(part) for part in self.key_value(context).chunk(2, dim=-1))
        output = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return self.proj(output.transpose(1, 2).reshape(input.shape))

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.flatten(1, -2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
