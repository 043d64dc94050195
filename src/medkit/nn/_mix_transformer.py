"""The Mix Transformer (MiT), the encoder of SegFormer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medkit.nn._batch_norm import make_batch_norm
from medkit.nn._drop_path import DropPath
from medkit.nn._mix_feed_forward import MixFeedForward
from medkit.nn._patch_embed import PatchEmbed
from medkit.nn._segformer_profile import Numerics, StageSizes
from medkit.nn._spatial_reduction_attention import SpatialReductionAttention


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
        eps = numerics.block_norm_eps
        self.norm1 = nn.LayerNorm(dim, eps=eps, device=device, dtype=dtype)
        self.attention = SpatialReductionAttention(
            dim,
            num_heads=num_heads,
            sr_ratio=sr_ratio,
            scale=(num_heads if numerics.scale_by == "num_heads" else dim // num_heads) ** -0.5,
            spatial_dims=spatial_dims,
            norm_eps=numerics.norm_eps,
            device=device,
            dtype=dtype,
        )
        self.norm2 = nn.LayerNorm(dim, eps=eps, device=device, dtype=dtype)
        self.mlp = MixFeedForward(
            dim,
            dim * mlp_ratio,
            spatial_dims=spatial_dims,
            batch_norm=make_batch_norm(
                dim * mlp_ratio,
                spatial_dims=spatial_dims,
                numerics=numerics,
                device=device,
                dtype=dtype,
            ),
            activation=nn.GELU(approximate=numerics.gelu),
            device=device,
            dtype=dtype,
        )
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, input: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        """Return the refined positions."""
        output = input + self.drop_path(self.attention(self.norm1(input)))
        return output + self.drop_path(self.mlp(self.norm2(output)))


class MixTransformer(nn.Module):
    """Four stages of overlapping patches and attention, for 2-D or 3-D images."""

    def __init__(
        self,
        in_channels: int,
        *,
        sizes: StageSizes,
        numerics: Numerics,
        spatial_dims: int,
        checkpoint: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        dims = (in_channels, *sizes.embed_dims)
        for stage in range(4):
            embed = PatchEmbed(
                dims[stage],
                dims[stage + 1],
                kernel_size=7 if stage == 0 else 3,
                stride=4 if stage == 0 else 2,
                spatial_dims=spatial_dims,
                norm_eps=numerics.norm_eps,
                device=device,
                dtype=dtype,
            )
            self.add_module(f"embed_{stage + 1}", embed)
        rates = iter(_linspace(numerics.drop_path_rate, sum(sizes.depths)))
        for stage in range(4):
            blocks = nn.ModuleList(
                MixTransformerBlock(
                    sizes.embed_dims[stage],
                    num_heads=sizes.num_heads[stage],
                    sr_ratio=sizes.sr_ratios[stage],
                    mlp_ratio=sizes.mlp_ratios[stage],
                    drop_path_rate=next(rates),
                    spatial_dims=spatial_dims,
                    numerics=numerics,
                    device=device,
                    dtype=dtype,
                )
                for _ in range(sizes.depths[stage])
            )
            norm = nn.LayerNorm(
                sizes.embed_dims[stage], eps=numerics.block_norm_eps, device=device, dtype=dtype
            )
            self.add_module(f"tf_block{stage + 1}", blocks)
            self.add_module(f"norm{stage + 1}", norm)

    def forward(self, input: Float[Tensor, "batch in_channels *size"]) -> tuple[Tensor, ...]:
        """Return the four pyramid maps, finest first, channels first in channels-last memory."""
        maps: list[Tensor] = []
        for stage in range(1, 5):
            tokens = self.get_submodule(f"embed_{stage}")(maps[-1] if maps else input)
            for block in self.get_submodule(f"tf_block{stage}").children():
                if self.checkpoint and torch.is_grad_enabled():
                    tokens = checkpoint(block, tokens, use_reentrant=False)
                else:
                    tokens = block(tokens)
            maps.append(self.get_submodule(f"norm{stage}")(tokens).movedim(-1, 1))
        return tuple(maps)


def _linspace(end: float, steps: int) -> list[float]:
    return [end * step / max(steps - 1, 1) for step in range(steps)]
