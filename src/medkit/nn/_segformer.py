"""SegFormer: a Mix Transformer encoder and an all-MLP decoder."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._batch_norm import make_batch_norm
from ._linear_resize import resize_linear
from ._mix_transformer import MixTransformer2D, MixTransformer3D, Pyramid
from ._segformer_decoder import SegFormerDecoder
from ._segformer_init import init_weights
from ._segformer_profile import Profile, Variant, numerics


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
        self.segformer_encoder: MixTransformer2D | MixTransformer3D = encoder(
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
        self.profile: Profile = profile
        rules = numerics(profile)
        dim = check.integer("decoder_dim", decoder_dim, minimum=1)
        batch_norm = make_batch_norm(
            dim, spatial_dims=self.spatial_dims, numerics=rules, device=device, dtype=dtype
        )
        self.segformer_decoder: SegFormerDecoder = SegFormerDecoder(
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
    """Segments images with a hierarchical transformer and an all-MLP decoder, 3.7 M parameters.

    ``SegFormer3D`` in two dimensions, which says what is computed; sizes, profiles and tensor
    names are the same with one axis less, and keys and values live on grids 8, 4, 2 and 1 times
    coarser. This is the SegFormer of medicai, with batch normalisation inside the feed-forward
    networks and LayerNorm in the decoder, so that weights of the authors of SegFormer do not fit.

    =======  ==========  ===============================
    variant  parameters  blocks and channels
    =======  ==========  ===============================
    ``b0``    3,725,155  2 2 2 2, 32 64 160 256
    ``b1``   13,696,451  2 2 2 2, 64 128 320 512
    ``b2``   24,758,211  3 4 6 3, 64 128 320 512
    ``b3``   44,664,771  3 4 18 3, 64 128 320 512
    ``b4``   61,462,467  3 8 27 3, 64 128 320 512
    ``b5``   82,094,019  3 6 40 3, 64 128 320 512
    =======  ==========  ===============================

    Args:
        in_channels: Channels of the input, 3 for colours.
        num_classes: Channels of the output.
        variant: As in ``SegFormer3D``, as all that follow.
        embed_dims: Channels of each stage.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage; each divides the channels.
        sr_ratios: How many times coarser the grid of keys and values is along each axis.
        mlp_ratios: Hidden channels of the feed-forward networks, as multiples of ``embed_dims``.
        decoder_dim: Channels of the decoder.
        norm_eps: Added to the variance in the LayerNorms of blocks and stages; None takes that
            of the profile.
        dropout: Probability of dropping an element before the last layer while training.
        drop_path_rate: Probability of dropping the last block for a sample while training, in
            [0, 1); it grows linearly from 0 at the first. None takes that of the profile.
        profile: Which program's numbers to reproduce.
        checkpoint: Whether to compute each block again in the backward pass instead of keeping
            what is inside.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels or is smaller than 32 along an axis.

    Example:
        >>> import torch
        >>> model = SegFormer2D(in_channels=3, num_classes=2, profile="medicai").eval()
        >>> model(torch.zeros(1, 3, 65, 100)).shape
        torch.Size([1, 2, 65, 100])

    References:
        E. Xie, W. Wang, Z. Yu, A. Anandkumar, J. M. Alvarez, P. Luo. SegFormer: Simple and
        Efficient Design for Semantic Segmentation with Transformers. NeurIPS 2021, equation 4.
    """

    spatial_dims = 2


class SegFormer3D(SegFormer):
    r"""Segments volumes with a hierarchical transformer and an all-MLP decoder, 4.5 M parameters.

    .. math::
        c_1, \dots, c_4 = \mathrm{MiT}(x), \qquad
        y = \mathrm{Up}\Bigl(W_p\, \mathrm{ReLU}\, \mathrm{BN} \sum_i
            \mathrm{Up}\bigl(F_i\, \mathrm{LN}(W_i c_i + b_i)\bigr) + b_p\Bigr)

    with ``Up`` linear to the size of ``c1``, then of ``x``. Use it where a whole network must fit
    in little memory: at 4 x 128^3 voxels it takes 7.7 billion multiply-adds, the published
    program 15.6. Logits go to a loss as they are; softmax or sigmoid is the user's choice.

    The tensor names are those of the published network, so its checkpoints load with
    ``load_state_dict``, and the profile decides what is computed with them:

    * ``"segformer3d"``: attention logits divided by the root of the head dimension, as in the
      published repository since November 2025;
    * ``"segformer3d_published"``: by the root of the number of heads, as in its first release of
      April 2024. Take it for checkpoints trained with that release: with the other scale they
      load and give wrong logits;
    * ``"medicai"``: as in medicai 0.0.4: tanh GELU; LayerNorms of blocks and stages with epsilon
      1e-6; batch normalisation with epsilon 1e-3, momentum 0.01 and the variance of the batch
      divided by n; ``drop_path_rate`` 0.1; Glorot initial weights. Its concatenation order is a
      matter of conversion: here it is always that of the published network.

    Differences from the published program, none in the numbers to rounding: any size of at least
    32 works and gives logits of that size; the part of the fusion that belongs to a level is
    applied at that level's resolution, and batch normalisation is folded in evaluation mode. So
    ``linear_fuse`` is not called as a whole, nor ``linear_c1`` and ``linear_c2`` where the
    decoder is wide; hooks belong on ``linear_fuse[2]`` or on the encoder. While training, a
    volume of 32 along every axis needs a batch of two, since batch normalisation at 1/32 of the
    resolution has one position a sample.

    Args:
        in_channels: Channels of the input, e.g. MR sequences.
        num_classes: Channels of the output.
        variant: Sizes of the encoder, ``"b0"`` as published, up to ``"b5"`` of 70 million
            parameters; any of the next five arguments replaces its part.
        embed_dims: Channels of each stage.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage; each divides the channels.
        sr_ratios: How many times coarser the grid of keys and values is along each axis.
        mlp_ratios: Hidden channels of the feed-forward networks, as multiples of ``embed_dims``.
        decoder_dim: Channels of the decoder.
        norm_eps: Added to the variance in the LayerNorms of blocks and stages; None takes that
            of the profile.
        dropout: Probability of dropping an element before the last layer while training.
        drop_path_rate: Probability of dropping the last block for a sample while training, in
            [0, 1); it grows linearly from 0 at the first. None takes that of the profile.
        profile: Which program's numbers to reproduce.
        checkpoint: Whether to keep only the input of each block while training and to compute
            the block again in the backward pass: less memory for more time, the same numbers.
            Without effect under ``torch.compile``, which decides by itself.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels or is smaller than 32 along an axis.

    Example:
        >>> import torch
        >>> model = SegFormer3D(in_channels=1, num_classes=4).eval()
        >>> model(torch.zeros(1, 1, 40, 48, 33)).shape
        torch.Size([1, 4, 40, 48, 33])
        >>> sum(parameter.numel() for parameter in SegFormer3D().parameters())
        4525251

    References:
        S. Perera, P. Navard, A. Yilmaz. SegFormer3D: an Efficient Transformer for 3D Medical
        Image Segmentation. CVPR Workshops 2024, section 3.
        E. Xie, W. Wang, Z. Yu, A. Anandkumar, J. M. Alvarez, P. Luo. SegFormer: Simple and
        Efficient Design for Semantic Segmentation with Transformers. NeurIPS 2021, equation 4.
    """

    spatial_dims = 3
