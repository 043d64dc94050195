"""Open a file to read regions of it."""

import os
from dataclasses import dataclass
from io import FileIO

import torch
from torch import Tensor

from medkit._core.chunk_map import one_chunk
from medkit._core.file_errors import FormatError

from ._array_shape import check_shape
from ._file_state import file_state
from ._hdf5 import HDF5_MAGIC, array_name, geometry
from ._hdf5_arrays import Hdf5Arrays
from ._lazy_volume import LazyVolume
from ._limits import Limits
from ._mapped import MappedFile
from ._mha import is_mha, lay_out_mha
from ._nifti import lay_out_nifti
from ._nifti_header import HEADER_BYTES, is_nifti
from ._npy import read_npy_header
from ._npy_header import NPY_MAGIC
from ._nrrd import lay_out_nrrd
from ._nrrd_header import NRRD_MAGIC
from ._orientation import placed
from ._payload import check_payload
from ._plain_regions import Layout, PlainRegions
from ._source import PlainSource
from ._stored import to_tensor
from ._zarr import ZarrRegions, find_image, is_zarr, zarr_place


@dataclass(frozen=True)
class _HDF5Regions:
    arrays: Hdf5Arrays
    name: str

    def read_box(
        self, start: tuple[int, ...], size: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> Tensor:
        axes = len(self.arrays.stored[self.name].shape)
        spans = zip(start[4 - axes :], size[4 - axes :], strict=True)
        values = self.arrays.read(self.name, tuple(slice(a, a + n) for a, n in spans))
        data = to_tensor(values, self.arrays.path).reshape(size)
        return data if dtype is None else data.to(dtype)


def open(  # noqa: A001  the name of the contract; medkit.data.open
    path: str | os.PathLike[str], *, name: str | None = None, limits: Limits | None = None
) -> LazyVolume:
    """Open a volume to read regions of it: uncompressed files, HDF5 and Zarr in any chunks.

    Patches of a volume that is too large for memory, or of one out of very many, are read without
    the rest: plain NIfTI, raw NRRD and MetaImage with the voxels in the file or beside it, and
    .npy are mapped into memory. The header is checked as :func:`read` does, and that the file
    holds all voxels and no more; of the values, those that a region has. What must be inflated
    from its start, such as ``.nii.gz``, is refused: :func:`read` it whole, or write it once in
    another form, with :func:`cache`, :func:`write_hdf5` or :func:`write`.

    As in ``gzip`` and ``tarfile`` the name is that of the builtin, so say ``medkit.data.open``: it
    takes a path and keywords alone, and a call that was meant for the builtin is an error.

    Args:
        path: The file, whose first bytes decide the format, or the folder of a Zarr image.
        name: Path of the array in an HDF5 file or a Zarr group; None takes the only one there is,
            or the finest level of an OME-Zarr image.
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
    if is_zarr(source):
        image = find_image(source, name, 0, limits)
        return LazyVolume(ZarrRegions(image, limits), zarr_place(image, source), image.shape)
    with FileIO(source, "r") as file:
        head = file.read(HEADER_BYTES)
    if head.startswith(HDF5_MAGIC):
        return _open_hdf5(source, name, limits)
    layout = _lay_out(source, head, limits)
    if layout is None:
        raise FormatError(
            "uncompressed NIfTI, NRRD, MetaImage or .npy, HDF5 or Zarr, to read regions from",
            path=source,
            field="file",
            value=f"first bytes {head[:8]!r}, compressed or of another kind",
            remedy="Use read(path), or write it once with cache or write_hdf5.",
        )
    file, array, axes, like, decode, itemsize = layout
    shape = tuple(1 if axis is None else array.shape[axis] for axis in axes)
    return LazyVolume(PlainRegions(file, array, axes, limits, decode, itemsize), like, shape)


def _lay_out(path: str, head: bytes, limits: Limits) -> Layout | None:
    """Return where the voxels of a plain file are, or None if it is none."""
    if head.startswith(NPY_MAGIC):
        return _lay_out_npy(path)
    if head.startswith(NRRD_MAGIC):
        return lay_out_nrrd(path)
    if is_mha(head):
        return lay_out_mha(path)
    if is_nifti(head):
        return lay_out_nifti(path, limits)
    return None


def _open_hdf5(path: str, name: str | None, limits: Limits) -> LazyVolume:
    arrays = Hdf5Arrays(path, limits)
    name = array_name(arrays.stored, name, path)
    shape = arrays.stored[name].shape
    check_shape(shape, path, name)
    like = placed(_nothing(), path, *geometry(arrays.file(), name))
    return LazyVolume(_HDF5Regions(arrays, name), like, _four(shape))


def _lay_out_npy(path: str) -> Layout:
    state = file_state(path)
    with FileIO(path, "r") as file:
        source = PlainSource(file, path)
        header, offset = read_npy_header(source)
        shape = header.shape
        check_shape(shape, path, "array")
        check_payload(header.nbytes, state[0] - offset, path, Limits(max_bytes=header.nbytes))
        file.seek(offset + header.nbytes)
        source.finish()
    order = -1 if header.fortran_order else 1  # the axis that comes first is then the fastest
    axes = (*(None,) * (4 - len(shape)), *range(len(shape))[::order])
    array = one_chunk(shape[::order], header.dtype, offset)
    return Layout(MappedFile(path, state), array, axes, placed(_nothing(), path, None, None))


def _four(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*(1,) * (4 - len(shape)), *shape)


def _nothing() -> Tensor:
    return torch.zeros(1, 1, 1, 1)
