"""What comes back up in a U-Net, brought to the grid of its skip connection."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._linear_resize import MODES, is_exporting


def on_grid(
    input: Float[Tensor, "batch channel *size"], size: Sequence[int]
) -> Float[Tensor, "batch channel *target"]:
    """Return the map cropped to a size, and resized where an encoder rounds its sizes down."""
    if any(isinstance(target, torch.SymInt) for target in size) and is_exporting():
        # a slice would bind the sizes that are free
        return _first(input, size)
    output = input[(..., *(slice(0, target) for target in size))]
    if output.shape[2:] == tuple(size):
        return output
    return F.interpolate(output, size=list(size), mode=MODES[len(size)])


def _first(input: Tensor, size: Sequence[int]) -> Tensor:
    output = input
    for axis, target in enumerate(size, start=2):
        output = output.index_select(axis, torch.arange(target, device=input.device))
    return output
