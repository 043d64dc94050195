"""The Mix Transformer (MiT), the encoder of SegFormer.

Inside, a map is ``(batch, *grid, channel)``: linear layers and norms read it as it is, and its
channels-first view is what PyTorch calls ``channels_last`` memory, which the convolutions take
without a copy.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check
from medkit.ops import channels_first, channels_last

from ._image import check_image
from ._mix_transformer_block import MixTransformerBlock
from ._patch_embed import PatchEmbed2D, PatchEmbed3D
from ._recompute import run
from ._segformer_init import init_weights
from ._segformer_profile import (
    Numerics,
    PerStage,
    Profile,
    StageSizes,
    Variant,
    numerics,
    stage_sizes,
)

STRIDES = (4, 2, 2, 2)


class Pyramid(NamedTuple):
    """Feature maps of the four stages, finest first, channels first in channels-last memory."""

    c1: Float[Tensor, "batch channel1 *grid1"]
    c2: Float[Tensor, "batch channel2 *grid2"]
    c3: Float[Tensor, "batch channel3 *grid3"]
    c4: Float[Tensor, "batch channel4 *grid4"]


class MixTransformer(nn.Module):
    """What the encoders of images and volumes have in common; not for use itself."""

    spatial_dims: ClassVar[int]
    strides: PerStage = STRIDES

    def __init__(
        self,
        in_channels: int = 4,
        *,
        variant: Variant = "b0",
        embed_dims: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        sr_ratios: Sequence[int] | None = None,
        mlp_ratios: Sequence[int] | None = None,
        norm_eps: float | None = None,
        drop_path_rate: float | None = None,
        profile: Profile = "segformer3d",
        checkpoint: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = stage_sizes(
            variant,
            spatial_dims=self.spatial_dims,
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            sr_ratios=sr_ratios,
            mlp_ratios=mlp_ratios,
        )
        rules = numerics(profile, norm_eps=norm_eps, drop_path_rate=drop_path_rate)
        self.in_channels: int = check.integer("in_channels", in_channels, minimum=1)
        self.embed_dims: PerStage = sizes.embed_dims
        self.channels: PerStage = sizes.embed_dims
        self.minimum_size: int = _minimum_size(sizes.sr_ratios)
        self.checkpoint = checkpoint
        self._add_embeddings(sizes.embed_dims, rules.norm_eps, device, dtype)
        self._add_blocks(sizes, rules, device, dtype)
        init_weights(self, init=rules.init)

    def _add_embeddings(
        self,
        dims: PerStage,
        norm_eps: float,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        patch_embed = PatchEmbed3D if self.spatial_dims == 3 else PatchEmbed2D
        for stage, stride in enumerate(STRIDES):
            embed = patch_embed(
                dims[stage - 1] if stage else self.in_channels,
                dims[stage],
                kernel_size=2 * stride - 1,
                stride=stride,
                norm_eps=norm_eps,
                device=device,
                dtype=dtype,
            )
            self.add_module(f"embed_{stage + 1}", embed)

    def _add_blocks(
        self,
        sizes: StageSizes,
        rules: Numerics,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        last = max(sum(sizes.depths) - 1, 1)
        first = 0
        for stage, (dim, depth, heads, sr_ratio, mlp_ratio) in enumerate(
            zip(*sizes, strict=True), start=1
        ):
            blocks = nn.ModuleList(
                MixTransformerBlock(
                    dim,
                    num_heads=heads,
                    sr_ratio=sr_ratio,
                    mlp_ratio=mlp_ratio,
                    drop_path_rate=rules.drop_path_rate * block / last,
                    spatial_dims=self.spatial_dims,
                    numerics=rules,
                    device=device,
                    dtype=dtype,
                )
                for block in range(first, first + depth)
            )
            first += depth
            norm = nn.LayerNorm(dim, eps=rules.block_norm_eps, device=device, dtype=dtype)
            self.add_module(f"tf_block{stage}", blocks)
            self.add_module(f"norm{stage}", norm)

    def forward(self, input: Float[Tensor, "batch in_channels *size"]) -> Pyramid:
        """Return the normalised map of every stage.

        Args:
            input: Image of at least ``minimum_size`` (32) along each spatial axis; the axes may
                differ and need no common divisor.
        """
        check_image(
            input,
            channels=self.in_channels,
            dims=self.spatial_dims,
            minimum=self.minimum_size,
            weight=cast("Tensor", self.get_submodule("norm1").weight),
        )
        maps: list[Tensor] = []
        image = input
        for stage in range(1, len(STRIDES) + 1):
            tokens = channels_last(self.get_submodule(f"embed_{stage}")(image))
            for block in cast("nn.ModuleList", self.get_submodule(f"tf_block{stage}")):
                tokens = run(block, tokens, recompute=self.checkpoint)
            image = channels_first(self.get_submodule(f"norm{stage}")(tokens))
            maps.append(image)
        return Pyramid(*maps)


class MixTransformer2D(MixTransformer):
    r"""Hierarchical transformer encoder for images: four maps at 1/4, 1/8, 1/16 and 1/32.

    ``MixTransformer3D`` in two dimensions, which has the formula and says what it is for; keys and
    values live on grids 8, 4, 2 and 1 times coarser. ``"b0"`` with 3 channels takes 3.3 million
    parameters, and at 256^2 pixels 0.54 billion multiply-adds without those inside the attention.

    Args:
        in_channels: Channels of the input.
        variant: Sizes of the stages; any of the next five arguments replaces its part.
        embed_dims: Channels of each stage.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage; each divides the channels.
        sr_ratios: How many times coarser the grid of keys and values is along each axis.
        mlp_ratios: Hidden channels of the feed-forward networks, as multiples of ``embed_dims``.
        norm_eps: Added to the variance in the LayerNorms of blocks and stages; None takes that
            of the profile.
        drop_path_rate: Probability of dropping the last block for a sample while training, in
            [0, 1); it grows linearly from 0 at the first. None takes that of the profile.
        profile: Numerics, as in ``SegFormer3D``.
        checkpoint: Whether to keep only the input of each block while training and to compute
            the block again in the backward pass: less memory for more time, the same numbers.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels or is smaller than 32 along an axis.

    Example:
        >>> import torch
        >>> encoder = MixTransformer2D(3).eval()
        >>> for level in encoder(torch.zeros(1, 3, 64, 50)):
        ...     print(tuple(level.shape))
        (1, 32, 16, 13)
        (1, 64, 8, 7)
        (1, 160, 4, 4)
        (1, 256, 2, 2)

    References:
        E. Xie, W. Wang, Z. Yu, A. Anandkumar, J. M. Alvarez, P. Luo. SegFormer: Simple and
        Efficient Design for Semantic Segmentation with Transformers. NeurIPS 2021, section 3.1,
        with batch normalisation in the feed-forward network (equation 3).
    """

    spatial_dims = 2


class MixTransformer3D(MixTransformer):
    r"""Hierarchical transformer encoder for volumes: four maps at 1/4, 1/8, 1/16 and 1/32.

    Each stage embeds overlapping patches (``PatchEmbed3D``) and refines them in blocks

    .. math::
        x' = x + \mathrm{Attention}(\mathrm{LN}(x)), \qquad
        y = x' + W_2\, \mathrm{GELU}(\mathrm{BN}(\mathrm{DWConv}_3(W_1 \mathrm{LN}(x'))))

    whose keys and values live on a grid ``sr_ratio`` times coarser than the queries. There is no
    position embedding, so any size of at least 32 along each axis works, cubic or not; an axis of
    ``n`` voxels gives ``ceil(n / 4)`` positions at first, and half of them, rounded up, at each
    later stage. Use it as the encoder of a network of your own; ``SegFormer3D`` is this with a
    decoder. Batch normalisation is folded into the depthwise convolutions in evaluation mode.

    Args:
        in_channels: Channels of the input.
        variant: Sizes of the stages, from 4.1 million parameters (``"b0"``) to 69 (``"b5"``);
            any of the next five arguments replaces its part.
        embed_dims: Channels of each stage.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage; each divides the channels.
        sr_ratios: How many times coarser the grid of keys and values is along each axis.
        mlp_ratios: Hidden channels of the feed-forward networks, as multiples of ``embed_dims``.
        norm_eps: Added to the variance in the LayerNorms of blocks and stages; None takes that
            of the profile.
        drop_path_rate: Probability of dropping the last block for a sample while training, in
            [0, 1); it grows linearly from 0 at the first. None takes that of the profile.
        profile: Numerics, as in ``SegFormer3D``.
        checkpoint: Whether to keep only the input of each block while training and to compute
            the block again in the backward pass: less memory for more time, the same numbers.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels or is smaller than 32 along an axis.

    Example:
        >>> import torch
        >>> encoder = MixTransformer3D(1).eval()
        >>> for level in encoder(torch.zeros(1, 1, 32, 48, 50)):
        ...     print(tuple(level.shape))
        (1, 32, 8, 12, 13)
        (1, 64, 4, 6, 7)
        (1, 160, 2, 3, 4)
        (1, 256, 1, 2, 2)

    References:
        E. Xie, W. Wang, Z. Yu, A. Anandkumar, J. M. Alvarez, P. Luo. SegFormer: Simple and
        Efficient Design for Semantic Segmentation with Transformers. NeurIPS 2021, section 3.1,
        with batch normalisation in the feed-forward network (equation 3) as in S. Perera,
        P. Navard, A. Yilmaz. SegFormer3D: an Efficient Transformer for 3D Medical Image
        Segmentation. CVPR Workshops 2024.
    """

    spatial_dims = 3


def _minimum_size(sr_ratios: PerStage) -> int:
    """Return the smallest axis whose maps are all at least as large as their reduction."""
    strides = (4, 8, 16, 32)
    return max(32, *((ratio - 1) * s + 1 for ratio, s in zip(sr_ratios, strides, strict=True)))
