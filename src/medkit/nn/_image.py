"""What a network accepts as an image: rank, channels, size."""

from torch import Tensor

from medkit._core import check

AXES = {2: "height, width", 3: "depth, height, width"}


def check_image(
    input: Tensor, *, channels: int, dims: int, minimum: int = 1, name: str = "input"
) -> None:
    """Raise unless the input has the rank, the channels and the size that a network takes."""
    shape = tuple(input.shape)
    if len(shape) != dims + 2 or shape[1] != channels:
        raise check.fail(name, f"(batch, {channels}, {AXES[dims]})", f"shape {shape}")
    if any(size < minimum for size in shape[2:]):
        raise check.fail(name, f"at least {minimum} along {AXES[dims]}", f"shape {shape}")
