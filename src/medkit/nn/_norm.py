"""Norms that blocks make where none is given."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medkit.ops import channels_first, channels_last

Make = Callable[..., nn.Module]
"""Makes a layer: a norm from the number of channels, an activation or a drop from nothing."""

BATCH_NORM: dict[int, Make] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}

EFFICIENT_BATCH_NORM: dict[int, Make] = {
    dims: partial(norm, eps=1e-3, momentum=0.01) for dims, norm in BATCH_NORM.items()
}
"""As in EfficientNet."""


class _InstanceNorm2d(nn.InstanceNorm2d):
    def forward(
        self, input: Float[Tensor, "batch channel h w"]
    ) -> Float[Tensor, "batch channel h w"]:
        return _instance_norm(self, input, super().forward)


class _InstanceNorm3d(nn.InstanceNorm3d):
    def forward(
        self, input: Float[Tensor, "batch channel d h w"]
    ) -> Float[Tensor, "batch channel d h w"]:
        return _instance_norm(self, input, super().forward)


INSTANCE_NORM: dict[int, Make] = {
    2: partial(_InstanceNorm2d, affine=True),
    3: partial(_InstanceNorm3d, affine=True),
}
"""With a learned scale and shift for each channel."""


def _instance_norm(
    norm: nn.InstanceNorm2d | nn.InstanceNorm3d,
    input: Tensor,
    otherwise: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the samples normalised one by one, without a copy out of channels-last memory.

    PyTorch's instance norm copies to channels first and back, many times the work on a CPU. Each
    sample is reshaped so that its first stride is right: with that of ``x[0][None]`` PyTorch 2.13
    gives a wrong gradient of batch normalisation.
    """
    channels = input.shape[1]
    if input.stride(1) != 1 or norm.track_running_stats or input.device.type != "cpu":
        return otherwise(input)
    grid = channels_last(input)
    images = grid.reshape(len(grid), 1, -1, 1, channels).unbind()
    samples = [
        F.batch_norm(
            channels_first(image), None, None, norm.weight, norm.bias, training=True, eps=norm.eps
        )
        for image in images
    ]
    output = samples[0] if len(samples) == 1 else torch.cat(samples)
    return channels_first(channels_last(output).reshape(grid.shape))
