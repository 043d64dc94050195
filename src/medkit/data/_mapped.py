"""A file mapped into memory: boxes of its arrays are copied out of it, and nothing else is read."""

import mmap
import os
import weakref
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from medkit._core.chunk_map import ChunkMap, Piece, chunk_bytes

from ._file_state import changed, file_state

_LARGEST = 1 << 24  # bytes of a chunk, of which little may be needed, that are fetched at once


class MappedFile:
    """A file that is mapped when it is first read in a process, if it still is as it was.

    It can be used by threads, after a fork, and pickled: what is unpickled maps the file anew. A
    file that is replaced by another of its name can still be read; one that was written over or
    cut is an error.
    """

    def __init__(self, path: str, state: tuple[int, int]) -> None:
        self.path = path
        self.state = state
        self._mapping: _Mapping | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_mapping": None}

    def read(
        self, array: ChunkMap, box: Sequence[slice], dtype: np.dtype[Any] | None = None
    ) -> npt.NDArray[Any]:
        """Copy a box inside of an array, converted to ``dtype`` on the way; None keeps the type."""
        if self._mapping is None:
            self._mapping = _Mapping(self.path)
        mapping = self._mapping
        if file_state(mapping.descriptor) != self.state:
            self.close()
            raise changed(self.path)
        shape = [along.stop - along.start for along in box]
        out = np.empty(shape, dtype or array.dtype)
        pieces = list(array.pieces(box))
        if chunk_bytes(array.chunks, array.dtype) <= _LARGEST:
            mapping.fetch(pieces)
        with np.errstate(over="ignore", invalid="ignore") if dtype else nullcontext():
            for offset, into, part, _, _ in pieces:
                out[into] = np.ndarray(array.chunks, array.dtype, mapping.memory, offset)[part]
        return out

    def close(self) -> None:
        """Let go of the file; the next reading maps it again."""
        self._mapping = None


class _Mapping:
    """An open file and its bytes, let go of together."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self.descriptor)
        self.memory = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)

    def fetch(self, pieces: Iterable[Piece]) -> None:
        """Ask for pieces all at once where they are not in memory yet.

        Without it each page is waited for: seven times as long for a patch that is on the disk.
        """
        probe = [bytearray(1)]
        for offset, _, _, first, last in pieces:
            try:
                os.preadv(self.descriptor, probe, offset + first, os.RWF_NOWAIT)
            except BlockingIOError:
                page = (offset + first) // mmap.PAGESIZE * mmap.PAGESIZE
                self.memory.madvise(mmap.MADV_WILLNEED, page, offset + last + 1 - page)
            except (OSError, AttributeError):
                return  # this system cannot say; pages are then waited for
