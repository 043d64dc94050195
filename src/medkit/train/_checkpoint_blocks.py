"""Less memory for activations: blocks of any model keep their inputs alone."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import nn

from medkit._core import check
from medkit._core.recompute import recomputed

from ._modules import named_modules


def checkpoint_blocks(
    model: nn.Module, select: Callable[[str, nn.Module], bool]
) -> tuple[str, ...]:
    """Let chosen modules keep their inputs alone and compute again in the backward pass.

    Values, gradients, dropout masks and running statistics stay bit for bit what they were; memory
    for activations falls to the inputs of the blocks and one block at a time, for about a third
    more time. Names of parameters do not change. The module's class is replaced by a subclass of
    itself, so that copies of the model work; a whole model can no longer be pickled, its
    ``state_dict`` can.

    Args:
        model: Changed in place. Do it before wrapping or compiling.
        select: Says of each module, by its name and itself, whether it is such a block, e.g.
            ``lambda name, module: isinstance(module, Block)``.

    Returns:
        Names of the blocks.

    Raises:
        ValueError: If none is chosen.

    Example:
        >>> import torch
        >>> block = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh())
        >>> model = torch.nn.Sequential(block, torch.nn.Linear(8, 1))
        >>> checkpoint_blocks(model, lambda name, module: name == "0")
        ('0',)

    References:
        Chen et al., Training deep nets with sublinear memory cost, 2016 (arXiv:1604.06174).
    """
    chosen = {name: module for name, module in named_modules(model) if select(name, module)}
    if not chosen:
        raise check.fail("select", "true for at least one module", type(model).__name__)
    for module in chosen.values():
        plain = type(module)
        if not issubclass(plain, _Recomputing):
            module.__class__ = type(plain.__name__, (_Recomputing, plain), {"_plain": plain})
    return tuple(chosen)


class _Recomputing(nn.Module):
    """What is put before the class of a chosen module."""

    _plain: type[nn.Module]

    def forward(self, *inputs: object, **options: object) -> object:
        plain = cast("Callable[..., object]", partial(self._plain.forward, self, **options))
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return recomputed(self, *inputs, forward=plain)
        return plain(*inputs)
