"""MetaImage files, .mha and .mhd with .raw or .zraw: what ITK writes, read exactly or refused."""

import os
import re
import zlib
from io import FileIO

import numpy as np
import torch

from medkit._core import check
from medkit._core.atomic import atomic_file
from medkit._core.file_errors import FormatError, GeometryError, TruncatedError
from medkit.ops import affine_shear, affine_spacing, permute_affine, ras_to_lps

from ._adapters import plain_array
from ._detached import beside, write_beside
from ._limits import Limits
from ._orientation import placed
from ._plain_regions import Layout
from ._raw_voxels import RawVoxels, locate_voxels, read_voxels
from ._stored import exact
from ._volume import Volume

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_NAMES = {code: name for name, code in _TYPES.items() if "LONG" not in name or "LONG_LONG" in name}
_MAGIC = re.compile(rb"\s*(ObjectType|ObjectSubType|NDims|Comment)\s*=")
_LARGEST_HEADER = 1 << 16
_LARGEST_SHEAR = 1e-6
_MOST_CHANNELS = 1 << 16


def is_mha(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a MetaImage header."""
    return _MAGIC.match(head) is not None


def read_mha(
    path: str | os.PathLike[str], *, limits: Limits | None = None, verify: bool = True
) -> Volume:
    """Read a MetaImage file (.mha, or .mhd with its data file), exactly or not at all.

    Offset, spacing and directions are in LPS mm, as ITK has them, and become an affine to RAS+;
    channels come first; a fourth axis, as of time, becomes the channels. A data file must be in the
    folder of its header or below.

    Args:
        path: The file that begins with the header.
        limits: Largest size to accept; None means ``Limits()``.
        verify: Check that the file ends after the last voxel, and the checksum of compressed ones.
            Raw voxels have no checksum in this format.

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
        ...     write_mha(v, f"{folder}/a.mha")
        ...     read_mha(f"{folder}/a.mha")
        Volume(1x2x3x4 float32, 3x2x1 mm, RAS, ...a.mha)
    """
    source = os.fspath(path)
    header = _Header(source)
    sizes = header.sizes()
    channels = header.channels(sizes)
    affine = header.affine(len(sizes))
    data = read_voxels(header.voxels((channels, *sizes)), limits or Limits(), verify=verify)
    data = data[..., 0] if len(sizes) == 4 else data.movedim(-1, 0)
    data = data[:, None] if data.ndim == 3 else data
    return placed(data, source, permute_affine(ras_to_lps(affine), (2, 1, 0)), None)


def lay_out_mha(path: str) -> Layout | None:
    """Return where raw voxels are, checked as when they are read, or None if they are not raw."""
    header = _Header(path)
    sizes = header.sizes()
    channels = header.channels(sizes)
    affine = permute_affine(ras_to_lps(header.affine(len(sizes))), (2, 1, 0))
    found = locate_voxels(header.voxels((channels, *sizes)))
    if found is None:
        return None
    axes = (len(sizes), *(None,) * (3 - len(sizes)), *range(len(sizes)))
    axes = (0, 1, 2, 3) if len(sizes) == 4 else axes
    return Layout(*found, axes, placed(torch.zeros(1, 1, 1, 1), path, affine, None))


def mha_data_file(path: str) -> str:
    """Return the file that holds the voxels, which may be the header's."""
    header = _Header(path)
    return header.voxels(header.sizes()).path


def write_mha(volume: Volume, path: str | os.PathLike[str], *, compress: bool = True) -> None:
    """Write a MetaImage file (.mha) that ITK reads back identically, whole or not at all.

    A path that ends in ``.mhd`` gets the header alone; the voxels go into a file ``.raw`` or
    ``.zraw`` of the same name beside it.

    Args:
        volume: What to write; bool is stored as uint8, float16 and bfloat16 as float32.
        path: Where to; an existing file is replaced at the end.
        compress: Deflate the voxels, which puts a checksum on them.

    Raises:
        TypeError: If ``volume`` is not one.
        GeometryError: If the grid is sheared, which the format cannot represent.
        ValueError: If the voxels are complex.
        OSError: If the file cannot be written; an older file of that name is then untouched.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_mha(Volume(torch.ones(2, 2, 3, 4), np.eye(4)), f"{folder}/a.mha")
        ...     read_mha(f"{folder}/a.mha").shape
        (2, 2, 3, 4)
    """
    check.kind("volume", volume, Volume, "a Volume")
    array = exact(plain_array(volume.data), None, volume)
    if array.dtype.str[1:] not in _NAMES:
        raise check.fail("data", "of real numbers for .mha", str(array.dtype))
    affine = volume.affine_lps
    if affine_shear(affine) > _LARGEST_SHEAR:
        raise GeometryError(
            "at right angles for .mha",
            field="axes of the affine",
            value=f"a shear of {affine_shear(affine):.2g}",
            remedy="Write NIfTI or NRRD, or resample to a straight grid first.",
        )
    content = np.ascontiguousarray(np.moveaxis(array, 0, -1)).tobytes()
    content = zlib.compress(content, 1) if compress else content
    spacing = affine_spacing(affine)
    directions = affine[:3, :3] / np.array(spacing)
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(compress),
        **({"CompressedDataSize": str(len(content))} if compress else {}),
        "TransformMatrix": _numbers(directions.T.ravel()),
        "Offset": _numbers(affine[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": _numbers(np.array(spacing)),
        "DimSize": " ".join(map(str, reversed(volume.spatial_shape))),
        "ElementNumberOfChannels": str(volume.shape[0]),
        "ElementType": _NAMES[array.dtype.str[1:]],
    }

    def head(name: str) -> bytes:
        stated = {**fields, "ElementDataFile": name}
        return "".join(f"{key} = {value}\n" for key, value in stated.items()).encode()

    if os.fspath(path).endswith(".mhd"):
        ending = ".zraw" if compress else ".raw"
        write_beside(path, ending, lambda file: file.write(content), head)
        return
    with atomic_file(path) as file:
        file.write(head("LOCAL"))
        file.write(content)


class _Header:
    """The fields of a header, each checked when it is asked for."""

    def __init__(self, path: str) -> None:
        self._path = path
        with FileIO(path, "r") as file:
            head = file.read(_LARGEST_HEADER)
        self._fields: dict[str, str] = {}
        self._end = 0
        while "ElementDataFile" not in self._fields:
            stop = head.find(b"\n", self._end)
            if stop < 0:
                rule = "a header that ends in ElementDataFile"
                raise TruncatedError(rule, path=path, field="file", value=f"{len(head)} bytes")
            key, equals, value = head[self._end : stop].decode("latin-1").partition("=")
            if not equals or (key.strip() in self._fields and key.strip() != "Comment"):
                raise self._wrong("line of the header", "a new 'key = value'", key[:80])
            self._fields[key.strip()] = value.strip()
            self._end = stop + 1
        kind = self._fields.get("ObjectType", "Image")
        if kind != "Image":
            raise self._wrong("ObjectType", "Image", kind)

    def sizes(self) -> tuple[int, ...]:
        axes = self.whole("NDims", None, 10)
        sizes = self._numbers(("DimSize",), axes)
        if axes not in (2, 3, 4) or sizes is None:
            raise self._wrong("NDims", "2 to 4, with DimSize", axes)
        if not all(size.is_integer() and size >= 1 for size in sizes.tolist()):
            raise self._wrong("DimSize", "whole and positive", sizes.tolist())
        return tuple(int(size) for size in sizes)

    def channels(self, sizes: tuple[int, ...]) -> int:
        """Return the numbers per voxel; with a fourth axis there is one."""
        channels = self.whole("ElementNumberOfChannels", 1, _MOST_CHANNELS)
        if len(sizes) == 4 and channels > 1:
            raise self._wrong("ElementNumberOfChannels", "1 where there are 4 axes", channels)
        return channels

    def whole(self, key: str, default: int | None, largest: int) -> int:
        text = self._fields.get(key, "" if default is None else str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= largest):
            raise self._wrong(key, f"a whole number in 1..{largest}", text[:80])
        return int(text)

    def affine(self, axes: int) -> np.ndarray:
        """Return the matrix from (w, h, d) to LPS mm; a 2-D image lies in the plane z = 0."""
        keys = ("TransformMatrix", "Orientation", "Rotation")
        directions = self._numbers(keys, axes * axes)
        origin = self._numbers(("Offset", "Position", "Origin"), axes)
        spacing = self._numbers(("ElementSpacing", "ElementSize"), axes)
        affine = np.eye(4)
        space = min(axes, 3)
        if directions is not None:
            turn = directions.reshape(axes, axes).T
            if turn[3:, :3].any() or turn[:3, 3:].any():
                raise self._wrong("TransformMatrix", "apart in space and time", turn.tolist())
            affine[:space, :space] = turn[:3, :3]
        if spacing is not None:
            if not (spacing > 0).all():
                raise GeometryError(
                    "positive", path=self._path, field="ElementSpacing", value=spacing.tolist()
                )
            affine[:space, :space] *= spacing[:3]
        if origin is not None:
            affine[:space, 3] = origin[:3]
        return affine

    def voxels(self, sizes: tuple[int, ...]) -> RawVoxels:
        """Return where the voxels are and how they are stored."""
        name = self._fields["ElementDataFile"]
        local = name in ("LOCAL", "Local", "local")
        if not name or name == "LIST" or "%" in name:
            raise self._wrong("ElementDataFile", "LOCAL or one file", repr(name[:80]))
        kind = self._fields.get("ElementType", "")
        if kind not in _TYPES:
            raise self._wrong("ElementType", f"one of {', '.join(_TYPES)}", kind[:80])
        big = self._flag("BinaryDataByteOrderMSB") or self._flag("ElementByteOrderMSB")
        skip = self._fields.get("HeaderSize", "0")
        if not re.fullmatch(r"-1|[0-9]{1,12}", skip) or (local and skip != "0"):
            raise self._wrong("HeaderSize", "-1 or a number of bytes", skip[:80])
        encoding = "raw" if self._flag("BinaryData", default=True) else "text"
        if encoding == "raw" and self._flag("CompressedData"):
            encoding = "zlib"
        return RawVoxels(
            path=self._path if local else beside(self._path, name),
            offset=self._end if local else 0,
            sizes=sizes,
            dtype=np.dtype(_TYPES[kind]).newbyteorder(">" if big else "<"),
            encoding=encoding,
            skip=int(skip),
        )

    def _numbers(self, keys: tuple[str, ...], count: int) -> np.ndarray | None:
        """Return the numbers of the first of ``keys`` that is there."""
        for key in keys:
            if key in self._fields:
                try:
                    values = np.array(self._fields[key].split(), np.float64)
                except ValueError as error:
                    raise self._wrong(key, "numbers", self._fields[key][:80]) from error
                if len(values) != count or not np.isfinite(values).all():
                    raise self._wrong(key, f"{count} finite numbers", self._fields[key][:80])
                return values
        return None

    def _flag(self, key: str, *, default: bool = False) -> bool:
        text = self._fields.get(key, str(default)).lower()
        if text not in ("true", "false", "1", "0"):
            raise self._wrong(key, "True or False", text[:80])
        return text in ("true", "1")

    def _wrong(self, field: str, rule: str, found: object) -> FormatError:
        return FormatError(rule, path=self._path, field=field, value=found)


def _numbers(values: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)
