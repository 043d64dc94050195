"""Tensors that lie in parts on several processes."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Sharded(Protocol):
    """A DTensor: a number that FSDP2 holds in parts."""

    def full_tensor(self) -> Tensor: ...

    def to_local(self) -> Tensor: ...


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor lies in parts on several processes."""
    return isinstance(tensor, Sharded)


def own_part(tensor: Tensor) -> Tensor:
    """Return what lies in this process, without asking the others."""
    return tensor.to_local() if isinstance(tensor, Sharded) else tensor
