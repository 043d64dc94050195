"""The parts of a model by name, with the types that torch leaves out."""

from collections.abc import Iterator
from typing import cast

from torch import nn


def named_modules(model: nn.Module, *, twice: bool = False) -> Iterator[tuple[str, nn.Module]]:
    """Yield all modules with their names; one that occurs under two names once, or ``twice``."""
    found = model.named_modules(remove_duplicate=not twice)  # pyright: ignore[reportUnknownVariableType]  torch leaves it untyped
    return cast("Iterator[tuple[str, nn.Module]]", found)
