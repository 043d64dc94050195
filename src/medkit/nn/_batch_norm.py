"""Batch normalisation as the profile of a SegFormer asks for it."""

import torch
from torch import Tensor, nn

from medkit.nn._segformer_profile import Numerics
from medkit.nn._spatial_dims import BATCH_NORM


def make_batch_norm(
    num_features: int,
    *,
    spatial_dims: int,
    numerics: Numerics,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    return BATCH_NORM[spatial_dims](
        num_features,
        eps=numerics.batch_norm_eps,
        momentum=numerics.batch_norm_momentum,
        device=device,
        dtype=dtype,
    )
