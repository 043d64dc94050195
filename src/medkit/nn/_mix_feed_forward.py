"""The SegFormer feed-forward network: a depthwise convolution between two linear layers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit.nn._spatial_dims import CONV


class DepthwiseConv(nn.Module):
    """Depthwise 3x3(x3) convolution and batch normalisation, channels last."""

    def __init__(
        self,
        dim: int,
        *,
        spatial_dims: int,
        batch_norm: nn.Module,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dwconv = CONV[spatial_dims](
            dim, dim, 3, padding=1, groups=dim, device=device, dtype=dtype
        )
        self.bn = batch_norm

    def forward(self, input: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        """Return the normalised neighbourhood sums."""
        return self.bn(self.dwconv(input.movedim(-1, 1))).movedim(1, -1)


class MixFeedForward(nn.Module):
    """Linear, depthwise convolution with batch normalisation, GELU, linear; channels last."""

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        spatial_dims: int,
        batch_norm: nn.Module,
        activation: nn.Module,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim, device=device, dtype=dtype)
        self.dwconv = DepthwiseConv(
            hidden_dim, spatial_dims=spatial_dims, batch_norm=batch_norm, device=device, dtype=dtype
        )
        self.activation = activation
        self.fc2 = nn.Linear(hidden_dim, dim, device=device, dtype=dtype)

    def forward(self, input: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        """Return the transformed positions."""
        return self.fc2(self.activation(self.dwconv(self.fc1(input))))
