"""Random Fourier features of coordinates."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._precision import without_autocast


class FourierFeatures(nn.Module):
    r"""Maps coordinates to cosines and sines of random frequencies.

    .. math:: \gamma(v) = \bigl[\cos(2 \pi B v),\ \sin(2 \pi B v)\bigr], \qquad
        B_{ij} \sim \mathcal{N}(0, \sigma^2)

    Use it as the encoding of ``CoordinateMLP``: without it a network of ReLUs learns coarse
    structure only. ``B`` is drawn once and saved with the weights. Computed in the precision of
    ``B`` and of the input, whatever autocast is on: a rounded coordinate is a point elsewhere.

    Args:
        in_channels: Coordinates of a point.
        num_frequencies: Rows of ``B``; there are twice as many features.
        scale: Standard deviation ``sigma`` of the frequencies, in periods per unit of the
            coordinates; 1 to 10 for coordinates in [0, 1]. Higher fits finer detail, and noise.
        device: Where the frequencies are made.
        dtype: Type of the frequencies.

    Attributes:
        out_channels: Number of features of a point.

    Raises:
        ValueError: If an argument is out of range, or an input has another number of coordinates.

    Example:
        >>> import torch
        >>> FourierFeatures(3, num_frequencies=64)(torch.rand(1000, 3)).shape
        torch.Size([1000, 128])

    References:
        M. Tancik, P. P. Srinivasan, B. Mildenhall, S. Fridovich-Keil, N. Raghavan, U. Singhal,
        R. Ramamoorthi, J. T. Barron, R. Ng. Fourier Features Let Networks Learn High Frequency
        Functions in Low Dimensional Domains. NeurIPS 2020, section 6 (Gaussian mapping).
    """

    frequencies: Tensor

    def __init__(
        self,
        in_channels: int = 3,
        *,
        num_frequencies: int = 128,
        scale: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels: int = check.integer("in_channels", in_channels, minimum=1)
        rows = check.integer("num_frequencies", num_frequencies, minimum=1)
        self.out_channels: int = 2 * rows
        drawn = torch.randn(rows, self.in_channels, device=device, dtype=dtype)
        self.register_buffer("frequencies", drawn * check.positive("scale", scale))

    def forward(
        self, input: Float[Tensor, "*points in_channels"]
    ) -> Float[Tensor, "*points out_channels"]:
        """Return the features of every point.

        Args:
            input: Coordinates along the last axis, of any leading shape.
        """
        check_coordinates(input, self.in_channels)
        with without_autocast(input.device):
            phase = 2 * math.pi * (input @ self.frequencies.T)
            return torch.cat((phase.cos(), phase.sin()), -1)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.in_channels}, out_channels={self.out_channels}"


def check_coordinates(input: Tensor, channels: int) -> None:
    """Raise unless the last axis holds the coordinates of points."""
    if input.ndim == 0 or input.shape[-1] != channels:
        raise check.fail("input", f"(..., {channels})", f"shape {tuple(input.shape)}")
