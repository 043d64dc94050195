"""Attention inside windows, regular or shifted, with a learned bias for each offset."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medkit._core import check
from medkit.ops import channels_first, channels_last

from ._attention import attend, check_heads
from ._image import check_image
from ._norm import Make
from ._windows import (
    Axis,
    Part,
    cut,
    join_windows,
    relative_position_index,
    split_windows,
    visible,
)


class WindowAttention(nn.Module):
    """What window attention of images and volumes has in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        channels: int,
        *,
        window_size: int | Sequence[int] = 7,
        shift_size: int | Sequence[int] = 0,
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
        dims = self.spatial_dims
        self.window_size: tuple[int, ...] = check.per_axis("window_size", window_size, dims)
        self.shift_size: tuple[int, ...] = check.per_axis("shift_size", shift_size, dims)
        _check_shift(self.window_size, self.shift_size)
        self.relative_position_index: Tensor
        index = relative_position_index(self.window_size, device=device)
        self.register_buffer("relative_position_index", index, persistent=False)
        offsets = math.prod(2 * window - 1 for window in self.window_size)
        self.relative_position_bias_table: nn.Parameter = nn.Parameter(
            torch.empty(offsets, num_heads, device=device, dtype=dtype)
        )
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
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
        axes = cut(input.shape[2:], self.window_size, self.shift_size)
        bias = self._bias(axes)
        qkv = self.qkv(_shifted(channels_last(input), axes))
        output = _rolled(self._by_blocks(qkv, bias, axes), [axis.shift for axis in axes])
        for place, axis in enumerate(axes, start=1):
            output = output.narrow(place, 0, axis.length)
        return channels_first(self.drop(self.proj(output)))

    def _by_blocks(
        self,
        qkv: Float[Tensor, "batch *grid three_channels"],
        bias: Float[Tensor, "head token source"],
        axes: tuple[Axis, ...],
        block: tuple[Part, ...] = (),
    ) -> Float[Tensor, "batch *grid channels"]:
        """Return the attended map, cut into blocks whose windows all have one mask."""
        if len(block) == len(axes):
            return self._in_windows(qkv, bias, axes, visible(axes, block, qkv.device))
        place = len(block) + 1
        outputs = [
            self._by_blocks(
                qkv.narrow(place, part.start, part.stop - part.start), bias, axes, (*block, part)
            )
            for part in axes[len(block)].parts()
        ]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=place)

    def _in_windows(
        self,
        qkv: Float[Tensor, "batch *grid three_channels"],
        bias: Float[Tensor, "head token source"],
        axes: tuple[Axis, ...],
        mask: Bool[Tensor, "token source"] | None,
    ) -> Float[Tensor, "batch *grid channels"]:
        if mask is not None:
            bias = bias.masked_fill(~mask, -math.inf)
        query, key, value = split_windows(qkv, axes).chunk(3, dim=-1)
        output = attend(query, key, value, num_heads=self.num_heads, bias=bias[None])
        return join_windows(output, qkv.shape[1:-1], axes)

    def _bias(self, axes: tuple[Axis, ...]) -> Float[Tensor, "head token source"]:
        """Return what is added to the logits of a window, which a small grid may cut short."""
        index = self.relative_position_index
        if any(axis.window < size for axis, size in zip(axes, self.window_size, strict=True)):
            index = index.reshape(2 * self.window_size)
            for place, axis in enumerate(axes):
                index = index.narrow(place, 0, axis.window)
                index = index.narrow(len(axes) + place, 0, axis.window)
        tokens = math.prod([axis.window for axis in axes])
        return self.relative_position_bias_table[index.reshape(tokens, tokens)].movedim(-1, 0)

    def extra_repr(self) -> str:
        """Show the sizes of window and shift and the number of heads."""
        return (
            f"window_size={self.window_size}, shift_size={self.shift_size}, "
            f"num_heads={self.num_heads}"
        )


def _shifted(
    input: Float[Tensor, "batch *grid channels"], axes: tuple[Axis, ...]
) -> Float[Tensor, "batch *padded channels"]:
    """Return the grid with zeros up to whole windows, rolled against the shift."""
    missing = [axis.padded - axis.length for axis in reversed(axes)]
    padded = input
    if any(missing):
        padded = F.pad(input, [0, 0, *(size for end in missing for size in (0, end))])
    return _rolled(padded, [-axis.shift for axis in axes])


