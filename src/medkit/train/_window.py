"""Accumulation windows: which micro-batches stand behind one optimizer step."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from torch import nn

from ._loader import num_batches

Batch = TypeVar("Batch")


class Window(NamedTuple):
    """Where a micro-batch stands among those behind one optimizer step.

    Attributes:
        position: Its number in the window, from 0.
        size: Micro-batches that the window holds; fewer in the last one of a ragged epoch.
    """

    position: int
    size: int

    @property
    def last(self) -> bool:
        """Whether the optimizer steps after this micro-batch."""
        return self.position + 1 == self.size


@runtime_checkable
class _Replicated(Protocol):
    """What DistributedDataParallel offers."""

    def no_sync(self) -> AbstractContextManager[object]: ...


@runtime_checkable
class _Sharded(Protocol):
    """What FSDP2's ``fully_shard`` adds to a module."""

    def set_requires_gradient_sync(self, requires_gradient_sync: bool) -> None: ...


def windows(loader: Iterable[Batch], size: int) -> Iterator[tuple[Batch, Window]]:
    """Yield each batch with its window; the last window is as small as it turns out to be."""
    total = num_batches(loader) if size > 1 else None
    if total is None:
        batches = iter(loader)
        while group := list(islice(batches, size)):
            for index, batch in enumerate(group):
                yield batch, Window(index, len(group))
        return
    done = 0
    for batch in loader:
        index = done % size
        done += 1
        if done > total:
            break
        yield batch, Window(index, min(size, total - done + 1 + index))
    if done != total:
        found = "more" if done > total else str(done)
        raise RuntimeError(f"the loader has length {total} and gave {found} batches")


def gradient_exchange(model: nn.Module, *, last: bool) -> AbstractContextManager[object]:
    """Return the context of one micro-batch: only the last of a window exchanges gradients."""
    model = _uncompiled(model)
    if isinstance(model, _Sharded):
        model.set_requires_gradient_sync(last)
    elif isinstance(model, _Replicated) and not last:
        return model.no_sync()
    return nullcontext()


def is_shared(model: nn.Module) -> bool:
    """Return whether other processes step together with this one."""
    return isinstance(_uncompiled(model), _Sharded | _Replicated)


def _uncompiled(model: nn.Module) -> nn.Module:
    while isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
        model = inner
    return model
