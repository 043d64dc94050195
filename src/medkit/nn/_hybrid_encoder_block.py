"""A level of a hybrid network: two inverted bottlenecks, a transformer, shuffle attention."""

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check
from medkit.ops import channels_first, channels_last

from ._axial_attention import AxialAttention2D, AxialAttention3D
from ._image import check_image
from ._mbconv import MBConv2D, MBConv3D
from ._multi_head_self_attention import (
    MultiHeadSelfAttention2D,
    MultiHeadSelfAttention3D,
)
from ._norm import INSTANCE_NORM, Make
from ._shuffle_attention import ShuffleAttention2D, ShuffleAttention3D
from ._spatial_reduction_attention import (
    SpatialReductionAttention2D,
    SpatialReductionAttention3D,
)
from ._window_attention import WindowAttention2D, WindowAttention3D

Transformer = Literal["full", "window", "axial", "reduced"]

NORM_GROUPS = 32
MLP_RATIO = 4


class GridTransformer(nn.Module):
    """Attention and two linear layers, each behind a group norm and beside a shortcut."""

    def __init__(
        self,
        channels: int,
        *,
        attention: nn.Module,
        drop: Make,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        groups, hidden = math.gcd(NORM_GROUPS, channels), MLP_RATIO * channels
        self.norm1 = nn.GroupNorm(groups, channels, device=device, dtype=dtype)
        self.attention = attention
        self.norm2 = nn.GroupNorm(groups, channels, device=device, dtype=dtype)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden, device=device, dtype=dtype),
            nn.GELU(),
            nn.Linear(hidden, channels, device=device, dtype=dtype),
        )
        self.drop = drop()

    def forward(
        self, input: Float[Tensor, "batch channels *size"]
    ) -> Float[Tensor, "batch channels *size"]:
        """Return the refined positions."""
        output = input + self.drop(self.attention(self.norm1(input)))
        hidden = channels_last(self.norm2(output))
        return output + self.drop(channels_first(self.mlp(hidden)))


