"""Convolution with a kernel of 1, computed as a linear layer over channels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medkit.ops import channels_first, channels_last


class PointwiseConv(nn.Module):
    """A linear layer over channels with the weight of a convolution; the caller draws it.

    On a map in channels-last memory the product takes no copy. PyTorch's convolution of a single
    sample on one CPU thread copies the map to channels first.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        spatial_dims: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        shape = (out_channels, in_channels, *(1,) * spatial_dims)
        self.weight: nn.Parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias: nn.Parameter = nn.Parameter(
            torch.empty(out_channels, device=device, dtype=dtype)
        )

    def forward(
        self, input: Float[Tensor, "batch in_channels *grid"]
    ) -> Float[Tensor, "batch out_channels *grid"]:
        """Return the weighted sums of channels, channels first in channels-last memory."""
        return pointwise_conv(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Show the shape of the weight."""
        return "x".join(map(str, self.weight.shape))


def pointwise_conv(
    input: Float[Tensor, "batch in_channels *grid"],
    weight: Float[Tensor, "out_channels in_channels *ones"],
    bias: Float[Tensor, " out_channels"] | None,
) -> Float[Tensor, "batch out_channels *grid"]:
    """Return the weighted sums of channels, channels first in channels-last memory."""
    return channels_first(F.linear(channels_last(input), weight.flatten(1), bias))
