"""An HDF5 file to read regions from, in any process."""

import os
from collections.abc import Sequence

from torch import Tensor

from medkit._core import check

from ._hdf5 import array_name
from ._hdf5_arrays import Hdf5Arrays
from ._limits import Limits
from ._stored import to_tensor


class HDF5Reader:
    """Arrays of an HDF5 file, read whole or by region, from any process.

    The file is opened on the first reading in each process and stays open there until
    :meth:`close`, so a dataset can hold a reader, be pickled, and start its workers by fork,
    forkserver or spawn. It is looked through whenever it is opened, as :func:`read_hdf5` does: no
    link, virtual array or external storage leads out of it.

    A box of an array without checksum and compression is copied straight out of the file, like
    one of a memory map. Of others whole chunks are read: slices of a gzip-compressed array in flat
    chunks are a hundred times slower to read as cubes than cubes are, see :func:`write_hdf5`.

    Args:
        path: The file.
        limits: Largest region to read at once; None means ``Limits()``.

    Attributes:
        path: The file.
        names: Paths of its arrays of numbers, sorted.

    Raises:
        DataError: If it is no HDF5 file, is damaged, or leads out of itself.
        OSError: If it cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import Volume
        >>> v = Volume(torch.arange(24).reshape(1, 2, 3, 4), np.eye(4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_hdf5(v, f"{folder}/a.h5", name="scan/image")
        ...     with HDF5Reader(f"{folder}/a.h5") as reader:
        ...         reader.names, reader.shape("scan/image")
        ...         reader.read("scan/image", start=(0, 1, 2, 0), size=(1, 1, 1, 4))
        (('scan/image',), (1, 2, 3, 4))
        tensor([[[[20, 21, 22, 23]]]])
    """

    def __init__(self, path: str | os.PathLike[str], *, limits: Limits | None = None) -> None:
        self.path: str = os.fspath(path)
        self._arrays = Hdf5Arrays(self.path, limits or Limits())
        stored = self._arrays.stored
        self.names: tuple[str, ...] = tuple(
            sorted(name for name in stored if stored[name].dtype.kind in "biufc")
        )

    def __enter__(self) -> "HDF5Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the sizes of an array, without reading it.

        Args:
            name: One of ``names``.

        Returns:
            Its sizes as stored.

        Raises:
            FormatError: If there is no such array.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> import torch
            >>> from medkit.data import Volume
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     write_hdf5(Volume(torch.zeros(1, 2, 3, 4), np.eye(4)), f"{folder}/a.h5")
            ...     with HDF5Reader(f"{folder}/a.h5") as reader:
            ...         reader.shape("image")
            (1, 2, 3, 4)
        """
        return self._arrays.stored[self._known(name)].shape

    def read(
        self,
        name: str,
        *,
        start: Sequence[int] | None = None,
        size: Sequence[int] | None = None,
    ) -> Tensor:
        """Return an array or a box of it, equal to reading all and slicing.

        Args:
            name: One of ``names``.
            start: First index along each axis; None begins at 0 everywhere.
            size: Extent along each axis; None goes to the end of each.

        Returns:
            The values, of the stored dtype; uint16 becomes int32, uint32 and uint64 become int64.

        Raises:
            ValueError: If the box is not inside the array.
            DataError: If the array is damaged, too large, or changed after the reader was made.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> import torch
            >>> from medkit.data import Volume
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     write_hdf5(Volume(torch.ones(1, 2, 3, 4), np.eye(4)), f"{folder}/a.h5")
            ...     with HDF5Reader(f"{folder}/a.h5") as reader:
            ...         reader.read("image", start=(0, 0, 1, 1)).shape
            torch.Size([1, 2, 2, 3])
        """
        name = self._known(name)
        region = box(self._arrays.stored[name].shape, start, size)
        return to_tensor(self._arrays.read(name, region), self.path)

    def close(self) -> None:
        """Close the file in this process; the next reading opens it again.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> import torch
            >>> from medkit.data import Volume
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     write_hdf5(Volume(torch.ones(1, 2, 3, 4), np.eye(4)), f"{folder}/a.h5")
            ...     HDF5Reader(f"{folder}/a.h5").close()
        """
        self._arrays.close()

    def _known(self, name: str) -> str:
        return array_name(self._arrays.stored, name, self.path)


def box(
    shape: tuple[int, ...], start: Sequence[int] | None, size: Sequence[int] | None
) -> tuple[slice, ...]:
    """Return the slices of a box, all inside an array of ``shape``."""
    first = (0,) * len(shape) if start is None else tuple(start)
    extent = tuple(n - a for n, a in zip(shape, first, strict=False)) if size is None else size
    if len(first) != len(shape) or len(extent) != len(shape):
        raise check.fail("start and size", f"{len(shape)} numbers each", f"{start} and {size}")
    for a, length, n in zip(first, extent, shape, strict=True):
        if check.integer("start", a) < 0 or check.integer("size", length) < 1 or a + length > n:
            raise check.fail("start and size", f"a box inside {shape}", f"{start} and {size}")
    return tuple(slice(int(a), int(a + length)) for a, length in zip(first, extent, strict=True))
