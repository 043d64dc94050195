"""Where in a model the NaN is."""

from torch import nn

from ._sharded import own_part

_NAMES_SHOWN = 3


def worst_gradients(model: nn.Module) -> str:
    """Say which parameters' gradients are not finite, without asking other processes."""
    wrong = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not own_part(parameter.grad).isfinite().all()
    ]
    return f"first at {_listed(wrong)}" if wrong else "in another process or in its norm"


def spoiled_buffers(model: nn.Module) -> str:
    """Name the buffers, such as running statistics, that are not finite; empty if all are."""
    return _listed([name for name, buffer in model.named_buffers() if not buffer.isfinite().all()])


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