class HybridEncoderBlock(nn.Module):
    """What the blocks of images and volumes have in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        transformer: Transformer | None = None,
        num_heads: int = 8,
        window_size: int = 4,
        sr_ratio: int = 2,
        shuffle_groups: int | None = None,
        expand_ratio: int = 4,
        norm: Make | None = None,
        activation: Make = nn.SiLU,
        drop: Make = nn.Identity,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dims = self.spatial_dims
        self.in_channels: int = in_channels
        mbconv = partial(
            MBConv3D if dims == 3 else MBConv2D,
            expand_ratio=expand_ratio,
            norm=INSTANCE_NORM[dims] if norm is None else norm,
            activation=activation,
            drop=drop,
            device=device,
            dtype=dtype,
        )
        self.mbconv1: nn.Module = mbconv(in_channels, out_channels)
        self.mbconv2: nn.Module = mbconv(out_channels, out_channels)
        self.transformer: nn.Module = nn.Identity()
        if transformer is not None:
            check.one_of("transformer", transformer, tuple(_ATTENTION[dims]))
            options: dict[str, int] = {"num_heads": num_heads}
            if transformer == "window":
                options["window_size"] = window_size
            if transformer == "reduced":
                options["sr_ratio"] = sr_ratio
            attention = _ATTENTION[dims][transformer]
            self.transformer = GridTransformer(
                out_channels,
                attention=attention(out_channels, **options, device=device, dtype=dtype),
                drop=drop,
                device=device,
                dtype=dtype,
            )
        self.shuffle_attention: nn.Module = nn.Identity()
        if shuffle_groups is not None:
            shuffle_attention = ShuffleAttention3D if dims == 3 else ShuffleAttention2D
            self.shuffle_attention = shuffle_attention(
                out_channels, groups=shuffle_groups, device=device, dtype=dtype
            )

    def forward(
        self, input: Float[Tensor, "batch in_channels *size"]
    ) -> Float[Tensor, "batch out_channels *size"]:
        """Return the block's maps, on the grid of the input.

        Args:
            input: Feature map of more than one position; of at least ``sr_ratio`` along each axis
                where the transformer is "reduced".
        """
        check_image(input, channels=self.in_channels, dims=self.spatial_dims)
        output = self.mbconv2(self.mbconv1(input))
        return self.shuffle_attention(self.transformer(output))


_ATTENTION: dict[int, dict[Transformer, Callable[..., nn.Module]]] = {
    2: {
        "full": MultiHeadSelfAttention2D,
        "window": WindowAttention2D,
        "axial": AxialAttention2D,
        "reduced": SpatialReductionAttention2D,
    },
    3: {
        "full": MultiHeadSelfAttention3D,
        "window": WindowAttention3D,
        "axial": AxialAttention3D,
        "reduced": SpatialReductionAttention3D,
    },
}


class HybridEncoderBlock2D(HybridEncoderBlock):
    r"""Two inverted bottlenecks, then a transformer layer and shuffle attention where asked.

    For images; ``HybridEncoderBlock3D`` says the rest. 32 to 64 channels take 60,952 parameters
    without a transformer.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        transformer: Attention of the transformer layer; None leaves the layer out.
        num_heads: Its heads, a divisor of ``out_channels``.
        window_size: Edge of the windows of "window" in pixels.
        sr_ratio: How many times coarser the keys of "reduced" are along each axis.
        shuffle_groups: Groups of the shuffle attention; None leaves it out.
        expand_ratio: Channels of the hidden maps of the bottlenecks, as a multiple of their
            inputs.
        norm: Makes the norm after each convolution, called with the number of channels,
            ``device`` and ``dtype``; None is instance norm with a learned scale and shift.
        activation: Makes the activations of the bottlenecks.
        drop: Makes what is applied to each branch beside a shortcut, e.g.
            ``partial(DropPath, 0.1)``.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> block = HybridEncoderBlock2D(8, 16, transformer="axial", shuffle_groups=4)
        >>> block(torch.zeros(1, 8, 10, 6)).shape
        torch.Size([1, 16, 10, 6])

    References:
        M. Tan, Q. V. Le. EfficientNet. ICML 2019, section 4; A. Vaswani et al. Attention Is All
        You Need. NeurIPS 2017, section 3; Q.-L. Zhang, Y.-B. Yang. SA-Net. ICASSP 2021.
    """

    spatial_dims = 2


class HybridEncoderBlock3D(HybridEncoderBlock):
    r"""Two inverted bottlenecks, then a transformer layer and shuffle attention where asked.

    .. math::
        m = \mathrm{MBConv}(\mathrm{MBConv}(x)), \quad
        t = m + A(\mathrm{GN}(m)), \quad
        t' = t + W_2\, \mathrm{GELU}(W_1\, \mathrm{GN}(t)), \quad
        y = \mathrm{SA}(t')

    Use it as a level of an encoder or a decoder: bottlenecks alone at high resolution, and a
    transformer, with attention ``A`` that fits in time, at low resolution: "full" to about 16^3
    voxels (``MultiHeadSelfAttention3D``), above it "window" (``WindowAttention3D``), "axial"
    (``AxialAttention3D``) or "reduced" (``SpatialReductionAttention3D``). The group norms have 32
    groups, or the largest number that divides both 32 and the channels. 32 to 64 channels take
    67,864 parameters without a transformer, and at 32^3 voxels 1.8 billion multiply-adds.

    The design is that of a 3D brain tumour network whose program is not published under a licence.
    Differences from it: squeeze and excitation are reduced from the input channels of a
    bottleneck, as in EfficientNet; shuffle attention shuffles across all groups, as in its paper;
    attention never builds its matrix, and its layer for queries, keys and values has a bias.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        transformer: Attention of the transformer layer; None leaves the layer out.
        num_heads: Its heads, a divisor of ``out_channels``.
        window_size: Edge of the windows of "window" in voxels.
        sr_ratio: How many times coarser the keys of "reduced" are along each axis.
        shuffle_groups: Groups of the shuffle attention; None leaves it out.
        expand_ratio: Channels of the hidden maps of the bottlenecks, as a multiple of their
            inputs.
        norm: Makes the norm after each convolution, called with the number of channels,
            ``device`` and ``dtype``; None is instance norm with a learned scale and shift.
        activation: Makes the activations of the bottlenecks.
        drop: Makes what is applied to each branch beside a shortcut, e.g.
            ``partial(DropPath, 0.1)``.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> block = HybridEncoderBlock3D(8, 16, transformer="window", shuffle_groups=4)
        >>> block(torch.zeros(1, 8, 4, 6, 5)).shape
        torch.Size([1, 16, 4, 6, 5])

    References:
        M. Tan, Q. V. Le. EfficientNet. ICML 2019, section 4; A. Vaswani et al. Attention Is All
        You Need. NeurIPS 2017, section 3; Q.-L. Zhang, Y.-B. Yang. SA-Net. ICASSP 2021.
    """

    spatial_dims = 3
