"""NumPy's .npy and .npz files, read without pickle, checked before anything is allocated."""

import errno
import math
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from medkit._core import check
from medkit._core.atomic import atomic_file
from medkit._core.file_errors import (
    ChecksumError,
    CodecMissingError,
    DataError,
    FormatError,
    LimitError,
    TruncatedError,
)

from ._adapters import plain_array
from ._array_shape import channels_first, check_shape
from ._limits import Limits
from ._npy_header import NpyHeader, npy_header_length, parse_npy_header
from ._orientation import is_oriented, placed
from ._payload import check_payload, read_payload
from ._source import ByteSource, open_source
from ._stored import tensor_dtype, to_tensor
from ._volume import Volume

NPZ_MAGIC = b"PK\x03\x04"

_AFFINE, _SPACING = "affine", "spacing"
_BLOCK = 1 << 20
_DEFLATE_RATIO = 1032
_MOST_ARRAYS = 100_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_END_BYTES = 22  # of the last record, before the comment
_COUNT_ELSEWHERE = 0xFFFF  # of a ZIP64 archive
_WRECKED = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    OverflowError, KeyError, UnicodeError,
)  # fmt: skip
"""What the standard library raises on a damaged archive."""


def read_npy(
    path: str | os.PathLike[str], *, limits: Limits | None = None, verify: bool = True
) -> Volume:
    """Read a .npy file as a volume of unknown place, exactly or not at all.

    An array of two axes is (H, W), of three (D, H, W), of four (C, D, H, W). The format holds no
    geometry: spacing is 1 mm, and the volume carries the notice ``"no_orientation"``. Nothing is
    unpickled and the header is parsed, not evaluated.

    Args:
        path: The file, perhaps in gzip.
        limits: Largest size to accept; None means ``Limits()``.
        verify: Check that the file ends after the last voxel, and the checksum of gzip; .npy itself
            has none.

    Returns:
        The volume, of the stored dtype; uint16 becomes int32, uint32 and uint64 become int64.

    Raises:
        DataError: If the file does not hold what it declares, or holds Python objects.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.zeros((2, 3, 4), np.int16))
        ...     read_npy(f"{folder}/a.npy")
        Volume(1x2x3x4 int16, 1x1x1 mm, SAR, ...a.npy)
    """
    with open_source(path, verify=verify) as source:
        array = _read_array(source, limits or Limits(), volume=True)
        if verify:
            source.finish()
    return placed(_channels(array, source.path, "array"), source.path, None, None)


def read_npz(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    limits: Limits | None = None,
    verify: bool = True,
) -> Volume:
    """Read one array of a .npz file as a volume, exactly or not at all.

    As :func:`read_npy`, but the archive may hold more: an array ``affine`` is the matrix from
    (d, h, w) to RAS+ mm, an array ``spacing`` the mm between voxels along d, h and w, as
    :func:`write_npz` stores them.

    Args:
        path: The file.
        name: Name of the array; None takes the only one besides ``affine`` and ``spacing``.
        limits: Largest size to accept; None means ``Limits()``.
        verify: The CRC-32 of each array is checked in any case.

    Returns:
        The volume, of the stored dtype; uint16 becomes int32, uint32 and uint64 become int64.

    Raises:
        DataError: If the file does not hold what it declares, or has several arrays and no name was
            given.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/a.npz", image=np.zeros((2, 3, 4)), spacing=[3.0, 1.0, 1.0])
        ...     read_npz(f"{folder}/a.npz").spacing
        (3.0, 1.0, 1.0)
    """
    del verify  # zipfile checks every CRC
    limits = limits or Limits()
    source = os.fspath(path)
    with _opened(source) as archive:
        names = _array_names(archive, source)
        member = _member(names, name, source)
        data = _channels(_read_member(archive, names[member], source, limits), source, member)
        geometry = [
            _read_member(archive, names[key], source, limits, volume=False)
            if key in names
            else None
            for key in (_AFFINE, _SPACING)
        ]
    return placed(data, source, *geometry)


def write_npz(
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    name: str = "image",
    compress: bool = False,
) -> None:
    """Write a volume with its affine as a .npz file, whole or not at all.

    ``numpy.load`` gives the arrays ``image`` (C, D, H, W), ``affine`` and ``spacing`` in the order
    of its axes (d, h, w); a volume of unknown orientation has ``spacing`` alone.

    Args:
        volume: What to write; bfloat16 becomes float32.
        path: Where to; an existing file is replaced at the end.
        name: Name of the array.
        compress: Deflate the arrays; reading is then ten times slower.

    Raises:
        TypeError: If ``volume`` is not one.
        ValueError: If ``name`` is that of the geometry, or empty.
        OSError: If the file cannot be written; an older file of that name is then untouched.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_npz(Volume(torch.zeros(1, 2, 3, 4), np.eye(4)), f"{folder}/a.npz")
        ...     sorted(np.load(f"{folder}/a.npz"))
        ['affine', 'image', 'spacing']
    """
    check.kind("volume", volume, Volume, "a Volume")
    if not name or name in (_AFFINE, _SPACING, "file"):
        raise check.fail("name", "one that is not taken by the geometry", repr(name))
    arrays = {name: plain_array(volume.data), _SPACING: np.array(volume.spacing)}
    if is_oriented(volume.affine_xyz, volume.warnings):
        arrays[_AFFINE] = volume.affine
    with atomic_file(path) as file:
        (np.savez_compressed if compress else np.savez)(file, **arrays)  # pyright: ignore[reportArgumentType]  names are not known before


