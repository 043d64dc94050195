"""A file mapped into memory: boxes of its arrays are copied out of it, and nothing else is read."""

import mmap
import os
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from medkit._core.chunk_map import ChunkMap, Piece, chunk_bytes

from ._file_state import changed, file_state

_LARGEST = 1 << 24  # bytes of a chunk, of which little may be needed, that are fetched at once
_SAMPLE = 5  # one of so many pieces is looked for, as each costs a microsecond or two


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
        self.cold = True

    def fetch(self, pieces: Sequence[Piece]) -> None:
        """Ask for pieces all at once where they are not in memory yet.

        Without it each page is waited for: seven times as long for a patch that is on the disk.
        While all that was looked for is in memory, only some pieces are looked for.
        """
        try:
            missing = sum(map(self._ask, pieces if self.cold else pieces[::_SAMPLE]))
            if missing and not self.cold:
                missing = sum(map(self._ask, pieces))
            self.cold = missing > 0
        except (OSError, AttributeError):
            return  # this system cannot say; pages are then waited for

    def _ask(self, piece: Piece) -> bool:
        """Return whether the first byte of a piece is missing; all of it is then asked for."""
        first = piece.offset + piece.first
        try:
            os.preadv(self.descriptor, [bytearray(1)], first, os.RWF_NOWAIT)
        except BlockingIOError:
            page = first // mmap.PAGESIZE * mmap.PAGESIZE
            length = piece.offset + piece.last + 1 - page
            self.memory.madvise(mmap.MADV_WILLNEED, page, length)
            return True
        return False
