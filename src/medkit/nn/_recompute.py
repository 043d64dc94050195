"""Activation checkpointing: a block keeps its inputs alone and runs again in the backward pass."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]  untyped in torch


def run(module: nn.Module, *inputs: Float[Tensor, "..."], recompute: bool) -> Float[Tensor, "..."]:
    """Return the output of a block, which keeps as little as is asked for.

    A compiler decides by itself what to keep, and without gradients nothing is kept.
    """
    if recompute and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return recomputed(module, *inputs)
    call = cast("Callable[..., Tensor]", module)
    return call(*inputs)


def recomputed(module: nn.Module, *inputs: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return the output of a block that keeps its inputs alone and runs again when needed.

    The second run leaves the running statistics of batch normalisation as they are, and draws
    the same random numbers as the first.
    """

    def regions() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_at_rest(module)

    output: object = checkpoint(module, *inputs, use_reentrant=False, context_fn=regions)  # pyright: ignore[reportUnknownVariableType]  untyped in torch
    return cast("Tensor", output)


@contextmanager
def _statistics_at_rest(module: nn.Module) -> Generator[None]:
    """Let batch normalisation change nothing that lasts; autograd is given what it always is."""
    norms = [
        part
        for part in module.modules()
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm)
    ]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
