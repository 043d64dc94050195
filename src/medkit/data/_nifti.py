"""NIfTI-1 and NIfTI-2 files, read and written with numpy and zlib alone."""

import os
from collections.abc import Iterator
from functools import partial
from io import FileIO
from typing import Literal, get_args

import numpy as np
import torch

from medkit._core import check
from medkit._core.atomic import atomic_file
from medkit._core.chunk_map import one_chunk
from medkit._core.file_errors import LimitError, TruncatedError
from medkit.ops import affine_spacing, permute_affine

from ._adapters import plain_array
from ._file_state import file_state
from ._gzip import write_gzip
from ._limits import Limits
from ._mapped import MappedFile
from ._nifti_geometry import nifti_affine, quaternion_parts
from ._nifti_header import (
    HEADER_BYTES,
    NiftiHeader,
    build_header,
    parse_header,
)
from ._nifti_scale import decode, decode_values, result_dtype, scaling, tensor_shape
from ._orientation import is_oriented
from ._payload import allocate, cut
from ._plain_regions import Layout
from ._source import ByteSource, PlainSource, open_source
from ._stored import exact
from ._volume import Volume

NiftiDtype = Literal[
    "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float32", "float64", "complex64", "complex128",
]  # fmt: skip

_LARGEST_NIFTI1 = 32767
_SKIP = 1 << 20
_WRITE = 1 << 24


def read_nifti(
    path: str | os.PathLike[str], *, limits: Limits | None = None, verify: bool = True
) -> Volume:
    """Read a NIfTI-1 or NIfTI-2 file, compressed or not, exactly or not at all.

    The voxels are as stored, with slope and intercept applied by the standard; the array keeps the
    order of the file, (C, D, H, W) with w fastest, and a fourth axis or RGB becomes channels. The
    affine is the sform if its code is positive, else the qform, else spacing alone with the notice
    ``"no_orientation"``; it is in mm whatever unit the header states. Extensions are skipped.

    Dtypes: as stored, but uint16 becomes int32 and uint32 and uint64 become int64, because torch
    computes with those in part only. Integers scaled by whole numbers stay integers; other scaled
    voxels become float32 (from 8 or 16 bits) or float64. float128 and 1-bit voxels are refused.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file; content decides, not the name.
        limits: Largest sizes to accept; None means ``Limits()``.
        verify: Check the gzip checksums and that the file ends after the last voxel. False reads
            what the header declares without these checks: **a damaged file can then give wrong
            voxels.**

    Returns:
        The voxels and the affine; ``warnings`` lists what had to be resolved by a rule.

    Raises:
        DataError: If the file does not hold what it declares: ``FormatError``, ``TruncatedError``,
            ``ChecksumError``, ``LimitError`` or ``GeometryError``.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> v = Volume(torch.arange(24).reshape(1, 2, 3, 4), np.diag([3.0, 2.0, 1.0, 1.0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_nifti(v, f"{folder}/a.nii.gz")
        ...     read_nifti(f"{folder}/a.nii.gz").data[0, 1, 2].tolist()
        [20, 21, 22, 23]

    References:
        R. W. Cox et al., "A (sort of) new image data format standard: NIfTI-1", Human Brain
        Mapping Conference, 2004; nifti1.h and nifti2.h, https://nifti.nimh.nih.gov.
    """
    limits = limits or Limits()
    with open_source(path, verify=verify) as source:
        head = source.peek(HEADER_BYTES)
        header = parse_header(head, source.path)
        slope, inter, scale_notices = scaling(header, source.path)
        affine, notices = nifti_affine(header, source.path)
        shape = tensor_shape(header, source.path)
        result = shape[0] * shape[1] * shape[2] * shape[3]
        result *= result_dtype(header.dtype, slope, inter).itemsize
        _check_sizes(header, result, source, limits)
        raw = _payload(header, source)
        if verify:
            source.finish()
    data = decode(raw, header, slope, inter, source.path)
    return Volume(data, permute_affine(affine, (2, 1, 0)), source.path, notices + scale_notices)


def lay_out_nifti(path: str, limits: Limits) -> Layout:
    """Return where the voxels of an uncompressed file are, checked as when they are read."""
    state = file_state(path)
    with FileIO(path, "r") as file:
        source = PlainSource(file, path)
        header = parse_header(source.peek(HEADER_BYTES), path)
        slope, inter, scale_notices = scaling(header, path)
        affine, notices = nifti_affine(header, path)
        shape = tensor_shape(header, path)
        whole = Limits(max_bytes=header.payload, max_header_bytes=limits.max_header_bytes)
        _check_sizes(header, header.payload, source, whole)
        file.seek(header.vox_offset + header.payload)
        source.finish()
    voxel = torch.zeros(1, 1, 1, 1)
    like = Volume(voxel, permute_affine(affine, (2, 1, 0)), path, notices + scale_notices)
    stored = header.dtype
    mapped = MappedFile(path, state)
    if stored.shape:  # the colours of a voxel follow each other
        array = one_chunk((*shape[1:], shape[0]), stored.base, header.vox_offset)
        return Layout(mapped, array, (3, 0, 1, 2), like)
    decode = partial(decode_values, slope=slope, inter=inter, path=path)
    itemsize = result_dtype(stored, slope, inter).itemsize
    array = one_chunk(shape, stored, header.vox_offset)
    return Layout(mapped, array, (0, 1, 2, 3), like, decode, itemsize)


