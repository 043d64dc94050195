"""Tensors that lie in parts on several processes."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Sharded(Protocol):
    """A DTensor: a number that FSDP2 holds in parts."""

    def full_tensor(self) -> Tensor: ...


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor lies in parts on several processes."""
    return isinstance(tensor, Sharded)
