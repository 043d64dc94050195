"""Which DICOM files belong to one image: what a folder holds, before any pixel is read."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from medkit._core.file_errors import DataError, GeometryError
from medkit.ops import affine_spacing

from ._dicom_file import PREAMBLE, may_be_dicom
from ._dicom_header import DicomHeader, read_header
from ._dicom_plane import Plane, arrange
from ._limits import Limits
from ._notice import Notice

_ENDINGS = (".dcm", ".dicom", ".ima")
_SAME_DIRECTION = 1e-4
_SAME_SPACING = 1e-4  # relative


class DicomSeries(NamedTuple):
    """One image in a folder of DICOM files, as :func:`scan` lists it.

    Args:
        id: Name for ``read_dicom(folder, series=...)``: the SeriesInstanceUID, with ``#1``,
            ``#2`` and so on behind it where one series holds several images.
        uid: SeriesInstanceUID.
        description: SeriesDescription and what tells the images of one series apart.
        modality: Modality, e.g. ``"CT"``.
        spatial_shape: (D, H, W): number of slices, rows, columns.
        spacing: Distance in mm between voxels along d, h and w, None if it is not known.
        files: The files, in the order of the slices where it is known.
        problems: Why it cannot be read, or what else to know; empty for an ordinary image.
    """

    id: str
    uid: str
    description: str
    modality: str
    spatial_shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    files: tuple[str, ...]
    problems: tuple[Notice, ...]


@dataclass(frozen=True)
class Group:
    """Planes of one image, with the header of each file."""

    headers: dict[str, DicomHeader]
    planes: tuple[Plane, ...]
    label: str = ""

    @property
    def header(self) -> DicomHeader:
        """The header of one of the files."""
        return self.headers[self.planes[0].path]


class Folder(NamedTuple):
    """What was found: images by their id, and files that are damaged."""

    groups: dict[str, Group]
    damaged: dict[str, DataError]


def scan(folder: str | os.PathLike[str], *, limits: Limits | None = None) -> list[DicomSeries]:
    """List the DICOM images in a folder and below it; only headers are read.

    Files are one image when they agree in series, frame of reference, orientation, size and pixel
    spacing. Where such files repeat positions, as echoes and time points do, they are told apart by
    temporal position, echo, b-value, acquisition, trigger time or image type. A multi-frame file
    holds one image or several. DICOM files without an image, such as reports and plans, and files
    that are no DICOM are passed over, unless they end in ``.dcm``: those are damaged.

    Args:
        folder: Where to look.
        limits: Largest header to accept; None means ``Limits()``.

    Returns:
        One entry for each image, in the order of their ids, then one for each damaged file: with
        an empty ``id`` and the reason in ``problems``.

    Raises:
        OSError: If the folder or a file cannot be opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scan(folder)
        []
    """
    found = find_images(dicom_files(os.fspath(folder)), limits or Limits())
    images = [_describe(name, group) for name, group in found.groups.items()]
    damaged = [
        DicomSeries("", "", "", "", (0, 0, 0), None, (path,), (Notice("damaged", str(error)),))
        for path, error in found.damaged.items()
    ]
    return images + damaged


def dicom_files(folder: str) -> list[str]:
    """Return the files in a folder and below it that look like DICOM, in the order of their names.

    By their content or their name: a slice at the end that is destroyed must not vanish. Links to
    folders are not followed.
    """
    if not Path(folder).is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    paths = sorted(
        os.path.join(root, name)  # noqa: PTH118  thousands of names
        for root, _, names in os.walk(folder)
        for name in names
    )
    return [path for path in paths if path.lower().endswith(_ENDINGS) or _looks_like_dicom(path)]


def find_images(paths: Sequence[str], limits: Limits) -> Folder:
    """Read the headers of files and put those of one image together."""
    headers: dict[str, DicomHeader] = {}
    damaged: dict[str, DataError] = {}
    for path in paths:
        try:
            header = read_header(path, limits)
        except DataError as error:
            damaged[path] = error
        else:
            if header is not None:
                headers[path] = header
    groups = [part for group in _alike(headers) for part in _told_apart(group)]
    groups.sort(key=lambda group: (group.header.series_uid, -len(group.planes), group.label))
    counts = Counter(group.header.series_uid for group in groups)
    seen: Counter[str] = Counter()
    named: dict[str, Group] = {}
    for group in groups:
        uid = group.header.series_uid
        seen[uid] += 1
        named[uid if counts[uid] == 1 else f"{uid}#{seen[uid]}"] = group
    return Folder(named, damaged)


def describe(name: str, group: Group) -> str:
    """Return one line about an image, for messages."""
    header = group.header
    size = f"{len(group.planes)} x {header.layout.rows} x {header.layout.columns}"
    words = (name or "no series", header.modality, _title(group), size)
    return " ".join(word for word in words if word)


def _describe(name: str, group: Group) -> DicomSeries:
    header = group.header
    planes: tuple[Plane, ...] = group.planes
    spacing, problems = None, ()
    try:
        arrangement = arrange(planes)
    except GeometryError as error:
        problems = (Notice("geometry", str(error)),)
    else:
        planes, problems = arrangement.planes, arrangement.notices
        spacing = affine_spacing(arrangement.affine)
    if header.localizer:
        problems = (*problems, Notice("localizer", "a scout image"))
    return DicomSeries(
        id=name,
        uid=header.series_uid,
        description=_title(group),
        modality=header.modality,
        spatial_shape=(len(planes), header.layout.rows, header.layout.columns),
        spacing=spacing,
        files=tuple(dict.fromkeys(plane.path for plane in planes)),
        problems=problems,
    )


def _title(group: Group) -> str:
    scout = "(localizer)" if group.header.localizer else ""
    return " ".join(word for word in (group.header.description, group.label, scout) if word)


def _alike(headers: dict[str, DicomHeader]) -> Iterator[Group]:
    """Put planes together that agree in all but their position."""
    groups: dict[tuple[object, ...], list[list[Plane]]] = {}
    for path, header in headers.items():
        key = (
            header.series_uid,
            header.frame_of_reference,
            header.layout,
            header.localizer,
            header.modality,
            path if len(header.frames) > 1 else "",
        )
        similar = groups.setdefault(key, [])
        for frame in header.frames:
            plane = Plane(path, frame)
            group = next((group for group in similar if parallel(group[0], plane)), None)
            if group is None:
                similar.append([plane])
            else:
                group.append(plane)
    for similar in groups.values():
        for planes in similar:
            yield Group({plane.path: headers[plane.path] for plane in planes}, tuple(planes))


def parallel(a: Plane, b: Plane) -> bool:
    """Return whether two planes agree in orientation and pixel spacing."""
    return _agree(a.frame.orientation, b.frame.orientation, _SAME_DIRECTION) and _agree(
        a.frame.spacing, b.frame.spacing, _SAME_SPACING * max(a.frame.spacing or (1.0,))
    )


def _agree(a: tuple[float, ...] | None, b: tuple[float, ...] | None, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    return a == b or all(abs(p - q) <= tolerance for p, q in zip(a, b, strict=True))


def _told_apart(group: Group) -> Iterator[Group]:
    """Split planes that repeat positions by the first label that gives each part every position."""
    places = _places(group.planes)
    if len(set(places)) == len(places):
        yield group
        return
    for number, (name, _) in enumerate(group.planes[0].frame.labels):
        parts: dict[str, list[int]] = {}
        for index, plane in enumerate(group.planes):
            parts.setdefault(plane.frame.labels[number][1], []).append(index)
        complete = all({places[i] for i in part} == set(places) for part in parts.values())
        if len(parts) > 1 and complete:
            for value, part in parts.items():
                planes = tuple(group.planes[i] for i in part)
                label = f"{group.label} {name}={value or 'none'}".strip()
                headers = {plane.path: group.headers[plane.path] for plane in planes}
                yield from _told_apart(Group(headers, planes, label))
            return
    yield group


def _places(planes: Sequence[Plane]) -> list[tuple[float, ...]]:
    """Return positions that are equal where planes are at one place."""
    return [tuple(round(x, 2) for x in plane.frame.position or ()) for plane in planes]


def _looks_like_dicom(path: str) -> bool:
    with FileIO(path, "r") as file:
        return may_be_dicom(file.read(PREAMBLE + 4))
