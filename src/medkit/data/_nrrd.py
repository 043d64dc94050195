"""NRRD files, .nrrd and .nhdr with a data file, read exactly or refused, and written."""

import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import torch

from medkit._core import check
from medkit._core.atomic import atomic_file
from medkit.ops import permute_affine

from ._adapters import plain_array
from ._detached import beside, write_beside
from ._gzip import write_gzip
from ._limits import Limits
from ._nrrd_geometry import nrrd_place
from ._nrrd_header import NrrdHeader
from ._orientation import is_oriented, placed
from ._plain_regions import Layout
from ._raw_voxels import Encoding, RawVoxels, locate_voxels, read_voxels
from ._stored import exact
from ._volume import Volume

_ENCODINGS: dict[str, Encoding] = {
    "raw": "raw", "gzip": "gzip", "gz": "gzip", "ascii": "text", "text": "text", "txt": "text",
    "bzip2": "bzip2", "bz2": "bzip2", "hex": "hex",
}  # fmt: skip
_NAMES = {
    "i1": ("int8", "signed char", "int8_t"),
    "u1": ("uint8", "uchar", "unsigned char", "uint8_t"),
    "i2": ("int16", "short", "short int", "signed short", "signed short int", "int16_t"),
    "u2": ("uint16", "ushort", "unsigned short", "unsigned short int", "uint16_t"),
    "i4": ("int32", "int", "signed int", "int32_t"),
    "u4": ("uint32", "uint", "unsigned int", "uint32_t"),
    "i8": (
        "int64", "longlong", "long long", "long long int", "signed long long",
        "signed long long int", "int64_t",
    ),
    "u8": (
        "uint64", "ulonglong", "unsigned long long", "unsigned long long int", "uint64_t",
    ),
    "f4": ("float",),
    "f8": ("double",),
}  # fmt: skip
_TYPES = {name: code for code, names in _NAMES.items() for name in names}
_FARTHEST = 2**40


def read_nrrd(
    path: str | os.PathLike[str], *, limits: Limits | None = None, verify: bool = True
) -> Volume:
    """Read an NRRD file (.nrrd, or .nhdr with its data file), exactly or not at all.

    Space directions and origin become an affine to RAS+ mm, whatever anatomical space the file
    names; one that names none has its spacing and the notice ``"no_orientation"``. An axis without
    direction becomes the channels, wherever it stands. Encodings raw, gzip, bzip2, text and
    hex are read. A data file must be in the folder of its header or below.

    Args:
        path: The file that begins with the header.
        limits: Largest size to accept; None means ``Limits()``.
        verify: Check that the file ends after the last voxel, and the checksum of gzip. Raw voxels
            have no checksum in this format.

    Returns:
        The volume, of the stored dtype; uint16 becomes int32, uint32 and uint64 become int64.

    Raises:
        DataError: If the file does not hold what it declares, or names data elsewhere.
        OSError: If a file cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> v = Volume(torch.zeros(1, 2, 3, 4), np.diag([3.0, 2.0, 1.0, 1.0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_nrrd(v, f"{folder}/a.nrrd")
        ...     read_nrrd(f"{folder}/a.nrrd")
        Volume(1x2x3x4 float32, 3x2x1 mm, RAS, ...a.nrrd)

    References:
        G. Kindlmann, "Definition of NRRD file format", https://teem.sourceforge.net/nrrd.
    """
    header = NrrdHeader(os.fspath(path))
    sizes = header.sizes()
    place = nrrd_place(header, len(sizes))
    data = read_voxels(_voxels(header, sizes), limits or Limits(), verify=verify)
    if place.channel_axis is None:
        data = data[None]
    else:
        data = data.movedim(data.ndim - 1 - place.channel_axis, 0)
    data = data[:, None] if data.ndim == 3 else data
    v = placed(data, header.path, permute_affine(place.affine, (2, 1, 0)), None)
    return Volume(v.data, v.affine, v.source, place.notices)


def lay_out_nrrd(path: str) -> Layout | None:
    """Return where raw voxels are, checked as when they are read, or None if they are not raw."""
    header = NrrdHeader(path)
    sizes = header.sizes()
    place = nrrd_place(header, len(sizes))
    found = locate_voxels(_voxels(header, sizes))
    if found is None:
        return None
    channel = None if place.channel_axis is None else len(sizes) - 1 - place.channel_axis
    rest = [axis for axis in range(len(sizes)) if axis != channel]
    axes = (channel, *(None,) * (3 - len(rest)), *rest)
    v = placed(torch.zeros(1, 1, 1, 1), path, permute_affine(place.affine, (2, 1, 0)), None)
    return Layout(*found, axes, Volume(v.data, v.affine, v.source, place.notices))