def write_nifti(
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    dtype: NiftiDtype | None = None,
    version: Literal[1, 2] | None = None,
    compression_level: int = 1,
) -> None:
    """Write a NIfTI file that other programs read back identically, whole or not at all.

    Voxels keep dtype and value and are not scaled; bool is stored as uint8, float16 and bfloat16
    as float32. Channels become the fourth axis. sform and qform hold the same affine, both with
    code 1; a sheared affine, which a qform cannot hold, has sform only. A volume that was read with
    the notice ``"no_orientation"`` and still lies where it was keeps both codes 0, so that the
    notice comes back. The same volume gives the same bytes. The file appears under its name only
    when it is complete and on the disk.

    Args:
        volume: What to write.
        path: A name that ends in ``.nii`` or, to compress, ``.nii.gz``.
        dtype: Stored type, e.g. ``"uint8"`` for small labels; None keeps the
            volume's, be it int64, which many programs cannot open. Values that do not survive the
            conversion are an error.
        version: 1 stores the affine in float32, 2 in float64; None takes 1 unless an axis is
            longer than 32767.
        compression_level: From 0 (stored) to 9 (smallest), for ``.nii.gz``.

    Raises:
        TypeError: If ``volume`` is not one.
        ValueError: If the name ends otherwise, or the voxels do not fit dtype or version.
        OSError: If the file cannot be written; an older file of that name is then untouched.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> label = Volume(torch.ones(1, 4, 4, 4, dtype=torch.int64), np.eye(4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_nifti(label, f"{folder}/label.nii.gz", dtype="uint8")
        ...     read_nifti(f"{folder}/label.nii.gz")
        Volume(1x4x4x4 uint8, 1x1x1 mm, RAS, ...label.nii.gz)
    """
    check.kind("volume", volume, Volume, "a Volume")
    name = os.fspath(path)
    if not name.endswith((".nii", ".nii.gz")):
        raise check.fail("path", "a name that ends in .nii or .nii.gz", repr(name))
    if not 0 <= check.integer("compression_level", compression_level) <= 9:
        raise check.fail("compression_level", "from 0 to 9", compression_level)
    array = _stored(volume, dtype)
    head = _header_for(volume, array.dtype, version)
    content = array.reshape(-1).view(np.uint8).data
    with atomic_file(name) as file:
        if name.endswith(".gz"):
            write_gzip(file, iter([memoryview(head), content]), level=compression_level)
        else:
            file.write(head)
            for block in _blocks(content):
                file.write(block)


def _check_sizes(header: NiftiHeader, result: int, source: ByteSource, limits: Limits) -> None:
    """Raise if the declared sizes exceed the limits or what the file can hold."""
    biggest = max(header.payload, result)
    if biggest > limits.max_bytes:
        raise LimitError(
            f"at most {limits.max_bytes} bytes",
            path=source.path,
            field="size of the voxels",
            value=f"{biggest} (dim {header.shape}, {header.dtype})",
            remedy="Pass limits=Limits(max_bytes=...) if you trust the file.",
        )
    capacity = source.capacity()
    if header.vox_offset + header.payload > capacity:
        raise TruncatedError(
            f"at most {capacity} bytes, all that the file can hold",
            path=source.path,
            field="end of the voxels",
            value=header.vox_offset + header.payload,
            remedy="The file is cut short or its header is wrong.",
        )
    if header.vox_offset > limits.max_header_bytes:
        raise LimitError(
            f"at most {limits.max_header_bytes} bytes",
            path=source.path,
            field="vox_offset",
            value=header.vox_offset,
            remedy="Pass limits=Limits(max_header_bytes=...) if you trust the file.",
        )


def _payload(header: NiftiHeader, source: ByteSource) -> np.ndarray:
    """Read the bytes of the voxels into one array of just their size."""
    raw = allocate(header.payload, source.path)
    scratch = bytearray(min(_SKIP, header.vox_offset))
    left = header.vox_offset
    while left:
        got = source.fill(memoryview(scratch)[: min(len(scratch), left)])
        if not got:
            break
        left -= got
    got = source.fill(raw.data) if not left else 0
    if got < header.payload:
        raise cut(source.path, header.payload, got)
    return raw


def _stored(volume: Volume, dtype: NiftiDtype | None) -> np.ndarray:
    """Return the voxels as a contiguous little-endian array of the type to store."""
    if dtype is not None:
        check.one_of("dtype", dtype, get_args(NiftiDtype))
    return exact(plain_array(volume.data), dtype, volume)


def _header_for(
    volume: Volume, dtype: np.dtype[np.generic], version: Literal[1, 2] | None
) -> bytes:
    channels, d, h, w = volume.shape
    shape = (w, h, d) if channels == 1 else (w, h, d, channels)
    if version is None:
        version = 1 if max(shape) <= _LARGEST_NIFTI1 else 2
    check.one_of("version", version, (1, 2))
    if version == 1 and max(shape) > _LARGEST_NIFTI1:
        raise check.fail("version", f"2 for an axis longer than {_LARGEST_NIFTI1}", version)
    affine = volume.affine_xyz
    qfac, quatern = quaternion_parts(affine, shape)
    return build_header(
        version=version,
        shape=shape,
        dtype=dtype,
        affine_xyz=affine,
        spacing_xyz=affine_spacing(affine),
        qfac=qfac,
        quatern=quatern,
        oriented=is_oriented(affine, volume.warnings),
    )


def _blocks(content: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(content), _WRITE):
        yield content[start : start + _WRITE]
