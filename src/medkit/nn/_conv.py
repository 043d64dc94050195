"""Convolutions of the blocks: PyTorch's layers, computed the way that is fastest.

All are ``nn.Conv2d`` or ``nn.Conv3d`` in their weights, their initial values and to ``isinstance``.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check
from medkit.ops import channels_first, channels_last

from ._batch_norm import evaluation_affine, is_hooked
from ._depthwise_conv import depthwise_conv
from ._norm import EFFICIENT_BATCH_NORM, Make
from ._pointwise_conv import pointwise_conv

CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


_IN_PLACE: dict[type[nn.Module], Callable[..., Tensor]] = {nn.SiLU: F.silu, nn.ReLU: F.relu}
"""Activations that overwrite a map of which nobody else knows, where no gradient is wanted."""


def in_fast_memory(
    input: Float[Tensor, "batch channel *size"],
) -> Float[Tensor, "batch channel *size"]:
    """Return the map in channels-last memory where that is faster, on a CPU; elsewhere as it is.

    In half precision on a CPU it is put into channels-first memory: PyTorch 2.13 gives a wrong
    gradient to the weight of a bfloat16 convolution of channels-last memory if the kernel is
    larger than the image.
    """
    if input.device.type != "cpu":
        return input
    if torch.is_autocast_enabled("cpu") or input.dtype not in {torch.float32, torch.float64}:
        return input.contiguous()
    return channels_first(channels_last(input).contiguous())


class _PointwiseConv2d(nn.Conv2d):
    def forward(
        self, input: Float[Tensor, "batch in_channels h w"]
    ) -> Float[Tensor, "batch out_channels h w"]:
        return _convolve(self, input, self.weight, self.bias)


class _PointwiseConv3d(nn.Conv3d):
    def forward(
        self, input: Float[Tensor, "batch in_channels d h w"]
    ) -> Float[Tensor, "batch out_channels d h w"]:
        return _convolve(self, input, self.weight, self.bias)


class _DepthwiseConv3d(nn.Conv3d):
    def forward(
        self, input: Float[Tensor, "batch channel d h w"]
    ) -> Float[Tensor, "batch channel d2 h2 w2"]:
        return _convolve(self, input, self.weight, self.bias)


def _convolve(
    conv: nn.Conv2d | nn.Conv3d, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Return what a layer would give with another weight and bias."""
    if isinstance(conv, _PointwiseConv2d | _PointwiseConv3d):
        return pointwise_conv(input, weight, bias)
    if isinstance(conv, _DepthwiseConv3d):
        return depthwise_conv(input, weight, bias, stride=conv.stride[0])
    function = F.conv3d if weight.ndim == 5 else F.conv2d
    padding = [size // 2 for size in weight.shape[2:]]
    return function(input, weight, bias, conv.stride, padding, groups=conv.groups)


_POINTWISE: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: _PointwiseConv2d, 3: _PointwiseConv3d}
_DEPTHWISE: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: _DepthwiseConv3d}


def make_pointwise(
    in_channels: int,
    out_channels: int,
    *,
    spatial_dims: int,
    bias: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Conv2d | nn.Conv3d:
    """Return a convolution with a kernel of 1."""
    conv = _POINTWISE[spatial_dims]
    return conv(in_channels, out_channels, 1, bias=bias, device=device, dtype=dtype)


class ConvNormAct(nn.Module):
    """Convolution without a bias, norm, activation; depthwise where asked.

    In evaluation mode batch normalisation is folded into the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        spatial_dims: int,
        norm: Make | None,
        activation: Make = nn.Identity,
        kernel_size: int = 1,
        stride: int = 1,
        depthwise: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kinds = CONV
        if depthwise:
            kinds = _DEPTHWISE
        elif kernel_size == stride == 1:
            kinds = _POINTWISE
        self.conv: nn.Conv2d | nn.Conv3d = kinds[spatial_dims](
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=in_channels if depthwise else 1,
            bias=False,
            device=device,
            dtype=dtype,
        )
        make = EFFICIENT_BATCH_NORM[spatial_dims] if norm is None else norm
        self.norm: nn.Module = make(out_channels, device=device, dtype=dtype)
        self.activation: nn.Module = activation()

    def forward(
        self, input: Float[Tensor, "batch in_channels *size"]
    ) -> Float[Tensor, "batch out_channels *coarser"]:
        """Return the activated maps."""
        affine = evaluation_affine(self.norm)
        if affine is None or is_hooked(self.conv):
            return self.activation(self.norm(self.conv(input)))
        weight = self.conv.weight
        folded = weight * affine.scale.reshape(-1, *(1,) * (weight.ndim - 1))
        shift = affine.shift.to(weight.dtype)
        output = _convolve(self.conv, input, folded.to(weight.dtype), shift)
        in_place = _IN_PLACE.get(type(self.activation))
        if in_place is None or torch.is_grad_enabled() or is_hooked(self.activation):
            return self.activation(output)
        return in_place(output, inplace=True)


def check_conv(
    in_channels: int, out_channels: int, *, kernel_size: int = 1, stride: int = 1
) -> None:
    """Raise unless the sizes are those of a convolution that keeps the grid but for its stride."""
    check.integer("in_channels", in_channels, minimum=1)
    check.integer("out_channels", out_channels, minimum=1)
    check.integer("stride", stride, minimum=1)
    if check.integer("kernel_size", kernel_size, minimum=1) % 2 == 0:
        raise check.fail("kernel_size", "odd", kernel_size)
