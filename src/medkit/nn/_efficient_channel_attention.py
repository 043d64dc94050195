"""Efficient channel attention: gates from the means of neighbouring channels."""

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._image import check_image
from ._norm import Make


class EfficientChannelAttention(nn.Module):
    """What the attention of images and volumes has in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int | None = None,
        gate: Make = nn.Sigmoid,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.channels: int = check.integer("channels", channels, minimum=1)
        kernel = adaptive_kernel_size(channels) if kernel_size is None else kernel_size
        if check.integer("kernel_size", kernel, minimum=1) % 2 == 0:
            raise check.fail("kernel_size", "odd", kernel)
        self.conv: nn.Conv1d = nn.Conv1d(
            1, 1, kernel, padding=kernel // 2, bias=False, device=device, dtype=dtype
        )
        self.gate: nn.Module = gate()

    def forward(
        self, input: Float[Tensor, "batch channels *size"]
    ) -> Float[Tensor, "batch channels *size"]:
        """Return the input with each channel scaled by its gate.

        Args:
            input: Feature map of any size.
        """
        check_image(input, channels=self.channels, dims=self.spatial_dims)
        means = input.mean(tuple(range(2, input.ndim)))
        gates: Tensor = self.gate(self.conv(means[:, None]))
        return input * gates.reshape(*means.shape, *(1,) * self.spatial_dims)


def adaptive_kernel_size(channels: int) -> int:
    """Return the odd kernel of the paper for a number of channels, at least 3."""
    size = int((math.log2(channels) + 1) / 2)
    return max(3, size + 1 - size % 2)


class EfficientChannelAttention2D(EfficientChannelAttention):
    r"""Scales the channels of a feature map by gates computed from a few neighbours' means.

    For images; ``EfficientChannelAttention3D`` has the formula. 64 channels take 3 parameters.

    Args:
        channels: Channels of the input and the output.
        kernel_size: Number of channels that decide on each gate, odd; None takes it from
            ``channels``: 3 below 128, 5 below 2048.
        gate: Makes the function of the convolution that scales the channels.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> EfficientChannelAttention2D(64)(torch.zeros(2, 64, 20, 30)).shape
        torch.Size([2, 64, 20, 30])

    References:
        Q. Wang, B. Wu, P. Zhu, P. Li, W. Zuo, Q. Hu. ECA-Net: Efficient Channel Attention for Deep
        Convolutional Neural Networks. CVPR 2020, equations 7 to 12.
    """

    spatial_dims = 2


class EfficientChannelAttention3D(EfficientChannelAttention):
    r"""Scales the channels of a feature map by gates computed from a few neighbours' means.

    .. math:: y_c = x_c \, \sigma\Bigl(\sum_{j=1}^{k} w_j\, \bar x_{c + j - (k + 1) / 2}\Bigr),
              \qquad k = \Bigl|\tfrac12 \log_2 C + \tfrac12\Bigr|_{\text{odd}}

    with ``x̄`` the mean of each channel over the volume, zero beyond the first and the last, and
    at least 3 weights ``w``, shared by all channels. Use it in place of ``SqueezeExcite3D`` where
    its two layers are too many parameters: 64 channels take 3, and at 32^3 voxels 2.1 million
    multiplications. The numbers and the kernel sizes are those of timm's ``EcaModule``.

    Args:
        channels: Channels of the input and the output.
        kernel_size: Number of channels that decide on each gate, odd; None takes it from
            ``channels``: 3 below 128, 5 below 2048.
        gate: Makes the function of the convolution that scales the channels.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> EfficientChannelAttention3D(64)(torch.zeros(2, 64, 10, 8, 12)).shape
        torch.Size([2, 64, 10, 8, 12])

    References:
        Q. Wang, B. Wu, P. Zhu, P. Li, W. Zuo, Q. Hu. ECA-Net: Efficient Channel Attention for Deep
        Convolutional Neural Networks. CVPR 2020, equations 7 to 12.
    """

    spatial_dims = 3
