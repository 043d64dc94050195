"""Channels first and channels last, as views of one memory.

Inside the transformers a map is ``(batch, *grid, channel)``: linear layers and norms read it as
it is, and its channels-first view is what PyTorch calls ``channels_last`` memory, which the
convolutions take without a copy.
"""

from jaxtyping import Float
from torch import Tensor


def channels_first(
    input: Float[Tensor, "batch *grid channel"],
) -> Float[Tensor, "batch channel *grid"]:
    """Return a view with the channels behind the batch."""
    return input.movedim(-1, 1)


def channels_last(
    input: Float[Tensor, "batch channel *grid"],
) -> Float[Tensor, "batch *grid channel"]:
    """Return a view with the channels at the end."""
    return input.movedim(1, -1)
