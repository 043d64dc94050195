"""The one place that calls the compiler, whose types are incomplete."""

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from torch import Tensor, nn


@contextmanager
def quiet() -> Generator[None]:
    """Hide what torch's compiler says about its own deprecated parts, which no user can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


Compiled = TypeVar("Compiled", bound=Callable[..., Tensor] | nn.Module)


def whole_graph(part: Compiled) -> Compiled:
    """Return a part compiled to one graph, run without code generation; breaks raise."""
    compiled: object = torch.compile(part, fullgraph=True, backend="eager")  # pyright: ignore[reportUnknownMemberType]  # torch leaves the backend's type open
    return cast("Compiled", compiled)


def exported(module: nn.Module, inputs: Sequence[object]) -> nn.Module:
    """Return a module exported to a program of core operators, as a module to call."""
    return torch.export.export(module, tuple(inputs)).module()
