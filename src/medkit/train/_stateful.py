"""What a checkpoint can hold."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable


@runtime_checkable
class Stateful(Protocol):
    """Anything with a state: modules, optimizers, schedules, and most parts of this package.

    Example:
        >>> import torch
        >>> isinstance(torch.nn.Linear(1, 1), Stateful), isinstance(3, Stateful)
        (True, False)
    """

    def state_dict(self) -> Mapping[str, object]:
        """Return what there is to remember, in tensors and plain values."""
        ...

    @property
    def load_state_dict(self) -> Callable[..., object]:
        """Go on from a state that ``state_dict`` gave."""
        ...
