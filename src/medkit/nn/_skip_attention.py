"""Attention on the skip connections of ``HybridAttentionUNet``, steered by the decoder."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ._factory import Factory


class Gate(nn.Module):
    """The factor in [0, 1] for each position of a map, from the map and a coarser one.

    The formula of ``AttentionGate2D`` with the names of the published program's tensors. Maps
    here are as large as the image, where resizing by products takes ten times the multiply-adds
    of the rest of the gate.
    """

    def __init__(self, channels: int, gate: int, inner: int, factory: Factory) -> None:
        super().__init__()
        self.W_g: nn.Sequential = _project(gate, inner, factory)
        self.W_x: nn.Sequential = _project(channels, inner, factory)
        self.psi: nn.Sequential = _project(inner, 1, factory).append(nn.Sigmoid())

    def weigh(
        self,
        input: Float[Tensor, "batch channels height width"],
        gate: Float[Tensor, "batch gate coarse_height coarse_width"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the map times its factors; the coarser map is projected, then resized."""
        steer = F.interpolate(self.W_g(gate), size=input.shape[2:], mode="bilinear")
        return input * self.psi(torch.relu(steer + self.W_x(input)))


class EdgeAttention(Gate):
    """Weighs a map by a gate and mixes it with an image of its edges."""

    def __init__(self, channels: int, gate: int, factory: Factory) -> None:
        super().__init__(channels, gate, channels, factory)
        self.edge_conv: nn.Sequential = nn.Sequential(
            nn.Conv2d(channels + 1, channels, 3, padding=1, **factory),
            nn.BatchNorm2d(channels, **factory),
            nn.ReLU(),
        )

    def forward(
        self,
        input: Float[Tensor, "batch channels height width"],
        gate: Float[Tensor, "batch gate coarse_height coarse_width"],
        edges: Float[Tensor, "batch 1 height width"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the map to be joined with the decoder's."""
        weighed = self.weigh(input, gate)
        return self.edge_conv(torch.cat((weighed, edges.to(weighed.dtype)), 1))


class SpatialAttention(Gate):
    """Adds to a map what two convolutions make of it weighed by a gate."""

    def __init__(self, channels: int, gate: int, factory: Factory) -> None:
        super().__init__(channels, gate, max(channels // 2, 1), factory)
        self.spatial_conv: nn.Sequential = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, **factory),
            nn.BatchNorm2d(channels, **factory),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, **factory),
            nn.BatchNorm2d(channels, **factory),
        )

    def forward(
        self,
        input: Float[Tensor, "batch channels height width"],
        gate: Float[Tensor, "batch gate coarse_height coarse_width"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the map to be joined with the decoder's."""
        return input + self.spatial_conv(self.weigh(input, gate))


def _project(in_channels: int, out_channels: int, factory: Factory) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, **factory),
        nn.BatchNorm2d(out_channels, **factory),
    )
