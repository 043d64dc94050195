"""The all-MLP decoder of SegFormer, with every linear step at the lowest resolution it can be.

As published, each level is projected, normalised and resized to the finest one, all are
concatenated, and one convolution fuses them. That convolution commutes with the resizing, so its
part for each level is applied before, and the results are added instead of concatenated.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medkit.ops import channels_first, channels_last

from ._batch_norm import evaluation_affine
from ._linear_resize import add_resized
from ._mix_transformer import Pyramid
from ._pointwise_conv import PointwiseConv
from ._precision import at_least_float32, without_autocast


class LinearEmbed(nn.Module):
    """Projection of one pyramid level to the width of the decoder, and a LayerNorm."""

    def __init__(
        self,
        in_channels: int,
        dim: int,
        *,
        norm_eps: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.proj: nn.Linear = nn.Linear(in_channels, dim, device=device, dtype=dtype)
        self.bn: nn.LayerNorm = nn.LayerNorm(dim, eps=norm_eps, device=device, dtype=dtype)

    def forward(self, input: Float[Tensor, "*rest channel"]) -> Float[Tensor, "*rest dim"]:
        """Return the embedded level, channels last."""
        return self.bn(self.proj(input))

    def fused(
        self,
        input: Float[Tensor, "*rest channel"],
        weight: Float[Tensor, "out dim"],
        shift: Float[Tensor, " out"] | None = None,
    ) -> Float[Tensor, "*rest out"]:
        r"""Return ``weight @ self(input) + shift`` without the wide map in between, if it is wide.

        With the projection centred over its outputs, ``P = [W - mean W, b - mean b]``, and
        ``u = [x, 1]``, the LayerNorm divides ``P u`` by the root of ``u' (P'P / dim) u + eps``
        and multiplies by ``gamma``. So the whole is one product of ``weight diag(gamma) P`` with
        ``u`` over that root: of the input's width instead of the decoder's.
        """
        if 2 * self.proj.in_features > self.proj.out_features:
            dtype = self.proj.weight.dtype
            bias = None if shift is None else shift.to(dtype)
            return F.linear(self(input), weight.to(dtype), bias)
        wide = at_least_float32(input.dtype)
        with without_autocast(input.device):
            matrix = torch.cat((self.proj.weight, self.proj.bias[:, None]), dim=1).to(wide)
            matrix = matrix - matrix.mean(dim=0)
            tokens = F.pad(input.to(wide), (0, 1), value=1.0)
            gram = matrix.T @ matrix / self.proj.out_features
            variance = ((tokens @ gram) * tokens).sum(-1, keepdim=True).clamp_min(0)
            tokens = tokens * torch.rsqrt(variance + self.bn.eps)
            constant = weight.to(wide) @ self.bn.bias.to(wide)
            if shift is not None:
                constant = constant + shift
            matrix = torch.cat(((weight * self.bn.weight).to(wide) @ matrix, constant[:, None]), 1)
            tokens = F.pad(tokens, (0, 1), value=1.0)
        return F.linear(tokens.to(input.dtype), matrix.to(input.dtype))


class SegFormerDecoder(nn.Module):
    """Logits at the resolution of the finest pyramid level."""

    def __init__(
        self,
        in_channels: tuple[int, int, int, int],
        dim: int,
        num_classes: int,
        *,
        spatial_dims: int,
        norm_eps: float,
        batch_norm: nn.Module,
        dropout: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        c1, c2, c3, c4 = (
            LinearEmbed(channels, dim, norm_eps=norm_eps, device=device, dtype=dtype)
            for channels in in_channels
        )
        self.linear_c4: LinearEmbed = c4
        self.linear_c3: LinearEmbed = c3
        self.linear_c2: LinearEmbed = c2
        self.linear_c1: LinearEmbed = c1
        conv = nn.Conv3d if spatial_dims == 3 else nn.Conv2d
        self.linear_fuse: nn.Sequential = nn.Sequential(
            conv(4 * dim, dim, 1, bias=False, device=device, dtype=dtype),
            batch_norm,
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.linear_pred: PointwiseConv = PointwiseConv(
            dim, num_classes, spatial_dims=spatial_dims, device=device, dtype=dtype
        )

    def forward(self, pyramid: Pyramid) -> Float[Tensor, "batch num_classes *grid"]:
        """Return the logits on the grid of the finest level."""
        c1, c2, c3, c4 = (channels_last(level) for level in pyramid)
        grid = c1.shape[1:-1]
        fuse = self.linear_fuse.get_parameter("0.weight").flatten(1)
        affine = evaluation_affine(self.linear_fuse[1])
        if affine is not None:
            fuse = fuse * affine.scale[:, None]
        fuse4, fuse3, fuse2, fuse1 = fuse.chunk(4, dim=1)
        shift = None if affine is None else affine.shift
        rows = self.linear_c1.fused(c1.flatten(0, -3), fuse1, shift)
        coarse = (
            self.linear_c2.fused(c2, fuse2),
            self.linear_c3.fused(c3, fuse3),
            self.linear_c4.fused(c4, fuse4),
        )
        fused = channels_first(add_resized(rows, coarse, grid))
        if affine is None:
            fused = self.linear_fuse[1](fused)
        return self.linear_pred(self.linear_fuse[3](self.linear_fuse[2](fused)))
