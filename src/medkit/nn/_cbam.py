"""CBAM: gates by channel, then gates by position, each from means and maxima."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._conv import CONV, make_pointwise
from ._image import check_image
from ._norm import BATCH_NORM, Make


class CBAM(nn.Module):
    """What the attention of images and volumes has in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        channels: int,
        *,
        reduced_channels: int | None = None,
        kernel_size: int = 7,
        norm: Make | None = None,
        activation: Make = nn.ReLU,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.channels: int = check.integer("channels", channels, minimum=1)
        reduced = max(1, channels // 16) if reduced_channels is None else reduced_channels
        check.integer("reduced_channels", reduced, minimum=1)
        if check.integer("kernel_size", kernel_size, minimum=1) % 2 == 0:
            raise check.fail("kernel_size", "odd", kernel_size)
        dims = self.spatial_dims
        self.reduce: nn.Module = make_pointwise(
            channels, reduced, spatial_dims=dims, device=device, dtype=dtype
        )
        self.activation: nn.Module = activation()
        self.expand: nn.Module = make_pointwise(
            reduced, channels, spatial_dims=dims, device=device, dtype=dtype
        )
        self.conv: nn.Module = CONV[dims](
            2, 1, kernel_size, padding=kernel_size // 2, bias=False, device=device, dtype=dtype
        )
        make_norm = BATCH_NORM[dims] if norm is None else norm
        self.norm: nn.Module = make_norm(1, device=device, dtype=dtype)

    def forward(
        self, input: Float[Tensor, "batch channels *size"]
    ) -> Float[Tensor, "batch channels *size"]:
        """Return the input scaled by channel, then by position.

        Args:
            input: Feature map of any size.
        """
        check_image(input, channels=self.channels, dims=self.spatial_dims)
        axes = tuple(range(2, input.ndim))
        means, maxima = input.mean(axes, keepdim=True), input.amax(axes, keepdim=True)
        output = input * torch.sigmoid(self._logits(means) + self._logits(maxima))
        pooled = torch.cat((output.mean(1, keepdim=True), output.amax(1, keepdim=True)), dim=1)
        return output * torch.sigmoid(self.norm(self.conv(pooled.contiguous())))

    def _logits(self, pooled: Float[Tensor, "batch channels *ones"]) -> Tensor:
        return self.expand(self.activation(self.reduce(pooled)))


class CBAM2D(CBAM):
    r"""Scales a feature map by gates for its channels, then by gates for its positions.

    For images; ``CBAM3D`` has the formula and the differences from other programs. 64 channels
    take 612 parameters.

    Args:
        channels: Channels of the input and the output.
        reduced_channels: Width of the layer between the two linear ones; None is a sixteenth of
            ``channels``, rounded down, at least 1.
        kernel_size: Edge of the kernel of the gates by position in pixels, odd.
        norm: Makes the norm behind that convolution, called with 1, ``device`` and ``dtype``; None
            is batch normalisation.
        activation: Makes the activation between the linear layers.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> CBAM2D(64)(torch.zeros(2, 64, 20, 30)).shape
        torch.Size([2, 64, 20, 30])

    References:
        S. Woo, J. Park, J.-Y. Lee, I. S. Kweon. CBAM: Convolutional Block Attention Module. ECCV
        2018, equations 1 to 3.
    """

    spatial_dims = 2


class CBAM3D(CBAM):
    r"""Scales a feature map by gates for its channels, then by gates for its positions.

    .. math::
        x' = x\, \sigma\bigl(W_2\, \delta(W_1 \bar x) + W_2\, \delta(W_1 \hat x)\bigr), \qquad
        y = x'\, \sigma\bigl(\mathrm{BN}(\mathrm{Conv}_k [\bar x', \hat x'])\bigr)

    with ``x̄`` the mean and ``x̂`` the maximum, of each channel over the volume at first, of each
    position over its channels then. Use it where ``SqueezeExcite3D`` is used, if where matters as
    much as what. 64 channels take 1,200 parameters, and at 32^3 voxels 27 million multiply-adds.

    The numbers are those of timm's ``CbamModule`` with the same weights. Differences from the
    authors' program: its linear layers have biases, and it puts the maximum before the mean, so
    that the two input channels of the kernel change places when weights are carried over; the
    momentum of its batch normalisation is 0.01.

    Args:
        channels: Channels of the input and the output.
        reduced_channels: Width of the layer between the two linear ones; None is a sixteenth of
            ``channels``, rounded down, at least 1.
        kernel_size: Edge of the kernel of the gates by position in voxels, odd.
        norm: Makes the norm behind that convolution, called with 1, ``device`` and ``dtype``; None
            is batch normalisation.
        activation: Makes the activation between the linear layers.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> CBAM3D(64)(torch.zeros(2, 64, 10, 8, 12)).shape
        torch.Size([2, 64, 10, 8, 12])

    References:
        S. Woo, J. Park, J.-Y. Lee, I. S. Kweon. CBAM: Convolutional Block Attention Module. ECCV
        2018, equations 1 to 3.
    """

    spatial_dims = 3
