"""Fused-MBConv: the inverted bottleneck with one full convolution in place of two."""

from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._conv import ConvNormAct, check_conv, in_fast_memory
from ._image import check_image
from ._norm import Make
from ._squeeze_excite import make_squeeze_excite


class FusedMBConv(nn.Module):
    """What the fused bottlenecks of images and volumes have in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        expand_ratio: int = 4,
        squeeze_ratio: float = 0.0,
        norm: Make | None = None,
        activation: Make = nn.SiLU,
        drop: Make = nn.Identity,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_conv(in_channels, out_channels, kernel_size=kernel_size, stride=stride)
        self.in_channels: int = in_channels
        self.has_shortcut: bool = stride == 1 and in_channels == out_channels
        dims = self.spatial_dims
        conv = partial(ConvNormAct, spatial_dims=dims, norm=norm, device=device, dtype=dtype)
        hidden = in_channels * check.integer("expand_ratio", expand_ratio, minimum=1)
        narrows = hidden > in_channels
        self.expand: nn.Module = conv(
            in_channels,
            hidden if narrows else out_channels,
            activation=activation,
            kernel_size=kernel_size,
            stride=stride,
        )
        self.squeeze_excite: nn.Module = make_squeeze_excite(
            hidden if narrows else out_channels,
            in_channels,
            squeeze_ratio,
            spatial_dims=dims,
            activation=activation,
            device=device,
            dtype=dtype,
        )
        self.project: nn.Module = conv(hidden, out_channels) if narrows else nn.Identity()
        self.drop: nn.Module = drop()

    def forward(
        self, input: Float[Tensor, "batch in_channels *size"]
    ) -> Float[Tensor, "batch out_channels *coarser"]:
        """Return the block's maps, with the input added where it has their shape.

        Args:
            input: Feature map of any size.
        """
        check_image(input, channels=self.in_channels, dims=self.spatial_dims)
        image = in_fast_memory(input)
        output = self.project(self.squeeze_excite(self.expand(image)))
        return image + self.drop(output) if self.has_shortcut else output


class FusedMBConv2D(FusedMBConv):
    r"""Inverted bottleneck whose widening convolution has the large kernel.

    For images; ``FusedMBConv3D`` has the formula and the differences from other programs. 32 to
    32 channels take 41,280 parameters.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Edge of the first kernel in pixels, odd.
        stride: Step of that convolution; an axis of ``n`` becomes ``(n - 1) // stride + 1``.
        expand_ratio: Channels of the hidden maps, as a multiple of ``in_channels``; 1 leaves out
            the last convolution.
        squeeze_ratio: Reduced channels of squeeze and excitation, as a fraction of
            ``in_channels``, rounded down, at least 1; 0 leaves the gates out.
        norm: Makes the norm after each convolution, called with the number of channels,
            ``device`` and ``dtype``; None is batch normalisation with epsilon 1e-3 and momentum
            0.01, as in EfficientNet.
        activation: Makes the activations.
        drop: Makes what is applied to the branch beside the shortcut, e.g.
            ``partial(DropPath, 0.1)``.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> FusedMBConv2D(16, 24, stride=2)(torch.zeros(2, 16, 20, 31)).shape
        torch.Size([2, 24, 10, 16])

    References:
        M. Tan, Q. V. Le. EfficientNetV2: Smaller Models and Faster Training. ICML 2021,
        section 3.2 and figure 2.
    """

    spatial_dims = 2


class FusedMBConv3D(FusedMBConv):
    r"""Inverted bottleneck whose widening convolution has the large kernel.

    .. math::
        y = x + \mathrm{drop}\bigl(\mathrm{N}(W_p\, \mathrm{SE}(\delta\,
            \mathrm{N}(\mathrm{Conv}_k\, x)))\bigr)

    with ``N`` the norm and ``δ`` the activation; the shortcut is there where input and output have
    one shape. Use it at high resolution and few channels, where a full convolution keeps a
    processor busier than a depthwise one: 32 to 32 channels take 115,008 parameters and 3.76
    billion multiply-adds at 32^3 voxels, six times those of ``MBConv3D``.

    The numbers are those of timm's ``EdgeResidual`` with the same weights. Difference: with an
    ``expand_ratio`` of 1 the block is one convolution, norm and activation, as in the authors'
    program; timm keeps the second.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Edge of the first kernel in voxels, odd.
        stride: Step of that convolution; an axis of ``n`` becomes ``(n - 1) // stride + 1``.
        expand_ratio: Channels of the hidden maps, as a multiple of ``in_channels``; 1 leaves out
            the last convolution.
        squeeze_ratio: Reduced channels of squeeze and excitation, as a fraction of
            ``in_channels``, rounded down, at least 1; 0 leaves the gates out.
        norm: Makes the norm after each convolution, called with the number of channels,
            ``device`` and ``dtype``; None is batch normalisation with epsilon 1e-3 and momentum
            0.01, as in EfficientNet.
        activation: Makes the activations.
        drop: Makes what is applied to the branch beside the shortcut, e.g.
            ``partial(DropPath, 0.1)``.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> FusedMBConv3D(16, 24, stride=2)(torch.zeros(2, 16, 8, 10, 7)).shape
        torch.Size([2, 24, 4, 5, 4])

    References:
        M. Tan, Q. V. Le. EfficientNetV2: Smaller Models and Faster Training. ICML 2021,
        section 3.2 and figure 2.
    """

    spatial_dims = 3
