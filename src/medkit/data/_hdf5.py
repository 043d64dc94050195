"""Volumes in HDF5 files: one array each, its geometry in attributes, every way out of it closed."""

import os
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from medkit._core import check
from medkit._core.file_errors import FormatError
from medkit._core.hdf5 import Array, Hdf5File, Laid, Stored, Written, open_hdf5
from medkit._core.hdf5 import write_hdf5 as write_groups
from medkit.ops import affine_spacing

from ._adapters import plain_array
from ._array_shape import channels_first, check_shape
from ._limits import Limits
from ._orientation import is_oriented, placed
from ._stored import exact, to_tensor
from ._volume import Volume

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

Hdf5Dtype = Literal[
    "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "float32", "float64", "complex64", "complex128",
]  # fmt: skip

_AFFINE, _SPACING = "affine", "spacing"
_HELD_AS_IT_IS = (torch.bool, torch.float16)


def read_hdf5(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    limits: Limits | None = None,
    verify: bool = True,
) -> Volume:
    """Read one array of an HDF5 file as a volume, exactly or not at all.

    An array of two axes is (H, W), of three (D, H, W), of four (C, D, H, W). Its attribute
    ``affine`` is the matrix from (d, h, w) to RAS+ mm; without it, ``spacing`` holds the mm between
    voxels along the last three axes, and without that they are 1, both with the notice
    ``"no_orientation"``.

    Nothing outside of the file is ever read: external storage, virtual arrays and links other than
    hard ones are refused wherever they are in the file.

    Args:
        path: The file.
        name: Path of the array, e.g. ``"patient1/image"``; None takes the only one there is.
        limits: Largest size to accept; None means ``Limits()``.
        verify: HDF5 itself checks its checksums (fletcher32) where the file has them, whatever is
            asked for here.

    Returns:
        The volume, of the stored dtype; uint16 becomes int32, uint32 and uint64 become int64.

    Raises:
        DataError: If the file does not hold what it declares, leads outside of itself, or has
            several arrays and no name was given.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> v = Volume(torch.zeros(1, 2, 3, 4), np.diag([3.0, 2.0, 1.0, 1.0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_hdf5(v, f"{folder}/a.h5")
        ...     read_hdf5(f"{folder}/a.h5")
        Volume(1x2x3x4 float32, 3x2x1 mm, RAS, ...a.h5)
    """
    del verify  # a checksum that fails is an error of the HDF5 library itself
    limits = limits or Limits()
    with open_hdf5(path) as file:
        name = array_name(file.arrays, name, file.path)
        check_shape(file.arrays[name].shape, file.path, name)
        data = to_tensor(file.read(name, max_bytes=limits.max_bytes), file.path)
        return placed(channels_first(data, file.path, name), file.path, *geometry(file, name))


def write_hdf5(
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    name: str = "image",
    dtype: Hdf5Dtype | None = None,
    chunk: int | None = 64,
    checksum: bool = True,
) -> None:
    """Write a volume as one array of an HDF5 file, with its affine, whole or not at all.

    The array is (C, D, H, W), uncompressed, with the attributes ``affine`` and ``spacing`` in the
    order of its axes (d, h, w); a volume of unknown orientation has ``spacing`` alone. Cubic
    chunks make the reading of patches fast: see :func:`open`.

    Args:
        volume: What to write; bool is stored as HDF5's enumeration, bfloat16 as float32.
        path: Where to; an existing file is replaced at the end.
        name: Path of the array in the file.
        dtype: Stored type, e.g. ``"uint8"`` for labels or ``"float16"``; None keeps the volume's.
            Values that do not survive the conversion are an error.
        chunk: Voxels along the edge of a chunk; None stores the array in one piece, which cannot
            have checksums.
        checksum: Store a fletcher32 of each chunk, which every HDF5 program checks. Without it
            patches are copied straight out of the file, several times as fast.

    Raises:
        TypeError: If ``volume`` is not one.
        ValueError: If an option is unknown or the voxels do not fit ``dtype``.
        OSError: If the file cannot be written; an older file of that name is then untouched.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> label = Volume(torch.ones(1, 4, 4, 4, dtype=torch.int64), np.eye(4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_hdf5(label, f"{folder}/a.h5", name="label", dtype="uint8")
        ...     read_hdf5(f"{folder}/a.h5", name="label").data.dtype
        torch.uint8
    """
    check.kind("volume", volume, Volume, "a Volume")
    if dtype is not None:
        check.one_of("dtype", dtype, get_args(Hdf5Dtype))
    group, _, last = name.strip("/").rpartition("/")
    if not last:
        raise check.fail("name", "the path of an array", repr(name))
    chunks = None
    if chunk is not None:
        edge = check.integer("chunk", chunk, minimum=1)
        chunks = (1, *(min(edge, size) for size in volume.spatial_shape))
    laid = Laid(
        _array(volume.data, dtype, volume),
        geometry_attributes(volume),
        chunks,
        checksum and bool(chunks),
    )
    write_groups(path, [Written(group, {}, {last: laid})], checked=True)


def array_name(arrays: Mapping[str, Stored], name: str | None, path: str) -> str:
    """Return the path of the array that is meant."""
    known = sorted(name for name, stored in arrays.items() if stored.dtype.kind in "biufc")
    if name is None and len(known) == 1:
        return known[0]
    if name is None or name.strip("/") not in arrays:
        listed = ", ".join(known[:20]) or "none at all"
        raise FormatError(
            f"one of its arrays ({listed})",
            path=path,
            field="name",
            value=name,
            remedy="Pass name=... to read one of them.",
        )
    return name.strip("/")


def geometry(file: Hdf5File, name: str) -> tuple[Array | None, Array | None]:
    """Return affine and spacing of an array, as far as its attributes hold them."""
    affine = file.numbers(name, _AFFINE, max_items=16)
    return affine, file.numbers(name, _SPACING, max_items=16)


def _array(data: Tensor, dtype: str | None, volume: Volume) -> Array:
    known = data.dtype in _HELD_AS_IT_IS and dtype is None
    array = data.detach().cpu().numpy() if known else plain_array(data)
    return exact(array, dtype, volume)


def geometry_attributes(volume: Volume) -> Mapping[str, Array]:
    """Return the attributes that say where the voxels of an array are."""
    spacing = np.array(affine_spacing(volume.affine))
    if not is_oriented(volume.affine_xyz, volume.warnings):
        return {_SPACING: spacing}
    return {_AFFINE: volume.affine, _SPACING: spacing}
