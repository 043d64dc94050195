"""Grids cut into windows: which windows there are, who sees whom, and the offsets inside.

A shift by ``s`` is a roll by ``-s``. Windows at the far end then hold positions from both ends of
an axis, and zeros where the axis is no multiple of the window; each kind sees its own alone.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Part(NamedTuple):
    """Neighbouring windows along an axis: where they start and stop, whether they mix kinds."""

    start: int
    stop: int
    is_mixed: bool


class Axis(NamedTuple):
    """How one axis is cut: its length, and the size and the shift of windows along it."""

    length: int
    window: int
    shift: int

    @property
    def padded(self) -> int:
        """Return the length of all windows together."""
        return math.ceil(self.length / self.window) * self.window

    def parts(self) -> list[Part]:
        """Return the windows along the axis; all that mix no kinds come as one part."""
        first_mixed = self.length - self.shift
        if self.shift == 0 and self.length == self.padded:
            first_mixed = self.padded
        plain = first_mixed // self.window * self.window
        parts = [Part(0, plain, is_mixed=False)] if plain else []
        starts = range(plain, self.padded, self.window)
        return parts + [Part(start, start + self.window, is_mixed=True) for start in starts]

    def kinds(self, part: Part, device: torch.device) -> Int[Tensor, " length"]:
        """Return what each position of a part is: 0 in place, 1 from the other end, 2 padding."""
        position = torch.arange(part.start, part.stop, device=device)
        wrapped = position >= self.padded - self.shift
        padding = ~wrapped & (position + self.shift >= self.length)
        return wrapped + 2 * padding


def cut(
    grid: Sequence[int], window_size: Sequence[int], shift_size: Sequence[int]
) -> tuple[Axis, ...]:
    """Return how a grid is cut; an axis that one window covers is one window, not shifted."""
    return tuple(
        Axis(length, window, shift) if length > window else Axis(length, length, 0)
        for length, window, shift in zip(grid, window_size, shift_size, strict=True)
    )


def visible(
    axes: Sequence[Axis], block: Sequence[Part], device: torch.device
) -> Bool[Tensor, "token source"] | None:
    """Return which positions of a window see each other; None if all do."""
    if not any(part.is_mixed for part in block):
        return None
    kinds = torch.zeros((1,) * len(axes), dtype=torch.long, device=device)
    for place, (axis, part) in enumerate(zip(axes, block, strict=True)):
        shape = [1] * len(axes)
        shape[place] = axis.window
        along = torch.zeros(axis.window, dtype=torch.long, device=device)
        if part.is_mixed:
            along = axis.kinds(part, device)
        kinds = 3 * kinds + along.reshape(shape)
    return kinds.reshape(-1, 1) == kinds.reshape(1, -1)


def split_windows(
    input: Float[Tensor, "batch *grid channel"], axes: Sequence[Axis]
) -> Float[Tensor, "window token channel"]:
    """Return the tokens of all windows of a grid that they fill."""
    dims = len(axes)
    shape: list[int] = []
    for length, axis in zip(input.shape[1:-1], axes, strict=True):
        shape += [length // axis.window, axis.window]
    order = [0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 2 * dims + 1]
    cells = input.reshape(input.shape[0], *shape, input.shape[-1]).permute(order)
    return cells.flatten(0, dims).flatten(1, dims)


def join_windows(
    tokens: Float[Tensor, "window token channel"], grid: Sequence[int], axes: Sequence[Axis]
) -> Float[Tensor, "batch *grid channel"]:
    """Return the grid from the tokens of its windows."""
    dims = len(axes)
    counts = [length // axis.window for length, axis in zip(grid, axes, strict=True)]
    cells = tokens.reshape(-1, *counts, *(axis.window for axis in axes), tokens.shape[-1])
    order = [0]
    for place in range(1, dims + 1):
        order += [place, dims + place]
    return cells.permute(*order, 2 * dims + 1).reshape(-1, *grid, tokens.shape[-1])


def relative_position_index(
    window_size: Sequence[int], *, device: torch.device | str | None = None
) -> Int[Tensor, "token source"]:
    """Return the row of the bias table for each pair of positions in a window.

    Along an axis of window ``M`` an offset ``i - j`` counts from ``-(M - 1)``; the first axis has
    the largest step.
    """
    dims = len(window_size)
    index = torch.zeros((1,) * 2 * dims, dtype=torch.long, device=device)
    for place, window in enumerate(window_size):
        position = torch.arange(window, device=device)
        shape = [1] * 2 * dims
        shape[place] = shape[dims + place] = window
        offset = position[:, None] - position + window - 1
        index = (2 * window - 1) * index + offset.reshape(shape)
    tokens = math.prod(window_size)
    return index.reshape(tokens, tokens)
