"""Image and label maps side by side in three orthogonal planes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from torch import Tensor

from medkit._core import check
from medkit._core.optional import require
from medkit.data import Volume

from ._page import Box, Color, Page
from ._palette import palette
from ._planes import as_array, as_labels, planes

if TYPE_CHECKING:
    import matplotlib.figure

Image = Volume | Tensor | np.ndarray
_PLACE_TOLERANCE = 0.1  # mm


def overlay(
    image: Image,
    maps: Mapping[str, Image] | None = None,
    *,
    spacing: float | Sequence[float | int] | None = None,
    axcodes: str | None = None,
    names: Mapping[int, str] | None = None,
    colors: Sequence[str] | None = None,
    alpha: float = 0.6,
    position: Sequence[int] | None = None,
    convention: Literal["neurological", "radiological"] = "neurological",
    boxes: Mapping[str, Box] | None = None,
) -> "matplotlib.figure.Figure":
    """Figure of an image and of label maps over it, each in three orthogonal planes.

    The first row shows the image alone, then comes one row per map, e.g. truth and prediction.
    Every panel has one scale, true to the spacing, with a bar in millimetres where the spacing is
    known; letters at its edges say which side of the patient is where. Save it with
    ``figure.savefig("name.png")``.

    Args:
        image: A volume, or a tensor or array (D, H, W), (1, D, H, W) or (H, W); shown from its
            0.5th to its 99.5th percentile.
        maps: Label maps on the image's grid, by the name of their row.
        spacing: Voxel size in mm along each axis, or one for all; None takes the volume's, or
            draws cubes and no bar.
        axcodes: Direction in which each axis grows, e.g. ``"SAR"``; None takes the volume's, or
            shows the planes of a bare array as they lie.
        names: Name of each label; others are not shown. None shows every label but 0.
        colors: One colour per label, as matplotlib takes them; None takes colours that readers
            with colour-vision deficiency can tell apart.
        alpha: Opacity of the labels, in [0, 1].
        position: Voxel (d, h, w) that the planes go through; None cuts each axis where most of
            the first map's voxels are shown, or in the middle.
        convention: Whether the patient's right is on the right, as if seen from behind or above
            (``"neurological"``), or on the left, as if facing the reader (``"radiological"``).
        boxes: Boxes of voxels to outline, ``(start, stop)`` by name, e.g. what was not trained on.

    Returns:
        The figure. It belongs to no window and no global state.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If an argument is of another type, e.g. a map not of integers or booleans.
        ValueError: If shapes differ, or the places of two volumes, or an option is out of range.

    Example:
        >>> import torch
        >>> image = torch.rand(20, 30, 40)
        >>> figure = overlay(image, {"Truth": image > 0.5}, spacing=(3, 1, 1), names={1: "bright"})
        >>> len(figure.axes)
        6
    """
    array = as_array("image", image)
    maps = {} if maps is None else maps
    check.kind("maps", maps, Mapping, "label maps by name")
    labels = {name: as_labels(f"maps[{name!r}]", one) for name, one in maps.items()}
    for name, one in labels.items():
        if one.shape != array.shape:
            raise check.fail(f"maps[{name!r}]", f"of shape {array.shape}", f"shape {one.shape}")
        check_place(name, image, maps[name])
    lengths, directions = geometry(image, spacing, axcodes)
    check.one_of("convention", convention, ("neurological", "radiological"))
    cuts = planes(directions, radiological=convention == "radiological")
    shown = [plane for plane in cuts if min(plane.size(array.shape)) > 1]
    paints = label_paints(labels.values(), names, colors, check.fraction("alpha", alpha))
    at = _position(position, array.shape, next(iter(labels.values()), None), list(paints))
    page = Page(shown, array.shape, lengths, rows=["Image", *labels], legend=bool(labels))
    window = grey_window(array)
    for row, one in enumerate([None, *labels.values()]):
        for column, plane in enumerate(shown):
            index = at[plane.through]
            panel = page.panel(row, column)
            painted = None if one is None else _painted(plane.cut(one, index), paints)
            panel.show(plane.cut(array, index), painted, window)
            panel.mark_sides()
            panel.outline(boxes or {}, index, named=row == 0)
            if row == 0:
                panel.title(index)
                if has_lengths(image, spacing):
                    panel.scale_bar()
    if labels:
        page.legend({paint.name: paint.color for paint in paints.values()})
    return page.figure


class Paint(NamedTuple):
    name: str
    color: Color


def check_place(name: str, image: Image, one: Image) -> None:
    """Raise where image and map are volumes in different places: no voxel may be off by 0.1 mm."""
    if not isinstance(image, Volume) or not isinstance(one, Volume):
        return
    corners = np.array(np.meshgrid(*((0, size - 1) for size in image.spatial_shape), [1]))
    off = np.abs((image.affine - one.affine) @ corners.reshape(4, -1)).max()
    if off > _PLACE_TOLERANCE:
        raise check.fail(f"maps[{name!r}]", "where the image is", f"a map {off:.3g} mm off")


def has_lengths(image: Image, spacing: object) -> bool:
    """Return whether the size of a voxel is known, so that a bar can say how long something is."""
    return spacing is not None or isinstance(image, Volume)


def geometry(
    image: Image, spacing: float | Sequence[float | int] | None, axcodes: str | None
) -> tuple[tuple[float, ...], str | None]:
    """Return spacing and directions: as given, else the volume's, else 1 and none."""
    if isinstance(image, Volume):
        spacing, axcodes = spacing or image.spacing, axcodes or image.axcodes
    lengths = 1.0 if spacing is None else spacing
    if not isinstance(lengths, float | int) and len(lengths) == 2:
        lengths = (1.0, *lengths)
    lengths = tuple(
        check.positive("spacing", length) for length in check.per_axis("spacing", lengths, 3)
    )
    if axcodes is not None and sorted("RASLPI".find(code) % 3 for code in axcodes) != [0, 1, 2]:
        raise check.fail("axcodes", "one letter of each of R/L, A/P and S/I", repr(axcodes))
    return lengths, axcodes


