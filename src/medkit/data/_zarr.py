"""Zarr and OME-Zarr: an array or a level of an image as a volume, whole or by region."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from medkit._core import check
from medkit._core.file_errors import FormatError, GeometryError, UnsafeReferenceError

from ._array_shape import check_shape
from ._limits import Limits
from ._notice import Notice
from ._orientation import placed
from ._payload import check_payload
from ._stored import tensor_dtype, to_tensor
from ._volume import Volume
from ._zarr_array import Json, ZarrArray, read_json, zarr_array

_METADATA = ("zarr.json", ".zarray", ".zgroup")
_MM = {
    "meter": 1000.0, "centimeter": 10.0, "millimeter": 1.0, "micrometer": 1e-3, "nanometer": 1e-6,
    "angstrom": 1e-7, "inch": 25.4,
}  # fmt: skip
_DIRECTIONS = {
    "left-to-right": (1, 0, 0), "right-to-left": (-1, 0, 0),
    "posterior-to-anterior": (0, 1, 0), "anterior-to-posterior": (0, -1, 0),
    "inferior-to-superior": (0, 0, 1), "superior-to-inferior": (0, 0, -1),
}  # fmt: skip


def is_zarr(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds the metadata of Zarr."""
    return any((Path(folder) / name).is_file() for name in _METADATA)


class _Image(NamedTuple):
    """An array, which of its axes are channels and space, and where it lies."""

    array: ZarrArray
    channel: int | None
    space: tuple[int, ...]
    affine: np.ndarray | None
    spacing: np.ndarray | None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        channels = 1 if self.channel is None else self.array.shape[self.channel]
        d, h, w = (1, *(self.array.shape[axis] for axis in self.space))[-3:]
        return channels, d, h, w


