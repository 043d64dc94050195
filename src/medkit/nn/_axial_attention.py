"""Attention along one axis at a time."""

from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check
from medkit.ops import channels_first, channels_last

from ._attention import attend, check_heads
from ._image import check_image
from ._norm import Make


class LineAttention(nn.Module):
    """Self-attention of the positions on each line along one axis; channels last."""

    def __init__(
        self,
        channels: int,
        *,
        axis: int,
        num_heads: int,
        qkv_bias: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias, device=device, dtype=dtype)
        self.proj = nn.Linear(channels, channels, device=device, dtype=dtype)

    def forward(
        self, input: Float[Tensor, "batch *grid channels"]
    ) -> Float[Tensor, "batch *grid channels"]:
        """Return the attended map."""
        qkv: Tensor = self.qkv(input)
        lines = qkv.movedim(self.axis + 1, -2)
        query, key, value = lines.flatten(0, -3).chunk(3, dim=-1)
        output = attend(query, key, value, num_heads=self.num_heads)
        output = output.reshape(*lines.shape[:-1], -1).movedim(-2, self.axis + 1)
        return self.proj(output)

    def extra_repr(self) -> str:
        """Show the axis and the number of heads."""
        return f"axis={self.axis}, num_heads={self.num_heads}"


class AxialAttention(nn.Module):
    """What axial attention of images and volumes has in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int = 8,
        combine: Literal["sequence", "sum"] = "sequence",
        qkv_bias: bool = True,
        drop: Make = nn.Identity,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_heads(channels, num_heads)
        check.one_of("combine", combine, ("sequence", "sum"))
        self.channels: int = channels
        self.combine: Literal["sequence", "sum"] = combine
        self.lines: nn.ModuleList = nn.ModuleList(
            LineAttention(
                channels,
                axis=axis,
                num_heads=num_heads,
                qkv_bias=qkv_bias,
                device=device,
                dtype=dtype,
            )
            for axis in range(self.spatial_dims)
        )
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
        first, *others = (cast("LineAttention", line) for line in self.lines)
        output = first(grid)
        for line in others:
            output = line(output) if self.combine == "sequence" else output + line(grid)
        return channels_first(self.drop(output))

    def extra_repr(self) -> str:
        """Show how the axes are combined."""
        return f"combine={self.combine!r}"


class AxialAttention2D(AxialAttention):
    r"""Lets every position of a map attend to those in its row and in its column.

    For images; ``AxialAttention3D`` has the formula. 64 channels take 33,280 parameters.

    Args:
        channels: Channels of the input and the output.
        num_heads: Heads, a divisor of ``channels``.
        combine: Whether the axes follow one another, "sequence", or see the input each, "sum".
        qkv_bias: Whether the layers for queries, keys and values have a bias.
        drop: Makes what is applied to the output, e.g. ``partial(nn.Dropout, 0.1)``.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If ``num_heads`` does not divide ``channels``, an argument is out of range, or
            an input has another rank or number of channels.

    Example:
        >>> import torch
        >>> AxialAttention2D(32, num_heads=4)(torch.zeros(1, 32, 12, 10)).shape
        torch.Size([1, 32, 12, 10])

    References:
        H. Wang, Y. Zhu, B. Green, H. Adam, A. Yuille, L.-C. Chen. Axial-DeepLab: Stand-Alone
        Axial-Attention for Panoptic Segmentation. ECCV 2020, section 3.2.
    """

    spatial_dims = 2


class AxialAttention3D(AxialAttention):
    r"""Lets every position of a map attend to those on its lines along each axis.

    .. math::
        y = A_W(A_H(A_D(x))) \quad\text{or}\quad y = A_D(x) + A_H(x) + A_W(x)

    where ``A`` is the attention of ``MultiHeadSelfAttention3D`` among the positions that differ
    along one axis alone, with weights of its own. Use it where full attention would cost too
    much: each position has ``D + H + W`` keys, not ``D H W``. In a sequence every position has
    heard of every other at the end; a sum leaves it on its own lines and treats axes alike. 64
    channels take 49,920 parameters, and at 16^3 voxels 0.23 billion multiply-adds.

    Difference from Axial-DeepLab and MedT: no position embeddings inside the attention.

    No matrix of weights is kept for the backward pass. On a CPU that costs time for short lines:
    training on lines of 16 to 24 with 8 channels a head takes 1.4 times as long as with the
    softmax written out, in two thirds of the memory; lines of 64 take 0.8 of the time, of 128
    half of it.

    Args:
        channels: Channels of the input and the output.
        num_heads: Heads, a divisor of ``channels``.
        combine: Whether the axes follow one another, "sequence", or see the input each, "sum".
        qkv_bias: Whether the layers for queries, keys and values have a bias.
        drop: Makes what is applied to the output, e.g. ``partial(nn.Dropout, 0.1)``.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If ``num_heads`` does not divide ``channels``, an argument is out of range, or
            an input has another rank or number of channels.

    Example:
        >>> import torch
        >>> AxialAttention3D(32, num_heads=4)(torch.zeros(1, 32, 4, 6, 5)).shape
        torch.Size([1, 32, 4, 6, 5])

    References:
        J. Ho, N. Kalchbrenner, D. Weissenborn, T. Salimans. Axial Attention in Multidimensional
        Transformers. arXiv:1912.12180, 2019, section 3.
        H. Wang, Y. Zhu, B. Green, H. Adam, A. Yuille, L.-C. Chen. Axial-DeepLab: Stand-Alone
        Axial-Attention for Panoptic Segmentation. ECCV 2020, section 3.2.
    """

    spatial_dims = 3
