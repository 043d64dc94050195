"""Batch normalisation: two ways to keep the running variance, and folding into a weight."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._precision import at_least_float32
from ._segformer_profile import Numerics


class BiasedBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose running variance is that of the batch, divided by n as in Keras."""

    def forward(
        self, input: Float[Tensor, "batch channel h w"]
    ) -> Float[Tensor, "batch channel h w"]:
        """Return the normalised input; while training, update the running statistics."""
        if not (self.training and self.track_running_stats):
            return super().forward(input)
        return _train(self, input)


class BiasedBatchNorm3d(nn.BatchNorm3d):
    """``nn.BatchNorm3d`` whose running variance is that of the batch, divided by n as in Keras."""

    def forward(
        self, input: Float[Tensor, "batch channel d h w"]
    ) -> Float[Tensor, "batch channel d h w"]:
        """Return the normalised input; while training, update the running statistics."""
        if not (self.training and self.track_running_stats):
            return super().forward(input)
        return _train(self, input)


BatchNorm = nn.BatchNorm2d | nn.BatchNorm3d

_UNBIASED: dict[int, type[BatchNorm]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_BIASED: dict[int, type[BatchNorm]] = {2: BiasedBatchNorm2d, 3: BiasedBatchNorm3d}


class Affine(NamedTuple):
    """``scale * x + shift`` for each channel, in float32 or better."""

    scale: Float[Tensor, " channel"]
    shift: Float[Tensor, " channel"]


def make_batch_norm(
    num_features: int,
    *,
    spatial_dims: int,
    numerics: Numerics,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Return the batch normalisation of a profile."""
    kinds = _BIASED if numerics.biased_running_var else _UNBIASED
    return kinds[spatial_dims](
        num_features,
        eps=numerics.batch_norm_eps,
        momentum=numerics.batch_norm_momentum,
        device=device,
        dtype=dtype,
    )


def evaluation_affine(norm: nn.Module) -> Affine | None:
    """Return what a batch normalisation does to each channel, if that is fixed.

    It is fixed in evaluation mode. A layer with hooks must be called, and one that is no batch
    normalisation is not known; both give None.
    """
    known = isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm)
    if norm.training or not known or not norm.affine or is_hooked(norm):
        return None
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        return None
    wide = at_least_float32(variance.dtype)
    scale = torch.rsqrt(variance.to(wide) + norm.eps) * norm.weight.to(wide)
    return Affine(scale, norm.bias.to(wide) - mean.to(wide) * scale)


def is_hooked(module: nn.Module) -> bool:
    """Return whether something waits for calls of a module, so that they must not be left out."""
    # torch has no public way to ask
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds)


def _train(norm: BatchNorm, input: Tensor) -> Tensor:
    """Return the input normalised by its own statistics, and remember these, the variance by n.

    PyTorch adds ``momentum * variance * n / (n - 1)`` to what is left of the old variance; the
    last factor is taken out of a copy, since autograd keeps the tensor it was given.
    """
    mean, old, momentum = norm.running_mean, norm.running_var, norm.momentum
    if mean is None or old is None or momentum is None:
        raise check.fail("momentum", "a number", momentum)
    updated = old.clone()
    output = F.batch_norm(
        input, mean, updated, norm.weight, norm.bias, training=True, momentum=momentum, eps=norm.eps
    )
    with torch.no_grad():
        kept = (1 - momentum) * old
        n = input.numel() // input.shape[1]
        old.copy_(kept + (updated - kept) * ((n - 1) / n))
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
    return output