def _read_array(source: ByteSource, limits: Limits, *, volume: bool) -> np.ndarray:
    """Return the array of a .npy file, in C order and of the stored type."""
    header, stop = read_npy_header(source)
    if volume:
        check_shape(header.shape, source.path, "array")
    _check_size(header, source.capacity() - stop, source.path, limits)
    raw = read_payload(source, header.nbytes)
    order = "F" if header.fortran_order else "C"
    return np.ascontiguousarray(raw.view(header.dtype).reshape(header.shape, order=order))


def read_npy_header(source: ByteSource) -> tuple[NpyHeader, int]:
    """Return the header at the start of a file, and where the array begins."""
    start, stop = npy_header_length(source.peek(12), source.path)
    preamble = np.empty(stop, np.uint8)
    if source.fill(preamble.data) < stop:
        raise TruncatedError(
            f"{stop} bytes", path=source.path, field="npy header", value="the end of the file"
        )
    return parse_npy_header(preamble[start:].tobytes(), source.path), stop


def _check_size(header: NpyHeader, capacity: int, path: str, limits: Limits) -> None:
    wider = tensor_dtype(header.dtype).itemsize
    check_payload(header.nbytes, capacity, path, limits, f"shape {header.shape}, {header.dtype}")
    grown = math.prod(header.shape) * wider
    check_payload(grown, grown, path, limits, f"shape {header.shape}, {header.dtype} widened")


@runtime_checkable
class Readable(Protocol):
    """What ``ZipFile.open`` returns, as far as it is used."""

    def read(self, count: int, /) -> bytes: ...


class _Member:
    """An array inside of an archive, read forwards."""

    def __init__(self, file: Readable, path: str, size: int) -> None:
        self.path = path
        self._file = file
        self._size = size
        self._head = b""

    def capacity(self) -> int:
        """Size that the archive states and that its own size allows."""
        return self._size

    def peek(self, count: int) -> bytes:
        """Return the first bytes and keep them for ``fill``."""
        self._head = self._file.read(count)
        return self._head

    def fill(self, view: memoryview) -> int:
        """Fill ``view`` as far as the member goes."""
        done = min(len(self._head), len(view))
        view[:done] = self._head[:done]
        self._head = self._head[done:]
        while done < len(view):
            block = self._file.read(min(_BLOCK, len(view) - done))
            if not block:
                break
            view[done : done + len(block)] = block
            done += len(block)
        return done

    def finish(self) -> None:
        """Raise unless the member ends here; its CRC is then checked too."""
        if self._head or self._file.read(1):
            raise FormatError(
                "the end of the array", path=self.path, field="the last voxel", value="more bytes"
            )


@contextmanager
def _opened(path: str) -> Generator[zipfile.ZipFile]:
    with Path(path).open("rb") as file, _named_damage(path), zipfile.ZipFile(file) as archive:
        yield archive


@contextmanager
def _named_damage(path: str) -> Generator[None]:
    try:
        yield
    except DataError:
        raise
    except (*_WRECKED, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # the disk's; a forged offset is an invalid argument
        kind = ChecksumError if "CRC" in str(error) else FormatError
        raise kind(
            "a whole .npz archive",
            path=path,
            field="file",
            value=f"damage ({error})",
            remedy="The file was damaged after it was written; copy or download it again.",
        ) from error


def _array_names(archive: zipfile.ZipFile, path: str) -> dict[str, zipfile.ZipInfo]:
    """Return the members that are arrays, by the names that NumPy gives them."""
    members = archive.infolist()
    _check_directory(archive, members, path)
    if len(members) > _MOST_ARRAYS:
        raise LimitError(f"at most {_MOST_ARRAYS}", path=path, field="arrays", value=len(members))
    names = [member.filename.removesuffix(".npy") for member in members]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise FormatError("different", path=path, field="names of arrays", value=twice[:9])
    return dict(zip(names, members, strict=True))


def _check_directory(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], path: str) -> None:
    """Raise if an entry hides another, which zipfile does not notice: geometry would be lost."""
    file = archive.fp
    if file is None or not members:
        return
    file.seek(-_END_BYTES - len(archive.comment), os.SEEK_END)
    declared = int.from_bytes(file.read(_END_BYTES)[10:12], "little")
    if declared not in (len(members), _COUNT_ELSEWHERE):
        raise FormatError(f"{declared}", path=path, field="number of arrays", value=len(members))
    for member in members:
        if member.compress_type in _METHODS:
            archive.open(member).close()  # compares its name with that before the data


def _member(names: dict[str, zipfile.ZipInfo], name: str | None, path: str) -> str:
    known = sorted(set(names) - {_AFFINE, _SPACING})
    if name is None and len(known) == 1:
        return known[0]
    if name is None or name not in names:
        raise FormatError(
            f"one of its arrays ({', '.join(known[:20]) or 'none at all'})",
            path=path,
            field="name",
            value=name,
            remedy="Pass name=... to read one of them.",
        )
    return name


def _read_member(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    path: str,
    limits: Limits,
    *,
    volume: bool = True,
) -> np.ndarray:
    """Return one array of the archive, its declared sizes checked before it is inflated."""
    if member.compress_type not in _METHODS:
        raise CodecMissingError(
            "stored or deflated",
            path=path,
            field=member.filename,
            value=f"compressed by method {member.compress_type}",
        )
    size = min(member.file_size, member.compress_size * _DEFLATE_RATIO)
    with archive.open(member) as file:
        source = _Member(file, f"{path}: {member.filename}", size)
        array = _read_array(source, limits, volume=volume)
        source.finish()
    return array


def _channels(array: np.ndarray, path: str, name: str) -> Tensor:
    return channels_first(to_tensor(array, path), path, name)
