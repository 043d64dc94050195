"""The SegFormer feed-forward network: a depthwise convolution between two linear layers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit.ops import channels_first, channels_last

from ._batch_norm import evaluation_affine, is_hooked
from ._depthwise_conv import DepthwiseConv, depthwise_conv


class NormalizedDepthwiseConv(nn.Module):
    """Depthwise convolution and batch normalisation, one operation in evaluation mode."""

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
        self.dwconv = DepthwiseConv(dim, spatial_dims=spatial_dims, device=device, dtype=dtype)
        self.bn = batch_norm

    def forward(self, input: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        """Return the normalised sums of neighbours, channels last."""
        image = channels_first(input)
        weight, bias = self.dwconv.weight, self.dwconv.bias
        affine = evaluation_affine(self.bn)
        if affine is None or is_hooked(self.dwconv):
            return channels_last(self.bn(self.dwconv(image)))
        scale = affine.scale.reshape(-1, *(1,) * (weight.ndim - 1))
        return channels_last(
            depthwise_conv(image, weight * scale, bias * affine.scale + affine.shift)
        )


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
        self.dwconv = NormalizedDepthwiseConv(
            hidden_dim, spatial_dims=spatial_dims, batch_norm=batch_norm, device=device, dtype=dtype
        )
        self.activation = activation
        self.fc2 = nn.Linear(hidden_dim, dim, device=device, dtype=dtype)

    def forward(self, input: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        """Return the transformed positions."""
        return self.fc2(self.activation(self.dwconv(self.fc1(input))))
