"""Boxes of voxels that lie uncompressed in a file, in any order of axes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from medkit._core.chunk_map import ChunkMap

from ._limits import Limits
from ._mapped import MappedFile
from ._payload import check_payload
from ._stored import tensor_dtype, to_tensor
from ._volume import Volume

Axes = tuple[int | None, ...]
"""The stored axis that is C, D, H and W; None where there is none and the size is 1."""


class Layout(NamedTuple):
    """Where the voxels of a file are, and where they are in the patient."""

    file: MappedFile
    array: ChunkMap
    axes: Axes
    like: Volume
    """A voxel with the geometry of all."""
    decode: Callable[[np.ndarray], Tensor] | None = None
    itemsize: int = 0


@dataclass(frozen=True)
class PlainRegions:
    """An array in a file, read by region.

    Args:
        file: Where it is.
        array: Its bytes there, the slowest axis first.
        axes: Which of its axes are (C, D, H, W).
        limits: Largest box to read at once.
        decode: Makes numbers of the stored ones, of a box as of the whole; None keeps them.
        itemsize: Bytes of such a number, if more than of a stored one.
    """

    file: MappedFile
    array: ChunkMap
    axes: Axes
    limits: Limits
    decode: Callable[[np.ndarray], Tensor] | None = None
    itemsize: int = 0

    def read_box(
        self, start: tuple[int, ...], size: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return a box (C, D, H, W)."""
        stored = self.array.dtype
        widest = max(stored.itemsize, tensor_dtype(stored).itemsize, self.itemsize)
        nbytes = math.prod(size) * widest
        check_payload(nbytes, nbytes, self.file.path, self.limits)
        box = [slice(0, 1)] * len(self.array.shape)
        for axis, first, extent in zip(self.axes, start, size, strict=True):
            if axis is not None:
                box[axis] = slice(first, first + extent)
        values = self.file.read(self.array, box)
        rest = [axis for axis in range(values.ndim) if axis not in self.axes]
        values = values.transpose(rest + [axis for axis in self.axes if axis is not None])
        values = np.ascontiguousarray(values).reshape(size)
        data = to_tensor(values, self.file.path) if self.decode is None else self.decode(values)
        return data if dtype is None else data.to(dtype)
