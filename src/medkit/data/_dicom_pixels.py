"""From the stored pixels of DICOM frames to voxels: byte order, unused bits, slope, intercept."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO, FileIO

import numpy as np

from medkit._core.file_errors import LimitError

from ._dicom_codecs import decode_frames
from ._dicom_file import inflate
from ._dicom_header import DicomHeader, PixelLayout, check_native
from ._dicom_plane import Plane
from ._limits import Limits
from ._payload import allocate, check_payload, cut

_WHOLE = ("u1", "i1", "i2", "i4", "i8")
_LARGEST_WHOLE = 2.0**62


def voxel_dtype(layout: PixelLayout, planes: Sequence[Plane]) -> np.dtype[np.generic]:
    """Return the type of the voxels, decided by the headers of all planes and never by a pixel.

    Integers scaled by whole numbers stay integers: the narrowest type, not narrower than the stored
    one, that holds whatever the stored bits can hold. Other scaled pixels are float32 where they
    are stored in 8 or 16 bits and the range allows, else float64.
    """
    scales = {(plane.frame.slope, plane.frame.inter) for plane in planes}
    if layout.kind == "f":
        wide = layout.bits_allocated == 64 or scales != {(1.0, 0.0)}
        return np.dtype("f8" if wide else "f4")
    low, high = _range(layout)
    if all(_is_whole(slope) and _is_whole(inter) for slope, inter in scales):
        ends = [end * int(s) + int(i) for s, i in scales for end in (low, high)]
        for whole in map(np.dtype, _WHOLE):
            info = np.iinfo(whole.str)
            wide = whole.itemsize * 8 >= layout.bits_allocated
            if wide and info.min <= min(ends) and max(ends) <= info.max:
                return whole
    largest = max(abs(s) * max(-low, high) + abs(i) for s, i in scales)
    smallest = min(abs(s) for s, _ in scales)
    single = np.finfo("f4")
    fits = largest < float(single.max) and smallest > float(single.tiny)
    return np.dtype("f4" if layout.bits_allocated <= 16 and fits else "f8")


def read_pixels(
    planes: Sequence[Plane], headers: Mapping[str, DicomHeader], limits: Limits, *, verify: bool
) -> np.ndarray:
    """Return the voxels (C, D, H, W) of planes in their order; sizes are checked first."""
    path = planes[0].path
    layout = headers[path].layout
    dtype = voxel_dtype(layout, planes)
    shape = (layout.samples, len(planes), layout.rows, layout.columns)
    nbytes = math.prod(shape) * dtype.itemsize
    declared = f"{len(planes)} planes of {layout.rows} x {layout.columns}"
    check_payload(nbytes, nbytes, path, limits, declared)
    by_file: dict[str, list[tuple[int, Plane]]] = {}
    for index, plane in enumerate(planes):
        by_file.setdefault(plane.path, []).append((index, plane))
    for name in by_file:
        check_size(headers[name], limits, verify=verify)
    voxels = allocate(nbytes, path).view(dtype).reshape(shape)
    scratch = Scratch(layout)
    for name, wanted in by_file.items():
        header = headers[name]
        numbers = [plane.frame.number for _, plane in wanted]
        for (index, plane), values in zip(
            wanted, stored_frames(header, numbers, scratch, limits), strict=True
        ):
            _scale(values, voxels[:, index], layout, plane)
    return voxels


class Scratch:
    """Memory for one frame as it is stored, used again and again."""

    def __init__(self, layout: PixelLayout) -> None:
        self.raw = np.empty(layout.nbytes + layout.nbytes % 2, np.uint8)


def check_size(header: DicomHeader, limits: Limits, *, verify: bool) -> None:
    """Raise unless the pixels are within the limits and as long as the header asks for."""
    size = os.stat(header.path).st_size  # noqa: PTH116  the fastest of two hundred
    if header.syntax.compressed:
        check_payload(header.nbytes, limits.max_bytes, header.path, limits)
        return
    if header.deflated_from >= 0:
        size = min(size * 1032, limits.max_bytes + limits.max_header_bytes)
    check_native(header, size, verify=verify)


def stored_frames(
    header: DicomHeader, numbers: Sequence[int], scratch: Scratch, limits: Limits
) -> Iterator[np.ndarray]:
    """Yield frames (C, H, W) as stored, in native byte order; each may be overwritten."""
    layout = header.layout
    if header.syntax.compressed:
        for frame in decode_frames(header, numbers):
            yield np.moveaxis(frame.reshape(layout.rows, layout.columns, -1), -1, 0)
        return
    stored = np.dtype(f"{layout.kind}{layout.bits_allocated // 8}")
    with opened(header, limits) as file:
        for number in numbers:
            file.seek(header.offset + number * layout.nbytes)
            raw = scratch.raw[: layout.nbytes]
            if header.swapped:
                fill(file, scratch.raw, header.path)
                scratch.raw.view("u2").byteswap(inplace=True)
            else:
                fill(file, raw, header.path)
            values = raw.view(stored.newbyteorder(header.syntax.order))
            if not values.dtype.isnative:
                values = values.byteswap(inplace=True).view(stored)
            if layout.planar or layout.samples == 1:
                yield values.reshape(layout.samples, layout.rows, layout.columns)
            else:
                pixels = values.reshape(layout.rows, layout.columns, layout.samples)
                yield np.moveaxis(pixels, -1, 0)


def opened(header: DicomHeader, limits: Limits) -> FileIO | BytesIO:
    """Open what holds the native pixels: the file, or its inflated data set."""
    file = FileIO(header.path, "r")
    if header.deflated_from < 0:
        return file
    with file:
        file.seek(header.deflated_from)
        count = header.offset + header.nbytes
        if count > limits.max_bytes + limits.max_header_bytes:
            raise LimitError(
                "within the limits", path=header.path, field="deflated data set", value=count
            )
        return BytesIO(inflate(file.read(), count, header.path)[0])


def fill(file: FileIO | BytesIO, raw: np.ndarray, path: str) -> None:
    """Read as many bytes as an array has."""
    view, done = raw.data, 0
    while done < len(view):
        got = file.readinto(view[done:])
        if not got:
            raise cut(path, len(view), done)
        done += got


def _scale(values: np.ndarray, out: np.ndarray, layout: PixelLayout, plane: Plane) -> None:
    """Write slope * value + inter, computed without overflow and rounded once."""
    unused = layout.bits_allocated - layout.bits_stored
    if unused:  # old files keep overlays there; signed values are to be extended
        values <<= unused
        values >>= unused
    slope, inter = plane.frame.slope, plane.frame.inter
    if out.dtype.kind == "f" and (slope, inter) != (1, 0):
        with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are pixels too
            out[...] = values.astype("f8") * slope + inter
        return
    np.copyto(out, values, casting="unsafe")
    if slope != 1:  # the result fits; what overflows on the way wraps back
        out *= np.int64(int(slope)).astype(out.dtype)
    if inter:
        out += np.int64(int(inter)).astype(out.dtype)


def _range(layout: PixelLayout) -> tuple[int, int]:
    if layout.kind == "i":
        half = 1 << (layout.bits_stored - 1)
        return -half, half - 1
    return 0, (1 << layout.bits_stored) - 1


def _is_whole(value: float) -> bool:
    return value.is_integer() and abs(value) < _LARGEST_WHOLE
