"""Blocks of a network that may keep their inputs alone."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core.recompute import recomputed


def run(module: nn.Module, *inputs: Float[Tensor, "..."], recompute: bool) -> Float[Tensor, "..."]:
    """Return the map of a block, which keeps as little as is asked for."""
    return cast("Tensor", run_any(module, *inputs, recompute=recompute))


def run_any(module: nn.Module, *inputs: Float[Tensor, "..."], recompute: bool) -> object:
    """Return whatever a block returns, keeping as little as is asked for.

    A compiler decides by itself what to keep, and without gradients nothing is kept.
    """
    if recompute and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return recomputed(module, *inputs)
    return cast("object", module(*inputs))
