"""SegFormer for volumes: a Mix Transformer encoder and an all-MLP decoder."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check
from medkit.nn._batch_norm import make_batch_norm
from medkit.nn._mix_transformer import MixTransformer
from medkit.nn._segformer_decoder import SegFormerDecoder
from medkit.nn._segformer_profile import Profile, Variant, numerics, stage_sizes


class SegFormer3D(nn.Module):
    def __init__(
        self,
        in_channels: int = 4,
        num_classes: int = 3,
        *,
        variant: Variant = "b0",
        embed_dims: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        sr_ratios: Sequence[int] | None = None,
        mlp_ratios: Sequence[int] | None = None,
        decoder_dim: int = 256,
        norm_eps: float | None = None,
        dropout: float = 0.0,
        drop_path_rate: float | None = None,
        profile: Profile = "segformer3d",
        checkpoint: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = stage_sizes(
            variant,
            spatial_dims=3,
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            sr_ratios=sr_ratios,
            mlp_ratios=mlp_ratios,
        )
        rules = numerics(profile, norm_eps=norm_eps, drop_path_rate=drop_path_rate)
        self.segformer_encoder = MixTransformer(
            check.integer("in_channels", in_channels, minimum=1),
            sizes=sizes,
            numerics=rules,
            spatial_dims=3,
            checkpoint=checkpoint,
            device=device,
            dtype=dtype,
        )
        dim = check.integer("decoder_dim", decoder_dim, minimum=1)
        self.segformer_decoder = SegFormerDecoder(
            sizes.embed_dims,
            dim,
            check.integer("num_classes", num_classes, minimum=1),
            spatial_dims=3,
            norm_eps=rules.norm_eps,
            batch_norm=make_batch_norm(
                dim, spatial_dims=3, numerics=rules, device=device, dtype=dtype
            ),
            dropout=check.fraction("dropout", dropout, below_one=True),
            device=device,
            dtype=dtype,
        )

    def forward(
        self, input: Float[Tensor, "batch in_channels depth height width"]
    ) -> Float[Tensor, "batch num_classes depth height width"]:
        logits = self.segformer_decoder(*self.features(input))
        return F.interpolate(logits, size=input.shape[2:], mode="trilinear")

    def features(self, input: Tensor) -> tuple[Tensor, ...]:
        return self.segformer_encoder(input)
