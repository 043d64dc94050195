"""Volumes that stay on the disk: geometry at once, voxels by region."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from medkit._core import check
from medkit._core.file_errors import FormatError
from medkit._core.hdf5 import open_hdf5
from medkit.ops import affine_spacing, translate_affine

from ._array_shape import check_shape
from ._file_state import changed, file_state
from ._hdf5 import HDF5_MAGIC, array_name, geometry
from ._hdf5_reader import HDF5Reader
from ._limits import Limits
from ._notice import Notice
from ._npy import read_npy_header
from ._npy_header import NPY_MAGIC, NpyHeader
from ._orientation import placed
from ._payload import check_payload
from ._source import PlainSource
from ._stored import tensor_dtype, to_tensor
from ._volume import Volume


@runtime_checkable
class Regions(Protocol):
    """An array on the disk of which boxes can be read."""

    def read_box(self, start: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
        """Return a box; ``start`` and ``size`` are numbers for each of its stored axes."""
        ...


class LazyVolume:
    """A volume on the disk, as :func:`open` gives it: read a region, not the file.

    It can be pickled and shared by workers started in any way: a process that reads opens the
    file for itself.

    Args:
        regions: Where boxes are read from.
        num_axes: Number of stored axes, up to four.
        like: A volume with the geometry.
        shape: Channels and voxels per array axis: (C, D, H, W).

    Attributes:
        affine: Matrix from (d, h, w) to RAS+ mm.
        source: The file.
        warnings: What the reader resolved by a rule.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import open, write_hdf5
        >>> v = Volume(torch.arange(24).reshape(1, 2, 3, 4), np.diag([3.0, 2.0, 1.0, 1.0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_hdf5(v, f"{folder}/a.h5")
        ...     lazy = open(f"{folder}/a.h5")
        ...     lazy.shape, lazy.read((1, 1, 0), (1, 2, 4)).affine[:3, 3].tolist()
        ((1, 2, 3, 4), [3.0, 2.0, 0.0])
    """

    def __init__(
        self, regions: Regions, num_axes: int, like: Volume, shape: tuple[int, ...]
    ) -> None:
        c, d, h, w = shape
        self.shape: tuple[int, int, int, int] = (c, d, h, w)
        self.affine: Float64[np.ndarray, "4 4"] = like.affine
        self.source: str = like.source
        self.warnings: tuple[Notice, ...] = like.warnings
        self._regions = regions
        self._num_axes = num_axes

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"LazyVolume({size}, {self.source})"

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Voxels per array axis: (D, H, W)."""
        return self.shape[1:]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between voxels along d, h and w."""
        return affine_spacing(self.affine)

    def read(self, start: Sequence[int], size: Sequence[int]) -> Volume:
        """Return a box of voxels of all channels, as ``read(path).crop(start, size)`` would.

        Args:
            start: Index (d, h, w) of the first voxel.
            size: Voxels per axis.

        Returns:
            The box, each voxel at its world position.

        Raises:
            ValueError: If the box is not inside the volume.
            DataError: If the file is damaged or changed after it was opened.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> from medkit.data import open
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     np.save(f"{folder}/a.npy", np.arange(24).reshape(2, 3, 4))
            ...     open(f"{folder}/a.npy").read((1, 2, 0), (1, 1, 4)).data.tolist()
            [[[[20, 21, 22, 23]]]]
        """
        if len(start) != 3 or len(size) != 3:
            raise check.fail("start and size", "three numbers (d, h, w)", f"{start} and {size}")
        first = tuple(check.integer("start", a) for a in start)
        extent = tuple(check.integer("size", n) for n in size)
        for a, length, n in zip(first, extent, self.spatial_shape, strict=True):
            if a < 0 or length < 1 or a + length > n:
                rule = f"a box inside {self.spatial_shape}"
                raise check.fail("start and size", rule, f"{start} and {size}")
        data = self._regions.read_box(
            (0, *first)[-self._num_axes :], (self.shape[0], *extent)[-self._num_axes :]
        )
        data = data.reshape(*(1,) * (4 - data.ndim), *data.shape)
        return Volume(data, translate_affine(self.affine, first), self.source, self.warnings)


@dataclass(frozen=True)
class _HDF5Regions:
    reader: HDF5Reader
    name: str

    def read_box(self, start: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
        return self.reader.read(self.name, start=start, size=size)


@dataclass(frozen=True)
class _MappedRegions:
    """An array in a plain file, mapped into memory for each reading."""

    path: str
    header: NpyHeader
    offset: int
    state: tuple[int, int]
    limits: Limits

    def read_box(self, start: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
        if file_state(self.path) != self.state:
            raise changed(self.path)
        dtype, shape, fortran_order = self.header
        nbytes = math.prod(size) * tensor_dtype(dtype).itemsize
        check_payload(nbytes, nbytes, self.path, self.limits)
        order = "F" if fortran_order else "C"
        mapped = np.memmap(self.path, dtype, "r", self.offset, shape, order)
        box = tuple(slice(a, a + length) for a, length in zip(start, size, strict=True))
        return to_tensor(np.array(mapped[box], order="C"), self.path)


def open(  # noqa: A001  the name of the contract; medkit.data.open
    path: str | os.PathLike[str], *, name: str | None = None, limits: Limits | None = None
) -> LazyVolume:
    """Open a volume to read regions of it: HDF5 in any chunks, and plain .npy by memory mapping.

    Patches of a volume that is too large for memory, or of one out of very many, are read without
    the rest. Files that must be inflated from the start, such as ``.nii.gz``, cannot be; write
    them once with :func:`write_hdf5`.

    Args:
        path: The file; its first bytes decide the format.
        name: Path of the array in an HDF5 file; None takes the only one there is.
        limits: Largest region to read at once; None means ``Limits()``.

    Returns:
        Geometry at once, voxels on request.

    Raises:
        DataError: If the file is of no format that regions can be read from, or does not hold what
            it declares.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.zeros((20, 30, 40), np.int16))
        ...     open(f"{folder}/a.npy").read((5, 5, 5), (10, 10, 10)).shape
        (1, 10, 10, 10)
    """
    source, limits = os.fspath(path), limits or Limits()
    with FileIO(source, "r") as file:
        head = file.read(len(HDF5_MAGIC))
    if head == HDF5_MAGIC:
        return _open_hdf5(source, name, limits)
    if head.startswith(NPY_MAGIC):
        return _open_npy(source, limits)
    raise FormatError(
        "HDF5 or plain .npy to read regions from",
        path=source,
        field="file",
        value=f"first bytes {head!r}",
        remedy="Use read(path), or write it once with write_hdf5.",
    )


def _open_hdf5(path: str, name: str | None, limits: Limits) -> LazyVolume:
    with open_hdf5(path) as file:
        name = array_name(file, name)
        shape = file.arrays[name].shape
        check_shape(shape, path, name)
        like = placed(_nothing(), path, *geometry(file, name))
    regions = _HDF5Regions(HDF5Reader(path, limits=limits), name)
    return LazyVolume(regions, len(shape), like, (*(1,) * (4 - len(shape)), *shape))


def _open_npy(path: str, limits: Limits) -> LazyVolume:
    state = file_state(path)
    with FileIO(path, "r") as file:
        source = PlainSource(file, path)
        header, offset = read_npy_header(source)
        check_shape(header.shape, path, "array")
        check_payload(header.nbytes, state[0] - offset, path, Limits(max_bytes=header.nbytes))
        file.seek(offset + header.nbytes)
        source.finish()
    regions = _MappedRegions(path, header, offset, state, limits)
    shape = (*(1,) * (4 - len(header.shape)), *header.shape)
    return LazyVolume(regions, len(header.shape), placed(_nothing(), path, None, None), shape)


def _nothing() -> Tensor:
    return torch.zeros(1, 1, 1, 1)
