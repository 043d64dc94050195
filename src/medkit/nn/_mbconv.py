"""MBConv: the inverted bottleneck of MobileNetV2 with squeeze and excitation."""

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


class MBConv(nn.Module):
    """What the inverted bottlenecks of images and volumes have in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        expand_ratio: int = 6,
        squeeze_ratio: float = 0.25,
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
        self.expand: nn.Module = nn.Identity()
        if hidden > in_channels:
            self.expand = conv(in_channels, hidden, activation=activation)
        self.depthwise: nn.Module = conv(
            hidden,
            hidden,
            activation=activation,
            kernel_size=kernel_size,
            stride=stride,
            depthwise=True,
        )
        self.squeeze_excite: nn.Module = make_squeeze_excite(
            hidden,
            in_channels,
            squeeze_ratio,
            spatial_dims=dims,
            activation=activation,
            device=device,
            dtype=dtype,
        )
        self.project: nn.Module = conv(hidden, out_channels)
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
        output = self.project(self.squeeze_excite(self.depthwise(self.expand(image))))
        return image + self.drop(output) if self.has_shortcut else output


class MBConv2D(MBConv):
    r"""Inverted bottleneck: widen, convolve each channel, gate the channels, narrow.

    For images; ``MBConv3D`` has the formula and the differences from other programs. 32 to 32
    channels take 18,120 parameters.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Edge of the depthwise kernel in pixels, odd.
        stride: Step of that convolution; an axis of ``n`` becomes ``(n - 1) // stride + 1``.
        expand_ratio: Channels of the hidden maps, as a multiple of ``in_channels``; 1 leaves out
            the first convolution.
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
        >>> MBConv2D(16, 24, stride=2)(torch.zeros(2, 16, 20, 31)).shape
        torch.Size([2, 24, 10, 16])

    References:
        M. Tan, Q. V. Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural
        Networks. ICML 2019, section 4; M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen.
        MobileNetV2: Inverted Residuals and Linear Bottlenecks. CVPR 2018, table 1.
    """

    spatial_dims = 2


class MBConv3D(MBConv):
    r"""Inverted bottleneck: widen, convolve each channel, gate the channels, narrow.

    .. math::
        h = \delta\, \mathrm{N}(W_e x), \quad
        h' = \delta\, \mathrm{N}(\mathrm{DWConv}_k\, h), \quad
        y = x + \mathrm{drop}\bigl(\mathrm{N}(W_p\, \mathrm{SE}(h'))\bigr)

    with ``N`` the norm and ``δ`` the activation; the shortcut is there where input and output have
    one shape. Use it in place of two full convolutions, at a fraction of their parameters: 32 to
    32 channels take 21,576, and 0.57 billion multiply-adds at 32^3 voxels, of which the
    depthwise convolution has 0.17.

    The numbers are those of timm's ``InvertedResidual`` and MONAI's ``MBConvBlock`` with the same
    weights. Differences: squeeze and excitation are reduced from the input channels, as in
    EfficientNet (some 3D programs reduce from the hidden ones, four to six times as wide); zeros
    are put at both ends of an axis, where TensorFlow and MONAI put them at the far end alone if
    the stride is 2 and the size even; ``drop`` acts only beside a shortcut. The maps are in
    channels-last memory, on a CPU the depthwise gradients have kernels of their own, and in
    evaluation mode batch normalisation is folded into the convolutions.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Edge of the depthwise kernel in voxels, odd.
        stride: Step of that convolution; an axis of ``n`` becomes ``(n - 1) // stride + 1``.
        expand_ratio: Channels of the hidden maps, as a multiple of ``in_channels``; 1 leaves out
            the first convolution.
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
        >>> MBConv3D(16, 24, stride=2)(torch.zeros(2, 16, 8, 10, 7)).shape
        torch.Size([2, 24, 4, 5, 4])

    References:
        M. Tan, Q. V. Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural
        Networks. ICML 2019, section 4; M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen.
        MobileNetV2: Inverted Residuals and Linear Bottlenecks. CVPR 2018, table 1.
    """

    spatial_dims = 3
