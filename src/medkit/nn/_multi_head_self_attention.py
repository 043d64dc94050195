"""Multi-head self-attention over all positions of a grid."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit.ops import channels_first, channels_last

from ._attention import attend, check_heads
from ._image import check_image
from ._norm import Make


class MultiHeadSelfAttention(nn.Module):
    """What self-attention of images and volumes has in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int = 8,
        qkv_bias: bool = True,
        drop: Make = nn.Identity,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_heads(channels, num_heads)
        self.channels: int = channels
        self.num_heads: int = num_heads
        self.qkv: nn.Linear = nn.Linear(
            channels, 3 * channels, bias=qkv_bias, device=device, dtype=dtype
        )
        self.proj: nn.Linear = nn.Linear(channels, channels, device=device, dtype=dtype)
        self.drop: nn.Module = drop()

    def forward(
        self, input: Float[Tensor, "batch channels *size"]
    ) -> Float[Tensor, "batch channels *size"]:
        """Return the attended map, on the grid of the input.

        Args:
            input: Feature map of any size.
        """
        check_image(input, channels=self.channels, dims=self.spatial_dims)
        grid = channels_last(input)
        query, key, value = self.qkv(grid.flatten(1, -2)).chunk(3, dim=-1)
        output = attend(query, key, value, num_heads=self.num_heads)
        return channels_first(self.drop(self.proj(output)).reshape(grid.shape))

    def extra_repr(self) -> str:
        """Show the number of heads."""
        return f"num_heads={self.num_heads}"


class MultiHeadSelfAttention2D(MultiHeadSelfAttention):
    r"""Lets every position of a map attend to every other, in several heads.

    .. math:: y = W_o\, \bigl[\mathrm{softmax}(Q_i K_i^\top / \sqrt d)\, V_i\bigr]_i + b_o

    For images; ``MultiHeadSelfAttention3D`` says what is special. 64 channels take 16,640
    parameters.

    Args:
        channels: Channels of the input and the output.
        num_heads: Heads, a divisor of ``channels``.
        qkv_bias: Whether the layer for queries, keys and values has a bias.
        drop: Makes what is applied to the output, e.g. ``partial(nn.Dropout, 0.1)``.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If ``num_heads`` does not divide ``channels``, an argument is out of range, or
            an input has another rank or number of channels.

    Example:
        >>> import torch
        >>> MultiHeadSelfAttention2D(32, num_heads=4)(torch.zeros(1, 32, 12, 10)).shape
        torch.Size([1, 32, 12, 10])

    References:
        A. Vaswani et al. Attention Is All You Need. NeurIPS 2017, section 3.2, equation 1.
    """

    spatial_dims = 2


class MultiHeadSelfAttention3D(MultiHeadSelfAttention):
    r"""Lets every position of a map attend to every other, in several heads.

    .. math:: y = W_o\, \bigl[\mathrm{softmax}(Q_i K_i^\top / \sqrt d)\, V_i\bigr]_i + b_o

    with queries, keys and values ``W x + b`` of each position, split into heads of ``d`` channels.
    The map goes in and comes out as a grid; nothing tells positions apart but their values. Use
    it at low resolution: time grows with the square of the number of voxels. Memory does not:
    the matrix of weights is never built (one of 32^3 tokens and 8 heads has 34 GB in float32),
    forward or backward. 64 channels take 16,640 parameters, and at 16^3 voxels 2.2 billion
    multiply-adds, of which the attention has 2.1.

    The numbers are those of MONAI's ``SABlock`` and timm's ``Attention`` with the same weights.
    Difference: no dropout of single weights, which would build the matrix; ``drop`` acts on the
    output.

    Args:
        channels: Channels of the input and the output.
        num_heads: Heads, a divisor of ``channels``.
        qkv_bias: Whether the layer for queries, keys and values has a bias.
        drop: Makes what is applied to the output, e.g. ``partial(nn.Dropout, 0.1)``.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If ``num_heads`` does not divide ``channels``, an argument is out of range, or
            an input has another rank or number of channels.

    Example:
        >>> import torch
        >>> MultiHeadSelfAttention3D(32, num_heads=4)(torch.zeros(1, 32, 4, 6, 5)).shape
        torch.Size([1, 32, 4, 6, 5])

    References:
        A. Vaswani et al. Attention Is All You Need. NeurIPS 2017, section 3.2, equation 1.
        T. Dao. FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning.
        ICLR 2024, algorithm 1, for the memory.
    """

    spatial_dims = 3
