"""Where the bytes of an array lie in its file: boxes of it can then be copied out of the file."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Index = tuple[int | slice, ...]


class Piece(NamedTuple):
    """What a box takes out of one chunk."""

    offset: int
    """Byte of the file at which the chunk begins."""
    into: Index
    """Where in the box it goes; a number on axes along which chunks are one element thick."""
    part: Index
    """What of the chunk it is; likewise."""
    first: int
    """Byte of the chunk at which its first element begins."""
    last: int
    """Byte of the chunk at which its last element begins."""


class ChunkMap(NamedTuple):
    """An uncompressed array in a file, in chunks of one size or as a single one.

    Chunks at the end of an axis are of full size too, beyond the end of the array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """As stored, of any byte order."""
    chunks: tuple[int, ...]
    offsets: npt.NDArray[np.int64]
    """Where each chunk begins, with one axis for each of the array's."""

    def pieces(self, box: Sequence[slice]) -> Iterator[Piece]:
        """Yield what a box inside the array takes out of each chunk."""
        axes: list[_Along] = []
        step, count = self.dtype.itemsize, 1
        for along, edge, size in zip(*map(reversed, (box, self.chunks, self.shape)), strict=True):
            axes.append(_along(along.start, along.stop, edge, step, count))
            step, count = step * edge, count * -(-size // edge)
        number, into, part, first, last = zip(*reversed(axes), strict=True)
        return map(
            Piece,
            self.offsets.take(list(map(sum, product(*number)))).tolist(),
            product(*into),
            product(*part),
            map(sum, product(*first)),
            map(sum, product(*last)),
        )


def one_chunk(shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> ChunkMap:
    """Return the map of an array that is stored in one piece."""
    return ChunkMap(shape, dtype, shape, np.full((1,) * len(shape), offset, np.int64))


def grid(shape: Sequence[int], chunks: Sequence[int]) -> tuple[int, ...]:
    """Return the number of chunks along each axis."""
    return tuple(-(-size // edge) for size, edge in zip(shape, chunks, strict=True))


def chunk_bytes(chunks: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Return the size of a chunk."""
    return prod(chunks) * dtype.itemsize


class _Along(NamedTuple):
    """What an interval takes out of each chunk that it meets along an axis.

    The numbers of the chunks, and the first and last element in each, are multiplied by what one
    step along the axis is worth: sums over the axes are then numbers of chunks, and bytes.
    """

    number: list[int]
    into: list[int | slice]
    part: list[int | slice]
    first: list[int]
    last: list[int]


@lru_cache(4096)
def _along(start: int, stop: int, edge: int, step: int, count: int) -> _Along:
    numbers = range(start // edge, (stop - 1) // edge + 1)
    number = [n * count for n in numbers]
    if edge == 1:  # NumPy copies views without axes of size 1 up to three times as fast
        return _Along(
            number,
            [n - start for n in numbers],
            [0] * len(number),
            [0] * len(number),
            [0] * len(number),
        )
    into: list[int | slice] = []
    part: list[int | slice] = []
    first: list[int] = []
    last: list[int] = []
    for n in numbers:
        begin = n * edge
        a, b = max(start, begin), min(stop, begin + edge)
        into.append(slice(a - start, b - start))
        part.append(slice(a - begin, b - begin))
        first.append((a - begin) * step)
        last.append((b - begin - 1) * step)
    return _Along(number, into, part, first, last)
