"""Overlapping patch embedding: a strided convolution and a LayerNorm over channels."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check
from medkit.ops import channels_first, channels_last

from ._image import check_image


class PatchEmbed(nn.Module):
    """What the patch embeddings of images and volumes have in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        *,
        kernel_size: int = 7,
        stride: int = 4,
        norm_eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kernel = check.integer("kernel_size", kernel_size, minimum=1)
        if kernel % 2 == 0:
            raise check.fail("kernel_size", "odd", kernel_size)
        conv = nn.Conv3d if self.spatial_dims == 3 else nn.Conv2d
        self.patch_embeddings: nn.Conv2d | nn.Conv3d = conv(
            check.integer("in_channels", in_channels, minimum=1),
            check.integer("embed_dim", embed_dim, minimum=1),
            kernel,
            stride=check.integer("stride", stride, minimum=1),
            padding=kernel // 2,
            device=device,
            dtype=dtype,
        )
        self.patch_embeddings.weight = nn.Parameter(
            _in_channels_last_memory(self.patch_embeddings.weight.detach())
        )
        eps = check.positive("norm_eps", norm_eps)
        self.norm: nn.LayerNorm = nn.LayerNorm(embed_dim, eps=eps, device=device, dtype=dtype)

    def forward(
        self, input: Float[Tensor, "batch in_channels *size"]
    ) -> Float[Tensor, "batch embed_dim *grid"]:
        """Return the embedded patches, channels first in channels-last memory.

        Args:
            input: Image or feature map of any size.
        """
        check_image(input, channels=self.patch_embeddings.in_channels, dims=self.spatial_dims)
        return channels_first(self.norm(channels_last(self.patch_embeddings(input))))


class PatchEmbed2D(PatchEmbed):
    r"""Overlapping patches of an image as vectors: a strided convolution and a LayerNorm.

    ``PatchEmbed3D`` in two dimensions, which has the formula and says what it is for. One channel
    to 32 takes 1,664 parameters, and at 256^2 pixels 6.4 million multiply-adds.

    Args:
        in_channels: Channels of the input.
        embed_dim: Channels of the output.
        kernel_size: Edge of a patch in pixels, odd.
        stride: Distance of neighbouring patches in pixels.
        norm_eps: Added to the variance in the LayerNorm.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> embed = PatchEmbed2D(1, 32)
        >>> embed(torch.zeros(2, 1, 64, 50)).shape
        torch.Size([2, 32, 16, 13])

    References:
        E. Xie, W. Wang, Z. Yu, A. Anandkumar, J. M. Alvarez, P. Luo. SegFormer: Simple and
        Efficient Design for Semantic Segmentation with Transformers. NeurIPS 2021, section 3.1.
    """

    spatial_dims = 2


class PatchEmbed3D(PatchEmbed):
    r"""Overlapping patches of a volume as vectors: a strided convolution and a LayerNorm.

    .. math:: y = \mathrm{LayerNorm}(W * x + b), \qquad
              \text{size of } y = \left\lfloor \frac{n - 1}{s} \right\rfloor + 1

    along an axis of ``n`` voxels, with stride ``s`` and ``kernel_size // 2`` zeros at both ends.
    Patches overlap where the kernel is larger than the stride, which keeps local continuity and
    makes position embeddings unnecessary. The norm is over channels, at each position. Use it as
    the entry of a hierarchical transformer: kernel 7 and stride 4 at first, kernel 3 and stride 2
    between stages.

    Args:
        in_channels: Channels of the input.
        embed_dim: Channels of the output.
        kernel_size: Edge of a patch in voxels, odd.
        stride: Distance of neighbouring patches in voxels.
        norm_eps: Added to the variance in the LayerNorm.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> embed = PatchEmbed3D(1, 32)
        >>> embed(torch.zeros(2, 1, 64, 96, 50)).shape
        torch.Size([2, 32, 16, 24, 13])

    References:
        E. Xie, W. Wang, Z. Yu, A. Anandkumar, J. M. Alvarez, P. Luo. SegFormer: Simple and
        Efficient Design for Semantic Segmentation with Transformers. NeurIPS 2021, section 3.1.
    """

    spatial_dims = 3


def _in_channels_last_memory(weight: Tensor) -> Tensor:
    """Return the weight in memory that makes the convolution give a channels-last map.

    The gradient to the weight is then three times as fast on a CPU. The memory is allocated,
    since ``contiguous`` leaves a weight of a single input channel as it is.
    """
    out_channels, in_channels, *kernel = weight.shape
    memory = weight.new_empty((out_channels, *kernel, in_channels))
    return channels_first(memory).copy_(weight)
