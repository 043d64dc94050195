"""Depthwise separable convolution: each channel on its own, then all at each position."""

from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ._conv import ConvNormAct, check_conv, in_fast_memory
from ._image import check_image
from ._norm import Make


class DepthwiseSeparableConv(nn.Module):
    """What the convolutions of images and volumes have in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        norm: Make | None = None,
        activation: Make = nn.ReLU,
        drop: Make = nn.Identity,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_conv(in_channels, out_channels, kernel_size=kernel_size, stride=stride)
        self.in_channels: int = in_channels
        self.has_shortcut: bool = stride == 1 and in_channels == out_channels
        conv = partial(
            ConvNormAct, spatial_dims=self.spatial_dims, norm=norm, device=device, dtype=dtype
        )
        self.depthwise: nn.Module = conv(
            in_channels,
            in_channels,
            activation=activation,
            kernel_size=kernel_size,
            stride=stride,
            depthwise=True,
        )
        self.pointwise: nn.Module = conv(in_channels, out_channels)
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
        output = self.pointwise(self.depthwise(image))
        return image + self.drop(output) if self.has_shortcut else output


class DepthwiseSeparableConv2D(DepthwiseSeparableConv):
    r"""Convolves each channel with a kernel of its own, then mixes channels at each position.

    For images; ``DepthwiseSeparableConv3D`` has the formula and the differences from other
    programs. 32 to 32 channels take 1,440 parameters.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Edge of the depthwise kernel in pixels, odd.
        stride: Step of that convolution; an axis of ``n`` becomes ``(n - 1) // stride + 1``.
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
        >>> DepthwiseSeparableConv2D(16, 24, stride=2)(torch.zeros(2, 16, 20, 31)).shape
        torch.Size([2, 24, 10, 16])

    References:
        A. G. Howard et al. MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
        Applications. arXiv:1704.04861, 2017, section 3.1 and equation 5; with the linear end and
        the shortcut of M. Sandler et al. MobileNetV2. CVPR 2018.
    """

    spatial_dims = 2


class DepthwiseSeparableConv3D(DepthwiseSeparableConv):
    r"""Convolves each channel with a kernel of its own, then mixes channels at each position.

    .. math::
        y = x + \mathrm{drop}\bigl(\mathrm{N}(W_p\, \delta\,
            \mathrm{N}(\mathrm{DWConv}_k\, x))\bigr)

    with ``N`` the norm and ``δ`` the activation; the shortcut is there where input and output have
    one shape. Use it in place of a full convolution: 32 to 32 channels take 2,016 parameters and
    62 million multiply-adds at 32^3 voxels, a full kernel of 3 takes 27,648 and 906 million.

    The numbers are those of timm's ``DepthwiseSeparableConv`` with the same weights. MobileNetV1
    has an activation behind the second norm and no shortcut: put one behind the block for it.

    On a CPU maps are put into channels-last memory, which halves the time of the block. For an
    image that comes in channels first, that copy makes evaluation 1.2 times as slow as timm's;
    training is as fast, and so is an image that is in that memory already.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Edge of the depthwise kernel in voxels, odd.
        stride: Step of that convolution; an axis of ``n`` becomes ``(n - 1) // stride + 1``.
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
        >>> DepthwiseSeparableConv3D(16, 24, stride=2)(torch.zeros(2, 16, 8, 10, 7)).shape
        torch.Size([2, 24, 4, 5, 4])

    References:
        A. G. Howard et al. MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
        Applications. arXiv:1704.04861, 2017, section 3.1 and equation 5; with the linear end and
        the shortcut of M. Sandler et al. MobileNetV2. CVPR 2018.
    """

    spatial_dims = 3
