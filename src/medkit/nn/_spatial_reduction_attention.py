"""Self-attention whose keys and values live on a coarser grid than the queries."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medkit.nn._layout import channels_first, channels_last


class SpatialReductionAttention(nn.Module):
    r"""Multi-head attention of every position to a grid that is ``sr_ratio`` times coarser.

    The grid of keys and values is a convolution with kernel and stride ``sr_ratio`` and no
    padding: where the size is no multiple of it, the rest at the far edge asks and is not asked,
    as in the published network. Channels last.
    """

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
        self.sr: nn.Module = nn.Identity()
        self.sr_norm: nn.Module = nn.Identity()
        self.reduces = sr_ratio > 1
        if self.reduces:
            conv = nn.Conv3d if spatial_dims == 3 else nn.Conv2d
            self.sr = conv(dim, dim, sr_ratio, stride=sr_ratio, device=device, dtype=dtype)
            self.sr_norm = nn.LayerNorm(dim, eps=norm_eps, device=device, dtype=dtype)

    def forward(self, input: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        """Return the attended values, projected."""
        source = input
        if self.reduces:
            source = self.sr_norm(channels_last(self.sr(channels_first(input))))
        key, value = self.key_value(source).chunk(2, dim=-1)
        output = F.scaled_dot_product_attention(
            self._heads(self.query(input)), self._heads(key), self._heads(value), scale=self.scale
        )
        return self.proj(output.transpose(1, 2).reshape(input.shape))

    def _heads(
        self, input: Float[Tensor, "batch *grid dim"]
    ) -> Float[Tensor, "batch head token head_dim"]:
        batch, *_, dim = input.shape
        return input.reshape(batch, -1, self.num_heads, dim // self.num_heads).transpose(1, 2)
