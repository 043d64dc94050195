"""Boxes of voxels that lie uncompressed in a file, in any order of axes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medkit._core.chunk_map import ChunkMap

from ._limits import Limits
from ._mapped import MappedFile
from ._payload import check_payload
from ._stored import tensor_dtype, to_tensor

Axes = tuple[int | None, ...]
"""The stored axis that is C, D, H and W; None where there is none and the size is 1."""


@dataclass(frozen=True)
class PlainRegions:
    """An array in a file, read by region.

    Args:
        file: Where it is.
        array: Its bytes there, the slowest axis first.
        axes: Which of its axes are (C, D, H, W).
        limits: Largest box to read at once.
        decode: Makes numbers of the stored ones, for boxes as for whole arrays; None keeps them.
    """

    file: MappedFile
    array: ChunkMap
    axes: Axes
    limits: Limits
    decode: Callable[[np.ndarray], Tensor] | None = None

    def read_box(
        self, start: tuple[int, ...], size: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return a box (C, D, H, W)."""
        stored = self.array.dtype
        nbytes = math.prod(size) * max(stored.itemsize, tensor_dtype(stored).itemsize)
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
