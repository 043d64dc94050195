"""One call that reads or writes any format: content decides on reading, the name on writing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from medkit._core import check
from medkit._core.file_errors import FormatError

from ._dicom import read_dicom
from ._dicom_file import is_dicom
from ._hdf5 import HDF5_MAGIC, read_hdf5, write_hdf5
from ._jpeg import JPEG_MAGIC, read_jpeg
from ._limits import Limits
from ._mha import is_mha, read_mha, write_mha
from ._nifti import read_nifti, write_nifti
from ._nifti_header import HEADER_BYTES, is_nifti
from ._npy import NPZ_MAGIC, read_npy, read_npz, write_npz
from ._npy_header import NPY_MAGIC
from ._nrrd import read_nrrd, write_nrrd
from ._nrrd_header import NRRD_MAGIC
from ._png import PNG_MAGIC, read_png
from ._source import open_source
from ._tiff import is_tiff, read_tiff, write_tiff
from ._volume import Volume
from ._zarr import is_zarr, read_zarr


@runtime_checkable
class _Reader(Protocol):
    def __call__(
        self, path: str | os.PathLike[str], *, limits: Limits | None = None, verify: bool = True
    ) -> Volume: ...


class _Format(NamedTuple):
    """A file format: how its first bytes look, and what reads it."""

    name: str
    recognize: Callable[[bytes], bool]
    """Takes the first bytes of the file, after gzip."""
    read: _Reader


def _begins_with(magic: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magic)


_FORMATS = (
    _Format("HDF5", _begins_with(HDF5_MAGIC), read_hdf5),
    _Format("npy", _begins_with(NPY_MAGIC), read_npy),
    _Format("npz", _begins_with(NPZ_MAGIC), read_npz),
    _Format("NRRD", _begins_with(NRRD_MAGIC), read_nrrd),
    _Format("MetaImage", is_mha, read_mha),
    _Format("DICOM", is_dicom, read_dicom),  # whose preamble may be the head of a TIFF file
    _Format("TIFF", is_tiff, read_tiff),
    _Format("PNG", _begins_with(PNG_MAGIC), read_png),
    _Format("JPEG", _begins_with(JPEG_MAGIC), read_jpeg),
    _Format("NIfTI", is_nifti, read_nifti),
)
_WRITERS: dict[str, Callable[[Volume, str | os.PathLike[str]], None]] = {
    ".nii": write_nifti,
    ".nii.gz": write_nifti,
    ".h5": write_hdf5,
    ".hdf5": write_hdf5,
    ".npz": write_npz,
    ".nrrd": write_nrrd,
    ".nhdr": write_nrrd,
    ".mha": write_mha,
    ".mhd": write_mha,
    ".tif": write_tiff,
    ".tiff": write_tiff,
}


def read(
    path: str | os.PathLike[str], *, limits: Limits | None = None, verify: bool = True
) -> Volume:
    """Read an image file: its exact voxels and geometry, or a named error.

    The first bytes decide which reader is used, not the name, and no second reader is tried after
    one has recognized the file: :func:`read_nifti`, :func:`read_hdf5`, :func:`read_npy`,
    :func:`read_npz`, :func:`read_nrrd`, :func:`read_mha`, :func:`read_tiff`, :func:`read_png`,
    :func:`read_jpeg`, :func:`read_dicom`. A folder is one of Zarr
    (:func:`read_zarr`) or of DICOM files.

    Args:
        path: The file, or a folder with a Zarr image or one DICOM image.
        limits: Largest sizes to accept; None means ``Limits()``.
        verify: Check every checksum and length in the file. False saves little time, and **a
            damaged file can then give wrong voxels.**

    Returns:
        The volume; ``warnings`` lists what had to be resolved by a rule.

    Raises:
        DataError: If the file is of no known format or does not hold what it declares.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> v = Volume(torch.zeros(1, 2, 3, 4), np.eye(4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(v, f"{folder}/zeros.nii.gz")
        ...     read(f"{folder}/zeros.nii.gz").shape
        (1, 2, 3, 4)
    """
    if is_zarr(path):
        return read_zarr(path, limits=limits, verify=verify)
    if Path(path).is_dir():
        return read_dicom(path, limits=limits, verify=verify)
    with open_source(path, verify=verify) as source:
        head = source.peek(HEADER_BYTES)
    for known in _FORMATS:
        if known.recognize(head):
            return known.read(path, limits=limits, verify=verify)
    names = ", ".join(known.name for known in _FORMATS)
    raise FormatError(
        f"a known format ({names})",
        path=os.fspath(path),
        field="file",
        value=f"first bytes {head[:8]!r}" if head else "nothing: the file is empty",
        remedy="Convert it to NIfTI." if head else "Copy it again.",
    )


def write(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a volume in the format that the name ends in.

    ``.nii`` and ``.nii.gz`` are NIfTI, ``.h5`` and ``.hdf5`` HDF5, ``.npz`` NumPy archives;
    ``.nrrd``, ``.nhdr``, ``.mha`` and ``.mhd`` are what ITK and 3D Slicer call so; ``.tif`` and
    ``.tiff`` are OME-TIFF stacks, which hold no place in the patient.
    Voxels keep their dtype. ``argmax`` gives int64, which many programs cannot open in a NIfTI
    file: for them write ``volume.like(labels.to(torch.uint8))``, or give ``write_nifti`` a dtype.
    The file appears whole or not at all, and other programs read the same voxels at the same
    places. Options of a format are options of its own writer, e.g. :func:`write_nifti`.

    Args:
        volume: What to write.
        path: Where to; an existing file is replaced at the end.

    Raises:
        TypeError: If ``volume`` is not one.
        ValueError: If no writer knows the ending.
        OSError: If the file cannot be written; an older file of that name is then untouched.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(Volume(torch.zeros(1, 2, 3, 4), np.eye(4)), f"{folder}/zeros.nii")
        ...     Path(f"{folder}/zeros.nii").stat().st_size
        448
    """
    check.kind("volume", volume, Volume, "a Volume")
    name = os.fspath(path)
    for ending, writer in _WRITERS.items():
        if name.endswith(ending):
            writer(volume, path)
            return
    raise check.fail("path", f"a name that ends in {' or '.join(_WRITERS)}", repr(name))
