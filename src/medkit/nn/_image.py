"""What a network accepts as an image: rank, channels, size."""

import torch
from torch import Tensor

from medkit._core import check

AXES = {2: "height, width", 3: "depth, height, width"}


def check_image(
    input: Tensor,
    *,
    channels: int,
    dims: int,
    minimum: int = 1,
    name: str = "input",
    weight: Tensor | None = None,
) -> None:
    """Raise unless the input has the rank, the channels, the size and the type to be taken.

    ``weight`` is one of the network's, which float64 must meet; no autocast turns it into less.
    """
    check.kind(name, input, Tensor, "a tensor (torch.from_numpy makes one)")
    shape = tuple(input.shape)
    if len(shape) != dims + 2 or shape[1] != channels:
        raise check.fail(name, f"(batch, {channels}, {AXES[dims]})", f"shape {shape}")
    wide = weight is not None and input.dtype == torch.float64 != weight.dtype
    if not input.is_floating_point() or wide:
        like = "" if weight is None else f", like the weights ({weight.dtype})"
        cast = ".float()" if weight is None else f".to({weight.dtype})"
        raise TypeError(f"{name} must be floating point{like}; got {input.dtype}: call {cast}")
    if any(size < minimum for size in shape[2:]):
        raise check.fail(name, f"at least {minimum} along {AXES[dims]}", f"shape {shape}")
