"""SegFormer: a Mix Transformer encoder and an all-MLP decoder."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check
from medkit.nn._batch_norm import make_batch_norm
from medkit.nn._linear_resize import resize_linear
from medkit.nn._mix_transformer import MixTransformer2D, MixTransformer3D, Pyramid
from medkit.nn._segformer_decoder import SegFormerDecoder
from medkit.nn._segformer_init import init_weights
from medkit.nn._segformer_profile import Profile, Variant, numerics


class SegFormer(nn.Module):
    """What the networks for images and volumes have in common; not for use itself."""

    spatial_dims: ClassVar[int]

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
        encoder = MixTransformer3D if self.spatial_dims == 3 else MixTransformer2D
        self.segformer_encoder = encoder(
            in_channels,
            variant=variant,
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            sr_ratios=sr_ratios,
            mlp_ratios=mlp_ratios,
            norm_eps=norm_eps,
            drop_path_rate=drop_path_rate,
            profile=profile,
            checkpoint=checkpoint,
            device=device,
            dtype=dtype,
        )
        rules = numerics(profile)
        dim = check.integer("decoder_dim", decoder_dim, minimum=1)
        batch_norm = make_batch_norm(
            dim, spatial_dims=self.spatial_dims, numerics=rules, device=device, dtype=dtype
        )
        self.segformer_decoder = SegFormerDecoder(
            self.segformer_encoder.embed_dims,
            dim,
            check.integer("num_classes", num_classes, minimum=1),
            spatial_dims=self.spatial_dims,
            norm_eps=rules.norm_eps,
            batch_norm=batch_norm,
            dropout=check.fraction("dropout", dropout, below_one=True),
            device=device,
            dtype=dtype,
        )
        init_weights(self.segformer_decoder, init=rules.init)

    def forward(
        self, input: Float[Tensor, "batch in_channels *size"]
    ) -> Float[Tensor, "batch num_classes *size"]:
        """Return the logits of every class at every voxel.

        Args:
            input: Image of at least 32 voxels along each spatial axis; the axes may differ and
                need no common divisor.
        """
        return resize_linear(self.segformer_decoder(self.features(input)), input.shape[2:])

    def features(self, input: Float[Tensor, "batch in_channels *size"]) -> Pyramid:
        """Return the encoder's maps at 1/4, 1/8, 1/16 and 1/32 of the resolution, finest first.

        Args:
            input: As in ``forward``.
        """
        return self.segformer_encoder(input)


class SegFormer2D(SegFormer):
    """SegFormer for images; ``SegFormer3D`` says the rest."""

    spatial_dims = 2


class SegFormer3D(SegFormer):
    spatial_dims = 3