def nrrd_data_file(path: str) -> str:
    """Return the file that holds the voxels, which may be the header's."""
    header = NrrdHeader(path)
    return _voxels(header, header.sizes()).path


def write_nrrd(volume: Volume, path: str | os.PathLike[str], *, compress: bool = True) -> None:
    """Write an NRRD file that ITK, 3D Slicer and pynrrd read identically, whole or not at all.

    Several channels become the fastest axis, as those programs expect. A sheared affine is kept. A
    path that ends in ``.nhdr`` gets the header alone; the voxels go into a file ``.raw`` or
    ``.raw.gz`` of the same name beside it.

    Args:
        volume: What to write; bool is stored as uint8, float16 and bfloat16 as float32.
        path: Where to; an existing file is replaced at the end.
        compress: Store the voxels in gzip, which puts a checksum on them.

    Raises:
        TypeError: If ``volume`` is not one.
        ValueError: If the voxels are complex.
        OSError: If the file cannot be written; an older file of that name is then untouched.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_nrrd(Volume(torch.ones(2, 2, 3, 4), np.eye(4)), f"{folder}/a.nrrd")
        ...     read_nrrd(f"{folder}/a.nrrd").shape
        (2, 2, 3, 4)
    """
    check.kind("volume", volume, Volume, "a Volume")
    array = exact(plain_array(volume.data), None, volume)
    if array.dtype.str[1:] not in _NAMES:
        raise check.fail("data", "of real numbers for .nrrd", str(array.dtype))
    several = array.shape[0] > 1
    array = np.ascontiguousarray(np.moveaxis(array, 0, -1)) if several else array[0]
    lines = list(_fields(volume, array, several=several, compress=compress))
    content = array.reshape(-1).view(np.uint8).data

    def write(file: BinaryIO) -> None:
        if compress:
            write_gzip(file, iter([content]), level=1)
        else:
            file.write(content)

    def head(name: str) -> bytes:
        return "\n".join([*lines, *([f"data file: {name}"] * bool(name)), "", ""]).encode()

    if os.fspath(path).endswith(".nhdr"):
        write_beside(path, ".raw.gz" if compress else ".raw", write, head)
        return
    with atomic_file(path) as file:
        file.write(head(""))
        write(file)


def _fields(volume: Volume, array: np.ndarray, *, several: bool, compress: bool) -> Iterator[str]:
    """Yield the lines of the header."""
    affine = volume.affine_lps
    yield "NRRD0004"
    yield f"type: {_NAMES[array.dtype.str[1:]][0]}"
    yield f"dimension: {array.ndim}"
    yield f"sizes: {' '.join(map(str, reversed(array.shape)))}"
    if is_oriented(volume.affine_xyz, volume.warnings):
        yield "space: left-posterior-superior"
        vectors = [_vector(affine[:3, axis]) for axis in range(3)]
        yield f"space directions: {' '.join(['none'] * several + vectors)}"
        yield f"space origin: {_vector(affine[:3, 3])}"
    else:
        spacings = [repr(float(length)) for length in reversed(volume.spacing)]
        yield f"spacings: {' '.join(['nan'] * several + spacings)}"
    yield f"kinds: {' '.join(['vector'] * several + ['domain'] * 3)}"
    yield "endian: little"
    yield f"encoding: {'gzip' if compress else 'raw'}"


def _vector(values: np.ndarray) -> str:
    return f"({','.join(repr(float(value)) for value in values)})"


def _voxels(header: NrrdHeader, sizes: tuple[int, ...]) -> RawVoxels:
    """Return where the voxels are and how they are stored."""
    name = header.text("data file", "")
    if name and (name.split()[0] == "LIST" or "%" in name):
        raise header.wrong("data file", "one file", name[:80])
    encoding = header.text("encoding").lower()
    if encoding not in _ENCODINGS:
        raise header.wrong("encoding", "raw, gzip, bzip2, text or hex", encoding[:80])
    kind = header.text("type").lower()
    if kind not in _TYPES:
        raise header.wrong("type", "a type of numbers", kind[:80])
    dtype = np.dtype(_TYPES[kind])
    if dtype.itemsize > 1 and _ENCODINGS[encoding] != "text":
        endian = header.text("endian").lower()
        if endian not in ("little", "big"):
            raise header.wrong("endian", "little or big", endian[:80])
        dtype = dtype.newbyteorder(">" if endian == "big" else "<")
    least = -1 if encoding == "raw" else 0
    return RawVoxels(
        path=beside(header.path, name) if name else header.path,
        offset=0 if name else header.end,
        sizes=sizes,
        dtype=dtype,
        encoding=_ENCODINGS[encoding],
        skip=header.whole("byte skip", 0, least, _FARTHEST),
        line_skip=header.whole("line skip", 0, 0, 1000),
    )
