"""What layers of a network return during one call, with gradients towards it."""

import difflib
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

from torch import Tensor, nn

from medkit._core import check


def named_layers(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Return the modules of these names; raise with the names most like one that is missing."""
    modules = dict(cast("Iterable[tuple[str, nn.Module]]", model.named_modules()))
    for name in names:
        if name not in modules:
            near = difflib.get_close_matches(name, modules, n=3, cutoff=0.3)
            hint = f", such as {', '.join(map(repr, near))}" if near else ""
            raise check.fail("layers", f"names out of model.named_modules(){hint}", repr(name))
    return [modules[name] for name in names]


@contextmanager
def captured(layers: Sequence[nn.Module]) -> Generator[list[list[Tensor]]]:
    """Give a list per layer that receives what the layer returns; unhook it at the end.

    What the network goes on with is a copy, so that an activation in place changes nothing here.
    A network of frozen parameters has gradients too, towards the layer.
    """
    kept: list[list[Tensor]] = [[] for _ in layers]
    with ExitStack() as stack:
        for layer, into in zip(layers, kept, strict=True):
            handle = layer.register_forward_hook(_keeper(into))
            stack.callback(handle.remove)
        yield kept


def _keeper(into: list[Tensor]) -> Callable[[nn.Module, object, object], Tensor]:
    def keep(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor):
            raise TypeError(f"layers must return one tensor; got {type(output).__name__}")
        into.append(output if output.requires_grad else output.detach().requires_grad_())
        return into[-1].clone()

    return keep
