"""DICOM segmentations: frames of segments become a label map or channels, with their names."""

import os
from dataclasses import dataclass
from typing import Literal, cast

import torch

from medkit._core import check

from ._dicom_seg_grid import seg_grid
from ._dicom_seg_header import DicomSegment, read_seg_header
from ._dicom_seg_pixels import seg_pixels
from ._limits import Limits
from ._volume import Volume

_OVERLAP = ("error", "channels")


@dataclass(frozen=True, eq=False)
class DicomSegmentation:
    """A DICOM segmentation: where its segments are, and what they are.

    Args:
        labels: Numbers of segments (1, D, H, W), 0 elsewhere; or one channel for each of
            ``segments``, in their order: 0 and 1, or fractions in [0, 1] (float32).
        segments: The segments, in the order of the file.
        type: How the file stores them.
        fractional_type: ``"PROBABILITY"`` or ``"OCCUPANCY"`` (share of the voxel) for FRACTIONAL,
            else empty.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> labels = Volume(torch.ones(1, 2, 3, 4, dtype=torch.uint8), np.eye(4))
        >>> liver = DicomSegment(1, "Liver", "MANUAL", None, None)
        >>> seg = DicomSegmentation(labels, (liver,), "BINARY")
        >>> {segment.number: segment.label for segment in seg.segments}
        {1: 'Liver'}
    """

    labels: Volume
    segments: tuple[DicomSegment, ...]
    type: Literal["BINARY", "FRACTIONAL", "LABELMAP"]
    fractional_type: str = ""


def read_dicom_seg(
    path: str | os.PathLike[str],
    *,
    overlap: Literal["error", "channels"] = "error",
    limits: Limits | None = None,
    verify: bool = True,
) -> DicomSegmentation:
    """Read a DICOM segmentation (SEG), or a label map segmentation.

    Frames are placed by their position along the normal, as :func:`read_dicom` places slices. The
    step between planes is SpacingBetweenSlices, or else the smallest distance between two planes.
    Planes between the first and the last that have no frame are 0, and the notice ``"absent"``
    counts them; planes beyond, which writers leave out when they are empty, are not known to the
    file, so that the grid can be shorter than that of the image.

    Args:
        path: The file.
        overlap: What to do with segments that share voxels. ``"error"`` raises and names them;
            ``"channels"`` gives one channel a segment, of 0 and 1, whether they overlap or not.
            FRACTIONAL segments always have their own channel.
        limits: Largest sizes to accept; None means ``Limits()``.
        verify: Check that uncompressed pixels have exactly the length that the header asks for.
            False lets surplus bytes pass. DICOM has no checksums.

    Returns:
        Label map, channels or fractions with the affine, and the segments. Label maps are uint8,
        int16 or int32, the narrowest that holds the largest segment number.

    Raises:
        ValueError: If ``overlap`` is none of these.
        FormatError: If segments overlap and ``overlap`` is ``"error"``.
        GeometryError: If the frames do not lie on an even grid of one orientation.
        DataError: If the file is damaged, no segmentation, or cannot be read exactly.
        ImportError: If pixels are compressed and pydicom is not installed.
        OSError: If the file cannot be opened.

    References:
        DICOM PS3.3, C.8.20 (Segmentation) and C.8.23 (Label Map Segmentation).

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.dcm")
        ...     _ = path.write_bytes(b"")
        ...     read_dicom_seg(path)
        Traceback (most recent call last):
        medkit.data.FormatError: ...: magic must be b'DICM' at byte 128; got b''. ...
    """
    check.one_of("overlap", overlap, _OVERLAP)
    limits, name = limits or Limits(), os.fspath(path)
    header = read_seg_header(name, limits)
    grid = seg_grid(header)
    voxels = seg_pixels(header, grid, limits, channels=overlap == "channels", verify=verify)
    labels = Volume(torch.as_tensor(voxels), grid.affine, name, grid.notices)
    kind = cast("Literal['BINARY', 'FRACTIONAL', 'LABELMAP']", header.type)
    return DicomSegmentation(labels, header.segments, kind, header.fractional)
