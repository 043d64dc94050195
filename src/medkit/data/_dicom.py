"""DICOM images: a file, a folder or a list of files becomes one volume, or says why it cannot."""

import os
from collections.abc import Iterable

import torch

from medkit._core.file_errors import AmbiguousSeriesError, FormatError

from ._dicom_header import DicomHeader
from ._dicom_pixels import read_pixels
from ._dicom_plane import arrange
from ._dicom_series import Folder, Group, describe, dicom_files, find_images
from ._limits import Limits
from ._notice import Notice
from ._volume import Volume

_MOST_LISTED = 10


def read_dicom(
    path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    series: str | None = None,
    limits: Limits | None = None,
    verify: bool = True,
) -> Volume:
    """Read a DICOM image: a series of files or one file, classic or enhanced multi-frame.

    Planes are sorted by their position along the normal of the image; instance numbers and slice
    locations decide nothing. Missing, doubled or stray planes are errors that name the files. A
    tilted gantry gives a sheared affine and the notice ``"tilted"``. Each plane is scaled by its
    own slope and intercept (a dose by its scaling); voxels stay integers where these are whole
    numbers. MONOCHROME1 pixels are not inverted, padding pixels not replaced; notices say so.

    Compressed pixels need the extra ``dicom``; decoders under the GPL are never used.

    Args:
        path: A file, a folder that is searched with all below it, or the files of the image.
        series: Which image, by ``id`` or SeriesInstanceUID of :func:`scan`; None takes the only
            one there is.
        limits: Largest sizes to accept; None means ``Limits()``.
        verify: Check that uncompressed pixels have exactly the length that the header asks for.
            False lets surplus bytes pass. DICOM has no checksums.

    Returns:
        The volume; a single slice has D = 1 and its slice thickness as spacing.

    Raises:
        AmbiguousSeriesError: If there are several images and ``series`` does not say which.
        GeometryError: If the planes do not lie on an even grid.
        DataError: If a file is damaged or cannot be read exactly.
        ImportError: If pixels are compressed and pydicom is not installed.
        OSError: If a file cannot be opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_dicom(folder)
        Traceback (most recent call last):
        medkit.data.FormatError: ...: folder must be one with a DICOM image; got none in it.
    """
    limits = limits or Limits()
    source, paths = _paths(path)
    found = find_images(paths, limits)
    for error in found.damaged.values():
        raise error
    group = _choose(found, series, source)
    arrangement = arrange(group.planes)
    voxels = read_pixels(arrangement.planes, group.headers, limits, verify=verify)
    notices = (*arrangement.notices, *_notices(group.header))
    return Volume(torch.as_tensor(voxels), arrangement.affine, source, notices)


def _paths(
    path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> tuple[str, list[str]]:
    """Return a name for the source, and its files."""
    if not isinstance(path, str | os.PathLike):
        paths = [os.fspath(one) for one in path]
        return (os.path.commonpath(paths) if paths else ""), paths
    source = os.fspath(path)
    return source, dicom_files(source) if os.path.isdir(source) else [source]  # noqa: PTH112


def _choose(found: Folder, series: str | None, source: str) -> Group:
    groups = found.groups
    if not groups:
        kind = "folder" if os.path.isdir(source) else "file"  # noqa: PTH112
        raise FormatError("one with a DICOM image", path=source, field=kind, value="none in it")
    if series is not None:
        groups = {
            name: group
            for name, group in groups.items()
            if series in (name, group.header.series_uid)
        }
    if len(groups) == 1:
        return next(iter(groups.values()))
    several = groups or found.groups
    listed = "; ".join(describe(*item) for item in list(several.items())[:_MOST_LISTED])
    more = "; ..." if len(several) > _MOST_LISTED else ""
    if not groups:
        raise AmbiguousSeriesError(
            f"one of: {listed}{more}", path=source, field="series", value=repr(series)
        )
    raise AmbiguousSeriesError(
        "one image",
        path=source,
        field="folder",
        value=f"{len(several)}: {listed}{more}",
        remedy="Pass series=, one of these names; scan(folder) tells more.",
    )


def _notices(header: DicomHeader) -> tuple[Notice, ...]:
    frame = header.frames[0]
    notices: list[Notice] = []
    if header.layout.photometric == "MONOCHROME1":
        notices.append(Notice("monochrome1", "low values are bright; the voxels are as stored"))
    if header.padding is not None:
        value = header.padding * frame.slope + frame.inter
        notices.append(Notice("padding", f"voxels of {value:g} are padding, not measured"))
    if header.lossy:
        notices.append(Notice("lossy", "the image was compressed with loss"))
    return tuple(notices)