@dataclass(frozen=True)
class ZarrRegions:
    """Boxes (c, d, h, w) of an image."""

    image: _Image
    limits: Limits

    def read_box(
        self, start: tuple[int, ...], size: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return a box (c, d, h, w), in another type where one is given."""
        data = self.read(start, size)[0]
        return data if dtype is None else data.to(dtype)

    def read(self, start: tuple[int, ...], size: tuple[int, ...]) -> tuple[Tensor, int]:
        """Return a box, and how many chunks of it are absent."""
        array, channel, space = self.image.array, self.image.channel, self.image.space
        first, extent = [0] * len(array.shape), [1] * len(array.shape)
        axes = [channel, *(None,) * (3 - len(space)), *space]
        for axis, a, n in zip(axes, start, size, strict=True):
            if axis is not None:
                first[axis], extent[axis] = a, n
        wide = math.prod(size) * tensor_dtype(array.dtype).itemsize
        check_payload(wide, wide, array.path, self.limits, f"shape {size}")
        box, absent = array.read(first, extent, self.limits)
        return to_tensor(box.reshape(size), array.path), absent


def read_zarr(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    level: int = 0,
    limits: Limits | None = None,
    verify: bool = True,
) -> Volume:
    """Read an array of Zarr 2 or 3, or a level of an OME-Zarr image, exactly or not at all.

    Of an OME-Zarr image the axes are channels and space as they are typed, time must be a single
    point, and the spacing is the scale of the level in its unit. Where each axis of space states an
    anatomical orientation, scale, orientation and translation make the affine; otherwise directions
    are unknown, and the volume carries the notice ``"no_orientation"``. A plain array is (H, W),
    (D, H, W) or (C, D, H, W), with the attributes ``affine`` and ``spacing`` of :func:`read_hdf5`.

    A chunk that is absent holds the fill value, as the format says; the notice ``"absent_chunks"``
    tells how many are, since a lost file looks the same. Links out of the folder are refused, and
    so are codecs other than blosc, zstd, lz4, zlib, gzip, bz2, lzma and crc32c, and filters.

    Needs numcodecs for blosc, zstd and lz4 (extra ``zarr``).

    Args:
        path: The folder of the image, group or array.
        name: Path of an array inside of a group, e.g. ``"labels/0"``; None takes the image.
        level: Which level of an OME-Zarr image; 0 is the finest.
        limits: Largest sizes to accept; None means ``Limits()``.
        verify: Checksums, of crc32c and some compressors, are checked in any case.

    Returns:
        The volume, of the stored dtype; uint16 becomes int32, uint32 and uint64 become int64.

    Raises:
        DataError: If the folder does not hold what it declares, or leads out of itself.
        ImportError: If a codec needs numcodecs and it is not installed.
        OSError: If a file cannot be opened.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> header = {"zarr_format": 2, "shape": [2, 3], "chunks": [2, 3], "dtype": "|u1",
        ...           "order": "C", "fill_value": 7, "compressor": None, "filters": None}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, ".zarray").write_text(json.dumps(header))
        ...     v = read_zarr(folder)
        >>> v.data.unique().item(), v.warnings[-1].code
        (7, 'absent_chunks')

    References:
        J. Moore et al., "OME-Zarr: a cloud-optimized bioimaging file format", Histochem Cell
        Biol, 2023; https://ngff.openmicroscopy.org.
    """
    del verify  # the codecs check what they can
    limits = limits or Limits()
    image = find_image(os.fspath(path), name, level, limits)
    data, absent = ZarrRegions(image, limits).read((0, 0, 0, 0), image.shape)
    v = placed(data, os.fspath(path), image.affine, image.spacing)
    if not absent:
        return v
    notice = Notice("absent_chunks", f"{absent} chunks are absent and hold the fill value")
    return Volume(v.data, v.affine, v.source, (*v.warnings, notice))


def zarr_place(image: _Image, source: str) -> Volume:
    """Return a volume of one voxel with the place of an image."""
    return placed(torch.zeros(1, 1, 1, 1), source, image.affine, image.spacing)


def find_image(path: str, name: str | None, level: int, limits: Limits) -> _Image:
    """Return the array that is meant, with its place."""
    check.integer("level", level, minimum=0)
    root = str(Path(path).resolve())
    if name is not None:
        return _plain(_inside(root, name, limits))
    array = zarr_array(path, root, limits)
    if array is not None:
        return _plain(array)
    group = read_json(path, "zarr.json", limits)
    if group is not None:
        attributes = _mapping(_mapping(group.get("attributes")).get("ome"))
    elif read_json(path, ".zgroup", limits) is not None:
        attributes = read_json(path, ".zattrs", limits) or {}
    else:
        raise FileNotFoundError(f"{path} holds no array or group of Zarr")
    images = _objects(attributes.get("multiscales"))
    if len(images) != 1:
        raise FormatError(
            "an array or one OME-Zarr image", path=path, field="group",
            value=f"{len(images)} images", remedy="Pass name=, the path of an array in it.",
        )  # fmt: skip
    levels = _objects(images[0].get("datasets"))
    if level >= len(levels):
        raise FormatError(f"below {len(levels)}", path=path, field="level", value=level)
    array = _inside(root, str(levels[level].get("path")), limits)
    return _placed_image(array, images[0], levels[level], path)


def _plain(array: ZarrArray) -> _Image:
    check_shape(array.shape, array.path, "array")
    axes = tuple(range(len(array.shape)))
    affine, spacing = (_numbers(array.attributes.get(key)) for key in ("affine", "spacing"))
    return _Image(array, 0 if len(axes) == 4 else None, axes[-3:], affine, spacing)


def _inside(root: str, name: str, limits: Limits) -> ZarrArray:
    """Return an array of a group; its path must not lead out."""
    folder = (Path(root) / name).resolve() if "\0" not in name else Path("/")
    if Path(name).is_absolute() or not folder.is_relative_to(root):
        raise UnsafeReferenceError(
            "inside the folder", path=root, field="path of the array", value=repr(name[:80])
        )
    array = zarr_array(str(folder), root, limits)
    if array is None:
        raise FormatError("an array", path=root, field=name[:80], value="none")
    return array


def _placed_image(array: ZarrArray, image: Json, level: Json, path: str) -> _Image:
    axes = _axes(image, len(array.shape), path)
    kinds = [axis.get("type") or _kind(axis) for axis in axes]
    space = tuple(n for n, kind in enumerate(kinds) if kind == "space")
    others = [n for n, kind in enumerate(kinds) if kind != "space"]
    channels = [n for n in others if kinds[n] == "channel"]
    singles = [n for n in others if n not in channels]
    if not 2 <= len(space) <= 3 or len(channels) > 1 or any(array.shape[n] > 1 for n in singles):
        raise FormatError(
            "2 or 3 of space, one of channels at most, and one point in time",
            path=path, field="axes", value=f"{kinds} of {array.shape}",
        )  # fmt: skip
    if tuple(sorted(channels)) + space != tuple(sorted((*channels, *space))):
        raise FormatError("channels before space", path=path, field="axes", value=kinds)
    scale, shift = _transformed(image, level, len(axes), path)
    units = [_MM.get(str(axes[n].get("unit"))) for n in space]
    channel = channels[0] if channels else None
    if scale is None or any(unit is None for unit in units):
        return _Image(array, channel, space, None, None)
    mm = np.array(units, np.float64)
    lengths, origin = scale[list(space)] * mm, shift[list(space)] * mm
    columns = [_direction(axes[n], path) for n in space]
    affine = None
    if len(space) == 3 and all(column is not None for column in columns):
        directions = np.array(columns, np.float64).T
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = directions * lengths, directions @ origin
    spacing = np.array([1.0, *lengths.tolist()][-3:])
    return _Image(array, channel, space, affine, spacing)


def _axes(image: Json, count: int, path: str) -> list[Json]:
    listed = image.get("axes", [{"name": name} for name in "tczyx"[-count:]])
    entries = cast("list[object]", listed) if isinstance(listed, list) else []
    axes = [{"name": each} if isinstance(each, str) else _mapping(each) for each in entries]
    if len(axes) != count:
        raise FormatError(f"{count} of them", path=path, field="axes", value=len(axes))
    return axes


def _kind(axis: Json) -> str:
    name = axis.get("name")
    return {"c": "channel", "t": "time"}.get(str(name), "space")


def _transformed(
    image: Json, level: Json, count: int, path: str
) -> tuple[np.ndarray | None, np.ndarray]:
    """Return scale and translation of a level, those of all levels applied after its own."""
    scale, shift, stated = np.ones(count), np.zeros(count), False
    for holder in (level, image):
        for each in _objects(holder.get("coordinateTransformations")):
            kind = each.get("type")
            if kind == "identity":
                continue
            numbers = _numbers(each.get(kind)) if isinstance(kind, str) else None
            if kind not in ("scale", "translation") or numbers is None or numbers.shape != (count,):
                rule = f"scale or translation of {count} numbers"
                raise FormatError(
                    rule, path=path, field="coordinateTransformations", value=str(each)[:80]
                )
            if kind == "scale":
                scale, shift, stated = scale * numbers, shift * numbers, True
            else:
                shift = shift + numbers
    if not (np.isfinite(scale).all() and (scale > 0).all() and np.isfinite(shift).all()):
        raise GeometryError("positive", path=path, field="scale", value=scale.tolist())
    return (scale if stated else None), shift


def _direction(axis: Json, path: str) -> tuple[int, int, int] | None:
    orientation = axis.get("orientation")
    if orientation is None:
        return None
    value = _mapping(orientation).get("value")
    if value not in _DIRECTIONS:
        known = ", ".join(_DIRECTIONS)
        raise GeometryError(f"one of {known}", path=path, field="orientation", value=str(value))
    return _DIRECTIONS[str(value)]


def _mapping(value: object) -> Json:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _objects(value: object) -> Sequence[Json]:
    entries = cast("list[object]", value) if isinstance(value, list) else []
    return [_mapping(each) for each in entries]


def _numbers(value: object) -> np.ndarray | None:
    if value is None:
        return None
    try:
        array = np.array(value)
    except ValueError:
        return np.array("")
    return array
