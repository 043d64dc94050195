"""Where HDF5 has put the chunks of an array."""

from typing import Any, cast

import h5py
import numpy as np

from .chunk_map import ChunkMap, chunk_bytes, grid, one_chunk
from .hdf5_parts import Chunk, Dataset


def chunk_map(dataset: Dataset, dtype: np.dtype[Any]) -> ChunkMap | None:
    """Return where the bytes of an array are, or None if they are not there as NumPy has them."""
    shape = dataset.shape or ()
    if not _as_numpy(dataset, dtype) or 0 in shape or not shape:
        return None
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        return None if offset is None else one_chunk(shape, dtype, offset)
    if dataset.id.get_create_plist().get_nfilters():
        return None
    return _chunked(dataset, shape, dataset.chunks, dtype)


def _chunked(
    dataset: Dataset, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: np.dtype[Any]
) -> ChunkMap | None:
    size = chunk_bytes(chunks, dtype)
    offsets = np.full(grid(shape, chunks), -1, np.int64)

    def note(chunk: Chunk) -> None:
        if chunk.size == size and chunk.byte_offset is not None and not chunk.filter_mask:
            index = tuple(a // n for a, n in zip(chunk.chunk_offset, chunks, strict=True))
            offsets[index] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return ChunkMap(shape, dtype, chunks, offsets) if offsets.min() >= 0 else None


def _as_numpy(dataset: Dataset, dtype: np.dtype[Any]) -> bool:
    """Return whether the numbers are stored in the very form that NumPy has."""
    low_level = cast("Any", h5py.h5t)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  untyped
    return bool(low_level.py_create(dtype, logical=True).equal(dataset.id.get_type()))
