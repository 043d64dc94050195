"""Passes over voxels in pieces that stay in the processor's cache."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    _MetaOfProtocols = type
else:
    _MetaOfProtocols = type(Protocol)

CPU_ELEMENTS = 2**19
"""Two megabytes of float32: a few of them fit in a second-level cache."""

PIECE_ELEMENTS = 2**18
"""A megabyte of float32: the few that a pass works in fit in a cache, and calls cost little."""

DEVICE_ELEMENTS = 2**26
"""A quarter of a gigabyte of float32: few launches, bounded memory."""


class _AnyObject(_MetaOfProtocols):
    """Lets the shape checks of the tests take torch's own object, whatever it holds so far."""

    def __instancecheck__(self, instance: object) -> bool:
        """Return True."""
        return True


class Context(Protocol, metaclass=_AnyObject):
    """What torch hands to ``setup_context`` and ``backward`` of a function."""

    saved_tensors: tuple[Any, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for the backward pass."""
        ...

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say that no gradient flows through an output."""
        ...

    def set_materialize_grads(self, value: bool) -> None:
        """Say whether a missing gradient comes as zeros."""
        ...


def chunks(x: Tensor) -> Iterator[tuple[int, slice, slice]]:
    """Yield number, samples and voxels of each piece of ``(batch, channel, voxel)``.

    Pieces of the same voxels have the same number. They depend on shape and kind of device alone,
    so that sums are the same bit for bit whatever the number of threads.
    """
    batch, channels, voxels = x.shape
    budget = PIECE_ELEMENTS if on_cpu(x) else DEVICE_ELEMENTS
    length = max(1, min(voxels, budget // channels))
    samples = max(1, budget // (channels * length)) if length == voxels else 1
    for first in range(0, batch, samples):
        for number, start in enumerate(range(0, voxels, length)):
            yield number, slice(first, first + samples), slice(start, start + length)


def num_chunks(x: Tensor) -> int:
    """Return one more than the largest number that ``chunks`` yields, at least one."""
    return 1 + max((number for number, _, _ in chunks(x)), default=0)


class Room:
    """Memory for results of the size of a piece, used again and again.

    Memory that is asked for anew comes in untouched pages, and touching them takes longer than
    the arithmetic.
    """

    def __init__(self, x: Tensor) -> None:
        pieces = (x[rows, :, part].numel() for _, rows, part in chunks(x))
        self.memory = x.new_empty(max(pieces, default=0), dtype=wide_dtype(x))

    def like(self, piece: Tensor) -> Tensor:
        """Return room of the shape of a piece, contiguous; it holds what was there before."""
        return self.memory[: piece.numel()].view(piece.shape)

    def take(self, piece: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return a contiguous copy of a piece in the wide type, zero where the weight is."""
        copy = self.like(piece).copy_(piece)
        if weight is None:
            return copy
        return torch.where(weight.unsqueeze(1) > 0, copy, copy.new_zeros(()), out=copy)


def finite(sums: Tensor) -> bool:
    """Return whether all numbers of a small tensor are finite; it waits for the device."""
    return bool(sums.isfinite().all())


def counted(x: Tensor, weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return ``x`` in a dtype, zero wherever the voxel weighs nothing, even in place of NaN."""
    x = x.to(dtype)
    return x if weight is None else torch.where(weight.unsqueeze(1) > 0, x, 0.0)


def on_cpu(x: Tensor) -> bool:
    """Return whether reading a value of ``x`` waits for no device."""
    return x.device.type == "cpu"


def wide_dtype(x: Tensor) -> torch.dtype:
    """Return the type that sums over voxels of ``x`` accumulate in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def gradient_of(
    formula: Callable[[Tensor], Sequence[Tensor]], x: Tensor, gradients: Sequence[Tensor | None]
) -> Tensor | None:
    """Return the gradient of a formula by autograd, to be differentiated again."""
    with torch.enable_grad():
        results = zip(formula(x), gradients, strict=True)
        pairs = [(result, gradient) for result, gradient in results if gradient is not None]
        if not pairs:
            return None
        outputs, weights = zip(*pairs, strict=True)
        return torch.autograd.grad(outputs, x, weights, create_graph=True)[0]
