"""The arrays of one HDF5 file as they are stored, in whatever process asks."""

import os
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from medkit._core.chunk_map import ChunkMap
from medkit._core.hdf5 import Hdf5File, Stored, check_size, open_hdf5

from ._file_state import changed, file_state
from ._limits import Limits
from ._mapped import MappedFile


class Hdf5Arrays:
    """A file that each process opens for itself; boxes of plain arrays are copied out of it.

    Attributes:
        path: The file.
        stored: What it declares about every array, by path.
    """

    def __init__(self, path: str, limits: Limits) -> None:
        self.path = path
        self._limits = limits
        self._state = file_state(path)
        self._open: tuple[int, ExitStack, Hdf5File] | None = None
        self._mapped = MappedFile(path, self._state)
        self._maps: dict[str, ChunkMap | None] = {}
        self.stored: dict[str, Stored] = self.file().arrays

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_open": None}

    def read(
        self, name: str, box: tuple[slice, ...], dtype: np.dtype[Any] | None = None
    ) -> npt.NDArray[Any]:
        """Return a box that is inside an array, converted to ``dtype`` unless it is None."""
        stored, limit = self.stored[name], self._limits.max_bytes
        where = self.locate(name)
        if where is not None:
            check_size(self.path, name, stored, limit, box)
            return self._mapped.read(where, box, dtype)
        values = self.file().read(name, max_bytes=limit, region=box)
        with np.errstate(over="ignore", invalid="ignore"):
            return values if dtype is None else values.astype(dtype)

    def locate(self, name: str) -> ChunkMap | None:
        """Return where an array is in the file, which is looked up once; None if HDF5 reads it."""
        if name not in self._maps:
            self._maps[name] = self.file().chunk_map(name)
        return self._maps[name]

    def file(self) -> Hdf5File:
        """Return the file as opened by this process; another one's handle is left to it."""
        if self._open is not None and self._open[0] == os.getpid():
            return self._open[2]
        if file_state(self.path) != self._state:
            raise changed(self.path)
        stack = ExitStack()
        file = stack.enter_context(open_hdf5(self.path))
        self._open = (os.getpid(), stack, file)
        return file

    def close(self) -> None:
        """Close the file in this process; the next reading opens it again."""
        self._mapped.close()
        opened, self._open = self._open, None
        if opened is not None:
            opened[1].close()
