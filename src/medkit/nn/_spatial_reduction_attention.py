"""Self-attention whose keys and values live on a coarser grid than the queries."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check
from medkit.ops import channels_first, channels_last

from ._attention import attend, check_heads
from ._conv import CONV
from ._image import check_image
from ._norm import Make


class SpatialReductionAttention(nn.Module):
    """What the attention of images and volumes has in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int = 8,
        sr_ratio: int = 2,
        scale: float | None = None,
        norm_eps: float = 1e-5,
        drop: Make = nn.Identity,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_heads(channels, num_heads)
        self.channels: int = channels
        self.num_heads: int = num_heads
        self.sr_ratio: int = check.integer("sr_ratio", sr_ratio, minimum=1)
        default = (channels // num_heads) ** -0.5
        self.scale: float = default if scale is None else check.positive("scale", scale)
        self.query: nn.Linear = nn.Linear(channels, channels, device=device, dtype=dtype)
        self.key_value: nn.Linear = nn.Linear(channels, 2 * channels, device=device, dtype=dtype)
        self.proj: nn.Linear = nn.Linear(channels, channels, device=device, dtype=dtype)
        self.sr: nn.Module = nn.Identity()
        self.sr_norm: nn.Module = nn.Identity()
        if sr_ratio > 1:
            conv = CONV[self.spatial_dims]
            self.sr = conv(
                channels, channels, sr_ratio, stride=sr_ratio, device=device, dtype=dtype
            )
            eps = check.positive("norm_eps", norm_eps)
            self.sr_norm = nn.LayerNorm(channels, eps=eps, device=device, dtype=dtype)
        self.drop: nn.Module = drop()

    def forward(
        self, input: Float[Tensor, "batch channels *size"]
    ) -> Float[Tensor, "batch channels *size"]:
        """Return the attended map, on the grid of the input.

        Args:
            input: Feature map of at least ``sr_ratio`` along each axis.
        """
        check_image(input, channels=self.channels, dims=self.spatial_dims, minimum=self.sr_ratio)
        grid = channels_last(input)
        source = self.sr_norm(channels_last(self.sr(input)))
        key, value = self.key_value(source.flatten(1, -2)).chunk(2, dim=-1)
        query = self.query(grid.flatten(1, -2))
        output = attend(query, key, value, num_heads=self.num_heads, scale=self.scale)
        return channels_first(self.drop(self.proj(output)).reshape(grid.shape))

    def extra_repr(self) -> str:
        """Show the number of heads and the reduction."""
        return f"num_heads={self.num_heads}, sr_ratio={self.sr_ratio}"


class SpatialReductionAttention2D(SpatialReductionAttention):
    r"""Lets every position of a map attend to a grid that is ``sr_ratio`` times coarser.

    For images; ``SpatialReductionAttention3D`` says the rest. 64 channels with a reduction of 2
    take 33,216 parameters.

    Args:
        channels: Channels of the input and the output.
        num_heads: Heads, a divisor of ``channels``.
        sr_ratio: How many times coarser the grid of keys and values is along each axis.
        scale: Number that multiplies the logits; None is one over the root of the channels of a
            head.
        norm_eps: Added to the variance in the LayerNorm of the coarse grid.
        drop: Makes what is applied to the output, e.g. ``partial(nn.Dropout, 0.1)``.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If ``num_heads`` does not divide ``channels``, an argument is out of range, or
            an input has another rank or number of channels or is smaller than ``sr_ratio``.

    Example:
        >>> import torch
        >>> attention = SpatialReductionAttention2D(32, num_heads=4, sr_ratio=4)
        >>> attention(torch.zeros(1, 32, 12, 10)).shape
        torch.Size([1, 32, 12, 10])

    References:
        W. Wang et al. Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction
        without Convolutions. ICCV 2021, equations 1 to 4.
    """

    spatial_dims = 2


class SpatialReductionAttention3D(SpatialReductionAttention):
    r"""Lets every position of a map attend to a grid that is ``sr_ratio`` times coarser.

    .. math::
        y = W_o\, \bigl[\mathrm{softmax}(s\, Q_i K_i^\top)\, V_i\bigr]_i + b_o, \qquad
        K, V = W_{kv}\, \mathrm{LN}(\mathrm{Conv}_r\, x) + b_{kv}

    with a convolution whose kernel and stride are ``r = sr_ratio``, and no padding: where the size
    is no multiple of it, the rest at the far edge asks and is not asked, as in the published
    SegFormer3D. A ratio of 1 leaves convolution and norm out and is ``MultiHeadSelfAttention3D``.
    Use it where that would cost too much: time and weights of attention are ``r^3`` times fewer.
    64 channels with a reduction of 2 take 49,600 parameters, and at 16^3 voxels 0.32 billion
    multiply-adds.

    This is the attention of ``MixTransformer3D``, with its names of weights.

    Args:
        channels: Channels of the input and the output.
        num_heads: Heads, a divisor of ``channels``.
        sr_ratio: How many times coarser the grid of keys and values is along each axis.
        scale: Number that multiplies the logits; None is one over the root of the channels of a
            head.
        norm_eps: Added to the variance in the LayerNorm of the coarse grid.
        drop: Makes what is applied to the output, e.g. ``partial(nn.Dropout, 0.1)``.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If ``num_heads`` does not divide ``channels``, an argument is out of range, or
            an input has another rank or number of channels or is smaller than ``sr_ratio``.

    Example:
        >>> import torch
        >>> attention = SpatialReductionAttention3D(32, num_heads=4, sr_ratio=2)
        >>> attention(torch.zeros(1, 32, 4, 6, 5)).shape
        torch.Size([1, 32, 4, 6, 5])

    References:
        W. Wang et al. Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction
        without Convolutions. ICCV 2021, equations 1 to 4.
    """

    spatial_dims = 3