def _rolled(
    input: Float[Tensor, "batch *grid channels"], shifts: Sequence[int]
) -> Float[Tensor, "batch *grid channels"]:
    if not any(shifts):
        return input
    return input.roll(list(shifts), list(range(1, len(shifts) + 1)))


def _check_shift(window_size: tuple[int, ...], shift_size: tuple[int, ...]) -> None:
    for window, shift in zip(window_size, shift_size, strict=True):
        check.integer("window_size", window, minimum=1)
        if not 0 <= check.integer("shift_size", shift) < window:
            raise check.fail("shift_size", f"from 0 to below window_size {window_size}", shift_size)


class WindowAttention2D(WindowAttention):
    r"""Lets every position of a map attend to those in its window, nearer or farther by a bias.

    For images; ``WindowAttention3D`` has the formula and the differences from other programs. 64
    channels in windows of 7 take 17,992 parameters.

    Args:
        channels: Channels of the input and the output.
        window_size: Edge of the windows in pixels, one number or one for each axis.
        shift_size: By how much the windows are shifted, 0 or more, below ``window_size``.
        num_heads: Heads, a divisor of ``channels``.
        qkv_bias: Whether the layer for queries, keys and values has a bias.
        drop: Makes what is applied to the output, e.g. ``partial(nn.Dropout, 0.1)``.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If ``num_heads`` does not divide ``channels``, a shift is not below its window,
            an argument is out of range, or an input has another rank or number of channels.

    Example:
        >>> import torch
        >>> attention = WindowAttention2D(32, window_size=4, shift_size=2, num_heads=4)
        >>> attention(torch.zeros(1, 32, 12, 10)).shape
        torch.Size([1, 32, 12, 10])

    References:
        Z. Liu et al. Swin Transformer: Hierarchical Vision Transformer using Shifted Windows. ICCV
        2021, section 3.2, equation 4.
    """

    spatial_dims = 2


class WindowAttention3D(WindowAttention):
    r"""Lets every position of a map attend to those in its window, nearer or farther by a bias.

    .. math:: y = W_o\, \bigl[\mathrm{softmax}(Q_i K_i^\top / \sqrt d + B_i)\, V_i\bigr]_i + b_o

    for the positions of one window, ``M`` along each axis. ``B`` is looked up by the offset of two
    positions in a learned table of ``(2M - 1)^3`` rows and a column for each head. Use layers
    without and with a shift of ``M // 2`` in turn, so that windows exchange what they know; time
    grows with the number of voxels, not its square. 64 channels in windows of 7 take 34,216
    parameters, and at 28^3 voxels 1.32 billion multiply-adds.

    The numbers are those of the window attention of Swin UNETR in MONAI and, for images, of timm,
    whose names of weights these are, with partition, shift and mask around it. Differences: a grid
    of any size is taken, and zeros that fill up the last window are seen by nobody (there they
    take part); where one window covers an axis, it is as long as the axis and not shifted, with
    the bias of the offsets that are left; windows that a shift has put together are kept apart by
    minus infinity, not by -100; no dropout of single weights. Of the table and the mask one copy
    is made for all windows alike, not one for each window.

    Args:
        channels: Channels of the input and the output.
        window_size: Edge of the windows in voxels, one number or one for each axis.
        shift_size: By how much the windows are shifted, 0 or more, below ``window_size``.
        num_heads: Heads, a divisor of ``channels``.
        qkv_bias: Whether the layer for queries, keys and values has a bias.
        drop: Makes what is applied to the output, e.g. ``partial(nn.Dropout, 0.1)``.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If ``num_heads`` does not divide ``channels``, a shift is not below its window,
            an argument is out of range, or an input has another rank or number of channels.

    Example:
        >>> import torch
        >>> attention = WindowAttention3D(32, window_size=(2, 4, 4), shift_size=1, num_heads=4)
        >>> attention(torch.zeros(1, 32, 4, 6, 5)).shape
        torch.Size([1, 32, 4, 6, 5])

    References:
        Z. Liu et al. Swin Transformer: Hierarchical Vision Transformer using Shifted Windows. ICCV
        2021, section 3.2, equation 4; in 3D: Z. Liu et al. Video Swin Transformer. CVPR 2022.
    """

    spatial_dims = 3