def label_paints(
    maps: Iterable[np.ndarray],
    names: Mapping[int, str] | None,
    colors: Sequence[str] | None,
    alpha: float,
) -> dict[int, Paint]:
    """Return name and colour of each label."""
    if names is not None:
        check.kind("names", names, Mapping, "a mapping of labels to names")
    else:
        values = sorted({int(value) for one in maps for value in np.unique(one)} - {0})
        names = {value: str(value) for value in values}
    chosen = palette(len(names)) if colors is None else colors
    if len(chosen) != len(names):
        raise check.fail("colors", f"{len(names)}, one per label", list(chosen))
    to_rgba = require("matplotlib.colors", extra="plot").to_rgba
    pairs = zip(names.items(), chosen, strict=True)
    return {value: Paint(name, to_rgba(color, alpha)) for (value, name), color in pairs}


def _painted(labels: np.ndarray, paints: Mapping[int, Paint]) -> np.ndarray:
    """Return the colour (RGBA) of every pixel; other labels stay clear."""
    colors = np.zeros((*labels.shape, 4), np.float32)
    for value, paint in paints.items():
        colors[labels == value] = paint.color
    return colors


def _position(
    position: Sequence[int] | None,
    shape: Sequence[int],
    labels: np.ndarray | None,
    shown: Sequence[int],
) -> tuple[int, ...]:
    """Return where to cut: as given, else where most labelled voxels are, else the middle."""
    if position is not None:
        where = check.per_axis("position", position, len(shape))
        if not all(0 <= index < size for index, size in zip(where, shape, strict=True)):
            raise check.fail("position", f"a voxel of {tuple(shape)}", tuple(position))
        return where
    inside = None if labels is None else np.isin(labels, shown)
    if inside is None or not inside.any():
        return tuple(size // 2 for size in shape)
    others = ((1, 2), (0, 2), (0, 1))
    return tuple(int(inside.sum(axis=axes).argmax()) for axes in others)


def grey_window(image: np.ndarray) -> tuple[float, float]:
    """Return the intensities that become black and white."""
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (0.5, 99.5)) if finite.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1.0
