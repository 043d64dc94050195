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


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; every process that holds a part must ask."""
    return tensor.full_tensor() if isinstance(tensor, Sharded) else tensor


def cut_like(tensor: Tensor, target: Tensor) -> Tensor:
    """Return a tensor, the same in all processes, in parts where ``target`` lies in parts."""
    if is_sharded(tensor) or not is_sharded(target):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(target, DTensor):
        return tensor
    here = tensor.to(target.device)
    return distribute_tensor(here, target.device_mesh, target.placements, src_data_rank=None)
