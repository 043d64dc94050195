"""The frames of a DICOM segmentation as label map, as channels, or as probabilities."""

import math
from collections.abc import Iterator

import numpy as np

from medkit._core.file_errors import FormatError

from ._dicom_pixels import Scratch, check_size, fill, opened, stored_frames
from ._dicom_seg_grid import SegGrid
from ._dicom_seg_header import SegHeader
from ._limits import Limits
from ._payload import allocate, check_payload

_MOST_LISTED = 10


def seg_pixels(
    header: SegHeader, grid: SegGrid, limits: Limits, *, channels: bool, verify: bool
) -> np.ndarray:
    """Return the voxels (C, D, H, W); sizes are checked first."""
    layout = header.image.layout
    channels = channels or header.type == "FRACTIONAL"
    numbers = [segment.number for segment in header.segments]
    dtype = _label_dtype(max(numbers))
    if channels:
        dtype = np.dtype("f4" if header.type == "FRACTIONAL" else "u1")
    count = len(numbers) if channels else 1
    shape = (count, grid.depth, layout.rows, layout.columns)
    nbytes = math.prod(shape) * dtype.itemsize
    declared = f"{count} x {grid.depth} planes of {layout.rows} x {layout.columns}"
    check_payload(nbytes, nbytes, header.image.path, limits, declared)
    check_size(header.image, limits, verify=verify)
    _check_once(header, grid)
    voxels = allocate(nbytes, header.image.path).view(dtype).reshape(shape)
    voxels[...] = 0
    if header.type == "LABELMAP":
        _fill_labelmap(voxels, header, grid, limits, channels=channels)
    elif channels:
        _fill_channels(voxels, header, grid, limits)
    else:
        _fill_labels(voxels[0], header, grid, limits)
    return voxels


def _label_dtype(largest: int) -> np.dtype[np.generic]:
    return np.dtype("u1" if largest < 1 << 8 else "i2" if largest < 1 << 15 else "i4")


def _check_once(header: SegHeader, grid: SegGrid) -> None:
    """Raise if two frames are at the same place."""
    seen: dict[tuple[int, int], int] = {}
    numbers = header.frame_segments or (0,) * len(grid.places)
    for frame, place in enumerate(zip(numbers, grid.places, strict=True)):
        if place in seen:
            raise FormatError(
                "one for each segment and position",
                path=header.image.path,
                field="frames",
                value=f"frames {seen[place] + 1} and {frame + 1} of segment {place[0]}",
            )
        seen[place] = frame


def _stored(header: SegHeader, limits: Limits) -> Iterator[np.ndarray]:
    """Yield the frames (H, W) in the order of the file; each may be overwritten."""
    image = header.image
    if header.type == "BINARY":
        yield from _bit_frames(header, limits)
        return
    frames = range(len(image.frames))
    for frame in stored_frames(image, frames, Scratch(image.layout), limits):
        yield frame[0]


def _bit_frames(header: SegHeader, limits: Limits) -> Iterator[np.ndarray]:
    """Unpack frames of 1-bit pixels, first pixel in the lowest bit (PS3.5, 8.1.1)."""
    image, bits = header.image, header.image.layout.bits
    shape = (image.layout.rows, image.layout.columns)
    with opened(image, limits) as file:
        for number in range(len(image.frames)):
            first, last = number * bits // 8, ((number + 1) * bits + 7) // 8
            raw = np.empty(last - first, np.uint8)
            file.seek(image.offset + first)
            fill(file, raw, image.path)
            start = number * bits % 8
            pixels = np.unpackbits(raw, bitorder="little")[start : start + bits]
            yield pixels.reshape(shape)


def _fill_labels(voxels: np.ndarray, header: SegHeader, grid: SegGrid, limits: Limits) -> None:
    """Write a number where each segment is; raise where two segments are."""
    overlaps: dict[tuple[int, int], int] = {}
    placed = zip(header.frame_segments, grid.places, strict=True)
    for (number, index), mask in zip(placed, _stored(header, limits), strict=True):
        inside, plane = mask.astype(bool), voxels[index]
        others = plane[inside]
        for other in np.unique(others[others > 0]).tolist():
            pair = (min(other, number), max(other, number))
            overlaps[pair] = overlaps.get(pair, 0) + int((others == other).sum())
        plane[inside] = number
    if overlaps:
        raise FormatError(
            "apart for a label map",
            path=header.image.path,
            field="segments",
            value=_describe(overlaps, header),
            remedy='Pass overlap="channels" for one channel a segment.',
        )


def _describe(overlaps: dict[tuple[int, int], int], header: SegHeader) -> str:
    names = {segment.number: f"{segment.number} {segment.label!r}" for segment in header.segments}
    listed = [
        f"{names[a]} and {names[b]} overlap in {count} voxels"
        for (a, b), count in sorted(overlaps.items())
    ]
    return "; ".join(listed[:_MOST_LISTED]) + ("; ..." if len(listed) > _MOST_LISTED else "")


def _fill_channels(voxels: np.ndarray, header: SegHeader, grid: SegGrid, limits: Limits) -> None:
    channel = {segment.number: i for i, segment in enumerate(header.segments)}
    placed = zip(header.frame_segments, grid.places, strict=True)
    for (number, index), values in zip(placed, _stored(header, limits), strict=True):
        largest = int(values.max())
        if largest > header.largest:
            raise FormatError(
                f"at most {header.largest} (MaximumFractionalValue)",
                path=header.image.path,
                field="PixelData",
                value=largest,
            )
        out = voxels[channel[number], index]
        if header.type == "FRACTIONAL":
            np.divide(values, np.float32(header.largest), out=out)
        else:
            out[...] = values


def _fill_labelmap(
    voxels: np.ndarray, header: SegHeader, grid: SegGrid, limits: Limits, *, channels: bool
) -> None:
    numbers = [segment.number for segment in header.segments]
    known = np.array([0, *numbers])
    for index, values in zip(grid.places, _stored(header, limits), strict=True):
        unknown = np.setdiff1d(values, known)
        if unknown.size:
            raise FormatError(
                "numbers of segments",
                path=header.image.path,
                field="PixelData",
                value=unknown[:_MOST_LISTED].tolist(),
            )
        if channels:
            voxels[:, index] = values == np.reshape(numbers, (-1, 1, 1))
        else:
            voxels[0, index] = values
