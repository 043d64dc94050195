"""Activation checkpointing: a block keeps its inputs alone and runs again in the backward pass."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

from torch import nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]  untyped in torch


def recomputed(
    module: nn.Module, *inputs: object, forward: Callable[..., object] | None = None
) -> object:
    """Return the output of a block that keeps its inputs alone and runs again when needed.

    The second run leaves the running statistics of normalisation layers as they are, and draws
    the same random numbers as the first.

    Args:
        module: The block.
        inputs: What it is called with.
        forward: What to call in its place; None calls the block.
    """

    def regions() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_at_rest(module)

    function = module if forward is None else forward
    output = checkpoint(function, *inputs, use_reentrant=False, context_fn=regions)  # pyright: ignore[reportUnknownVariableType]  untyped in torch
    return cast("object", output)


@contextmanager
def _statistics_at_rest(module: nn.Module) -> Generator[None]:
    """Let normalisation change nothing that lasts; autograd is given what it always is."""
    norms = [
        part
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._NormBase)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  batch and instance norms
    ]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
