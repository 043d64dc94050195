"""The attention gate of Attention U-Net: a skip connection scaled by what is coarser."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._conv import make_pointwise
from ._image import check_image
from ._linear_resize import resize_linear
from ._norm import BATCH_NORM, Make


class AttentionGate(nn.Module):
    """What the gates of images and volumes have in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        gate_channels: int,
        *,
        hidden_channels: int | None = None,
        norm: Make | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels: int = check.integer("in_channels", in_channels, minimum=1)
        self.gate_channels: int = check.integer("gate_channels", gate_channels, minimum=1)
        hidden = max(1, in_channels // 2) if hidden_channels is None else hidden_channels
        check.integer("hidden_channels", hidden, minimum=1)
        make_norm = BATCH_NORM[self.spatial_dims] if norm is None else norm

        def layer(channels: int, out_channels: int) -> nn.Sequential:
            conv = make_pointwise(
                channels,
                out_channels,
                spatial_dims=self.spatial_dims,
                bias=True,
                device=device,
                dtype=dtype,
            )
            return nn.Sequential(conv, make_norm(out_channels, device=device, dtype=dtype))

        self.gate_layer: nn.Sequential = layer(gate_channels, hidden)
        self.input_layer: nn.Sequential = layer(in_channels, hidden)
        self.psi: nn.Sequential = layer(hidden, 1)

    def forward(
        self,
        input: Float[Tensor, "batch in_channels *size"],
        gate: Float[Tensor, "batch gate_channels *coarser"],
    ) -> Float[Tensor, "batch in_channels *size"]:
        """Return the input, each position scaled by its attention.

        Args:
            input: Feature map of the skip connection, any size.
            gate: Gating signal of the same extent on a grid of any size.
        """
        check_image(input, channels=self.in_channels, dims=self.spatial_dims)
        check_image(gate, channels=self.gate_channels, dims=self.spatial_dims, name="gate")
        return input * self.attention(input, gate)

    def attention(
        self,
        input: Float[Tensor, "batch in_channels *size"],
        gate: Float[Tensor, "batch gate_channels *coarser"],
    ) -> Float[Tensor, "batch 1 *size"]:
        """Return the attention in (0, 1) by which each position is scaled, e.g. to show it.

        Args:
            input: As in ``forward``.
            gate: As in ``forward``.
        """
        signal = self.gate_layer(gate)
        if signal.shape[2:] != input.shape[2:]:
            signal = resize_linear(signal, input.shape[2:])
        return torch.sigmoid(self.psi(torch.relu(signal + self.input_layer(input))))


class AttentionGate2D(AttentionGate):
    r"""Scales each position of a skip connection by its agreement with a coarser map.

    .. math:: y = x\, \sigma\bigl(\psi\, \mathrm{ReLU}(W_x x + \mathrm{Up}(W_g g))\bigr)

    For images; ``AttentionGate3D`` says the rest. 64 channels gated by 128 take 6,371 parameters.

    Args:
        in_channels: Channels of the skip connection and the output.
        gate_channels: Channels of the gating signal.
        hidden_channels: Channels in which both are added; None is half of ``in_channels``.
        norm: Makes the norm behind each of the three layers, called with the number of channels,
            ``device`` and ``dtype``; None is batch normalisation, ``nn.Identity`` leaves it out.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> gate = AttentionGate2D(16, 32)
        >>> gate(torch.zeros(1, 16, 20, 30), torch.zeros(1, 32, 10, 15)).shape
        torch.Size([1, 16, 20, 30])

    References:
        O. Oktay et al. Attention U-Net: Learning Where to Look for the Pancreas. MIDL 2018,
        equations 1 and 2.
    """

    spatial_dims = 2


class AttentionGate3D(AttentionGate):
    r"""Scales each position of a skip connection by its agreement with a coarser map.

    .. math:: y = x\, \sigma\bigl(\psi\, \mathrm{ReLU}(W_x x + \mathrm{Up}(W_g g))\bigr)

    with ``W`` and ``ψ`` convolutions with a kernel of 1, a bias and a norm behind, and ``Up``
    linear to the size of ``x``. Use it in the skip connections of a U-Net, so that what the
    decoder has already ruled out does not come back; ``g`` is the decoder's map one level down.
    64 channels gated by 128 take 6,371 parameters, and at 32^3 voxels gated by 16^3 114 million
    multiply-adds.

    The numbers are those of MONAI's ``AttentionBlock`` for a gate of the input's size.
    Differences from the paper: the coarse signal is resized to the input, after its projection,
    where the paper takes the input to the coarse grid and resizes the attention; there are norms,
    as in most programs since (``norm=nn.Identity`` leaves them out).

    Args:
        in_channels: Channels of the skip connection and the output.
        gate_channels: Channels of the gating signal.
        hidden_channels: Channels in which both are added; None is half of ``in_channels``.
        norm: Makes the norm behind each of the three layers, called with the number of channels,
            ``device`` and ``dtype``; None is batch normalisation, ``nn.Identity`` leaves it out.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> gate = AttentionGate3D(16, 32)
        >>> gate(torch.zeros(1, 16, 8, 10, 6), torch.zeros(1, 32, 4, 5, 3)).shape
        torch.Size([1, 16, 8, 10, 6])

    References:
        O. Oktay et al. Attention U-Net: Learning Where to Look for the Pancreas. MIDL 2018,
        equations 1 and 2.
    """

    spatial_dims = 3
