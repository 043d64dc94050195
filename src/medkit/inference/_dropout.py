"""Dropout at inference, and nothing else of training mode."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]  the parent of all seven dropouts

from medkit._core import check


@contextmanager
def evaluated(models: Sequence[nn.Module], *, dropout: bool) -> Generator[None]:
    """Put networks in evaluation mode, with dropout active if asked for, and back afterwards.

    Each module gets back the mode it had, so that nothing of the networks has changed.
    """
    modules = [module for model in models for module in model.modules()]
    active = [module for module in modules if isinstance(module, _DropoutNd) and module.p > 0]
    if dropout and not active:
        rule = "a network with a dropout module of p > 0 (functional dropout cannot be switched)"
        raise check.fail("model", rule, "none")
    before = [(module, module.training) for module in modules]
    try:
        for model in models:
            model.eval()
        for module in active if dropout else ():
            module.training = True
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Seed the global generators for a while, and give them back as they were."""
    check.integer("seed", seed, minimum=0)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):  # pyright: ignore[reportUnknownMemberType]  untyped in torch
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]  untyped in torch
        yield
