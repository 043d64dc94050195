"""Squeeze and excitation: channels scaled by gates that see the whole image."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._conv import make_pointwise
from ._image import check_image
from ._norm import Make


class SqueezeExcite(nn.Module):
    """What squeeze and excitation of images and volumes have in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        channels: int,
        *,
        reduced_channels: int | None = None,
        activation: Make = nn.ReLU,
        gate: Make = nn.Sigmoid,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.channels: int = check.integer("channels", channels, minimum=1)
        reduced = max(1, channels // 16) if reduced_channels is None else reduced_channels
        check.integer("reduced_channels", reduced, minimum=1)
        dims = self.spatial_dims
        self.reduce: nn.Module = make_pointwise(
            channels, reduced, spatial_dims=dims, bias=True, device=device, dtype=dtype
        )
        self.activation: nn.Module = activation()
        self.expand: nn.Module = make_pointwise(
            reduced, channels, spatial_dims=dims, bias=True, device=device, dtype=dtype
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
        pooled = input.mean(tuple(range(2, input.ndim)), keepdim=True)
        return input * self.gate(self.expand(self.activation(self.reduce(pooled))))


class SqueezeExcite2D(SqueezeExcite):
    r"""Scales the channels of a feature map by gates computed from their means.

    .. math:: y_c = x_c \, \sigma\bigl(W_2\, \delta(W_1 \bar x + b_1) + b_2\bigr)_c

    For images; ``SqueezeExcite3D`` says the rest. 64 channels take 580 parameters.

    Args:
        channels: Channels of the input and the output.
        reduced_channels: Width of the layer between the two linear ones; None is a sixteenth of
            ``channels``, rounded down, at least 1.
        activation: Makes the activation between the linear layers.
        gate: Makes the function of the last layer that scales the channels.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> SqueezeExcite2D(64)(torch.zeros(2, 64, 20, 30)).shape
        torch.Size([2, 64, 20, 30])

    References:
        J. Hu, L. Shen, G. Sun. Squeeze-and-Excitation Networks. CVPR 2018, equations 2 to 4.
    """

    spatial_dims = 2


class SqueezeExcite3D(SqueezeExcite):
    r"""Scales the channels of a feature map by gates computed from their means.

    .. math:: y_c = x_c \, \sigma\bigl(W_2\, \delta(W_1 \bar x + b_1) + b_2\bigr)_c

    with ``x̄`` the mean of each channel over the volume, ``δ`` the activation and ``σ`` the gate.
    Use it behind a convolution, so that what is seen anywhere changes what is kept everywhere. 64
    channels take 580 parameters, and at 32^3 voxels 2.1 million multiplications.

    The weights are those of convolutions with a kernel of 1, as in timm. timm's ``SEModule``
    rounds the reduced width up to a multiple of 8, MONAI's ``ChannelSELayer`` halves it: give
    ``reduced_channels`` to have theirs.

    Args:
        channels: Channels of the input and the output.
        reduced_channels: Width of the layer between the two linear ones; None is a sixteenth of
            ``channels``, rounded down, at least 1.
        activation: Makes the activation between the linear layers.
        gate: Makes the function of the last layer that scales the channels.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> SqueezeExcite3D(64)(torch.zeros(2, 64, 10, 8, 12)).shape
        torch.Size([2, 64, 10, 8, 12])

    References:
        J. Hu, L. Shen, G. Sun. Squeeze-and-Excitation Networks. CVPR 2018, equations 2 to 4.
    """

    spatial_dims = 3


def make_squeeze_excite(
    channels: int,
    in_channels: int,
    squeeze_ratio: float,
    *,
    spatial_dims: int,
    activation: Make,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Return the gates of a bottleneck, reduced from its input channels; none for a ratio of 0."""
    if check.fraction("squeeze_ratio", squeeze_ratio) == 0:
        return nn.Identity()
    squeeze_excite = SqueezeExcite3D if spatial_dims == 3 else SqueezeExcite2D
    return squeeze_excite(
        channels,
        reduced_channels=max(1, int(in_channels * squeeze_ratio)),
        activation=activation,
        device=device,
        dtype=dtype,
    )
