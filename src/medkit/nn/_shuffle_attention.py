"""Shuffle attention: half of each group gated by channel, half by position, then a shuffle."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._factory import Factory
from ._image import check_image


class ShuffleAttention(nn.Module):
    """What shuffle attention of images and volumes has in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        channels: int,
        *,
        groups: int = 8,
        norm_eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check.integer("channels", channels, minimum=1)
        if channels % (2 * check.integer("groups", groups, minimum=1)):
            rule = f"divisible by twice the groups, {2 * groups}"
            raise check.fail("channels", rule, channels)
        self.channels: int = channels
        self.groups: int = groups
        width = channels // (2 * groups)
        factory: Factory = {"device": device, "dtype": dtype}
        self.channel_weight: nn.Parameter = nn.Parameter(torch.zeros(width, **factory))
        self.channel_bias: nn.Parameter = nn.Parameter(torch.ones(width, **factory))
        self.spatial_weight: nn.Parameter = nn.Parameter(torch.zeros(width, **factory))
        self.spatial_bias: nn.Parameter = nn.Parameter(torch.ones(width, **factory))
        eps = check.positive("norm_eps", norm_eps)
        self.norm: nn.GroupNorm = nn.GroupNorm(width, width, eps=eps, device=device, dtype=dtype)

    def forward(
        self, input: Float[Tensor, "batch channels *size"]
    ) -> Float[Tensor, "batch channels *size"]:
        """Return the gated map with its two halves of channels interleaved.

        Args:
            input: Feature map of any size.
        """
        check_image(input, channels=self.channels, dims=self.spatial_dims)
        batch, channels, *size = input.shape
        first, second = input.reshape(batch * self.groups, 2, -1, *size).unbind(1)
        gated = torch.stack((self._by_channel(first), self._by_position(second)), dim=1)
        halves = gated.reshape(batch, 2, channels // 2, *size)
        return halves.transpose(1, 2).flatten(1, 2)

    def _by_channel(
        self, input: Float[Tensor, "group width *size"]
    ) -> Float[Tensor, "group width *size"]:
        shape = (-1, *(1,) * self.spatial_dims)
        means = input.mean(tuple(range(2, input.ndim)), keepdim=True)
        logits = means * self.channel_weight.reshape(shape) + self.channel_bias.reshape(shape)
        return input * torch.sigmoid(logits)

    def _by_position(
        self, input: Float[Tensor, "group width *size"]
    ) -> Float[Tensor, "group width *size"]:
        """Return the gated channels; the affine map behind the norm is folded into the norm's."""
        weight = self.spatial_weight * self.norm.weight
        bias = self.spatial_weight * self.norm.bias + self.spatial_bias
        logits = F.group_norm(input, self.norm.num_groups, weight, bias, eps=self.norm.eps)
        return input * torch.sigmoid(logits)

    def extra_repr(self) -> str:
        """Show the number of groups."""
        return f"{self.channels}, groups={self.groups}"


class ShuffleAttention2D(ShuffleAttention):
    r"""Gates half of each group of channels by their means and half by position, then shuffles.

    For images; ``ShuffleAttention3D`` has the formula. 64 channels in 8 groups take 24 parameters.

    Args:
        channels: Channels of the input and the output, a multiple of ``2 * groups``.
        groups: Groups of channels that share one set of parameters; 64 in the authors' program.
        norm_eps: Added to the variance in the norm.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If ``channels`` is no multiple of ``2 * groups``, an argument is out of range,
            or an input has another rank or number of channels.

    Example:
        >>> import torch
        >>> ShuffleAttention2D(64)(torch.ones(1, 64, 6, 5)).unique()
        tensor([0.7311], grad_fn=<Unique2Backward0>)

    References:
        Q.-L. Zhang, Y.-B. Yang. SA-Net: Shuffle Attention for Deep Convolutional Neural Networks.
        ICASSP 2021, equations 1 to 3.
    """

    spatial_dims = 2


class ShuffleAttention3D(ShuffleAttention):
    r"""Gates half of each group of channels by their means and half by position, then shuffles.

    The channels of a group fall into halves ``a`` and ``b``, and

    .. math::
        a' = a\, \sigma(w_1 \bar a + b_1), \qquad b' = b\, \sigma(w_2\, \mathrm{N}(b) + b_2)

    with ``ā`` the mean of each channel and ``N`` its normalisation, a group norm with a group for
    each channel. The parameters are shared by all groups. At last the first and the second half of
    all channels are interleaved, ``0, C/2, 1, C/2 + 1, ...``, so that groups exchange channels
    when blocks follow each other. Fresh gates are all ``σ(1)``, 0.731.

    Use it behind a block for attention of both kinds at next to no cost: 64 channels in 8 groups
    take 24 parameters, and at 32^3 voxels 2.1 million multiplications.

    Some 3D programs shuffle inside each group alone and put linear layers in place of the
    parameters by channel; this is the paper's.

    Args:
        channels: Channels of the input and the output, a multiple of ``2 * groups``.
        groups: Groups of channels that share one set of parameters; 64 in the authors' program.
        norm_eps: Added to the variance in the norm.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If ``channels`` is no multiple of ``2 * groups``, an argument is out of range,
            or an input has another rank or number of channels.

    Example:
        >>> import torch
        >>> x = torch.arange(16.0).reshape(1, 16, 1, 1, 1).expand(1, 16, 2, 2, 2)
        >>> y = ShuffleAttention3D(16, groups=2)(x)[0, :, 0, 0, 0].detach()
        >>> (y / 0.7311).round().int().tolist()
        [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]

    References:
        Q.-L. Zhang, Y.-B. Yang. SA-Net: Shuffle Attention for Deep Convolutional Neural Networks.
        ICASSP 2021, equations 1 to 3.
    """

    spatial_dims = 3
