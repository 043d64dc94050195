"""Slices of a volume side by side, with outlines of labels and a map in colour over them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medkit._core import check
from medkit._core.optional import require

from ._overlay import Image, check_place, geometry, grey_window, has_lengths, label_paints
from ._page import TOP, Color, Page, Panel
from ._planes import as_array, as_labels, centres, planes

if TYPE_CHECKING:
    import matplotlib.figure

_SHOWN = 12
_CLEAR_BELOW = 0.1  # of the range: where a map says nothing the image stays grey
_OPACITY = 0.7


def mosaic(
    image: Image,
    *,
    axis: int = 0,
    indices: Sequence[int] | None = None,
    labels: Image | None = None,
    heat: Image | None = None,
    heat_label: str = "",
    heat_range: tuple[float, float] | None = None,
    spacing: Sequence[float | int] | None = None,
    axcodes: str | None = None,
    names: Mapping[int, str] | None = None,
    convention: Literal["neurological", "radiological"] = "neurological",
) -> "matplotlib.figure.Figure":
    """Figure of slices of a volume, with outlines of labels and a map in colour over them.

    Use it for lesions in many slices, for maps of uncertainty and for Grad-CAM. Every panel is
    true to the spacing; the first has a bar in millimetres where that is known. The colours of the
    map, those of matplotlib's "inferno", grow brighter all the way for every kind of colour vision;
    its lowest tenth is clear.

    Args:
        image: A volume, or a tensor or array (D, H, W), (1, D, H, W) or (H, W); shown from its
            0.5th to its 99.5th percentile.
        axis: Array axis to cut through: 0, 1 or 2.
        indices: Slices to show; None takes up to twelve, evenly spaced, where there are labels,
            or else a map above its lowest tenth, or all along.
        labels: Label map on the image's grid, to outline.
        heat: Map on the image's grid, e.g. an entropy; NaN is clear.
        heat_label: What the map is, and its unit.
        heat_range: Values of the first and the last colour; None takes 0, or the lowest value
            below, and the highest.
        spacing: Voxel size in mm along each axis; None takes the volume's, or draws cubes and no
            bar.
        axcodes: Direction in which each axis grows; None takes the volume's, or shows slices of a
            bare array as they lie.
        names: Name of each label; others are not shown. None shows every label but 0.
        convention: Where the patient's right is, as in :func:`overlay`.

    Returns:
        The figure. It belongs to no window and no global state.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If labels are neither integers nor booleans.
        ValueError: If shapes differ, or the places of two volumes, or an option is out of range.

    Example:
        >>> import torch
        >>> image = torch.rand(20, 30, 40)
        >>> figure = mosaic(image, heat=image**2, heat_label="entropy (nats)", spacing=(3, 1, 1))
        >>> len(figure.axes)  # twelve slices and the colour bar
        13
    """
    array = as_array("image", image)
    drawn, map_ = (_on_grid(n, image, x) for n, x in (("labels", labels), ("heat", heat)))
    lengths, directions = geometry(image, spacing, axcodes)
    check.one_of("axis", axis, (0, 1, 2))
    check.one_of("convention", convention, ("neurological", "radiological"))
    cuts = planes(directions, radiological=convention == "radiological")
    plane = next(one for one in cuts if one.through == axis)
    paints = {} if drawn is None else label_paints([drawn], names, None, 1.0)
    low, high = (0.0, 1.0) if map_ is None else heat_range or _range(map_)
    if not low < high:
        raise check.fail("heat_range", "two values in order", heat_range)
    wanted = _worth(drawn, map_, list(paints), low + _CLEAR_BELOW * (high - low))
    shown = _indices(indices, array.shape, axis, wanted)
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    extra = bool(paints) or map_ is not None
    page = Page([plane] * columns, array.shape, lengths, rows=[""] * rows, legend=extra)
    for number, index in enumerate(shown):
        panel = page.panel(*divmod(number, columns))
        panel.show(plane.cut(array, index), None, grey_window(array))
        if map_ is not None:
            _show_heat(panel, plane.cut(map_, index), low, high)
        if drawn is not None:
            for value, paint in paints.items():
                _outline(panel, plane.cut(drawn, index) == value, paint.color)
        inset = 0.02 * panel.size[1]
        panel.write(f"{index}", (inset, inset), ha="left", va="top")
        if number == 0 and has_lengths(image, spacing):
            panel.scale_bar()
    if map_ is not None:
        _color_bar(page, heat_label, low, high, beside=bool(paints))
    if paints:
        page.legend({paint.name: paint.color for paint in paints.values()})
    return page.figure


def _on_grid(name: str, image: Image, one: Image | None) -> np.ndarray | None:
    if one is None:
        return None
    read = as_labels if name == "labels" else as_array
    array, shape = read(name, one), as_array("image", image).shape
    if array.shape != shape:
        raise check.fail(name, f"of shape {shape}", f"shape {array.shape}")
    check_place(name, image, one)
    return array


def _range(heat: np.ndarray) -> tuple[float, float]:
    finite = heat[np.isfinite(heat)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return min(low, 0.0), high if high > min(low, 0.0) else min(low, 0.0) + 1.0


def _worth(
    labels: np.ndarray | None, heat: np.ndarray | None, values: Sequence[int], above: float
) -> np.ndarray | None:
    """Return the voxels that are worth a look, or None where all are."""
    if labels is not None and values:
        return np.isin(labels, values)
    return None if heat is None else heat > above


def _indices(
    indices: Sequence[int] | None, shape: Sequence[int], axis: int, wanted: np.ndarray | None
) -> list[int]:
    if indices is not None:
        if not indices or not all(0 <= index < shape[axis] for index in indices):
            raise check.fail("indices", f"slices below {shape[axis]}", list(indices))
        return list(indices)
    first, last = 0, shape[axis] - 1
    if wanted is not None and wanted.any():
        others = tuple(other for other in range(3) if other != axis)
        inside = np.flatnonzero(wanted.any(axis=others))
        first, last = int(inside[0]), int(inside[-1])
    count = min(_SHOWN, last - first + 1)
    return [int(index) for index in np.linspace(first, last, count).round()]


def _show_heat(panel: Panel, heat: np.ndarray, low: float, high: float) -> None:
    """Draw a map; it fades in above its lowest tenth."""
    height, width = panel.size
    share = np.nan_to_num((heat.astype(np.float64) - low) / (high - low), nan=0.0)
    opacity = _OPACITY * np.clip((share - _CLEAR_BELOW) / _CLEAR_BELOW, 0, 1)
    panel.axes.imshow(
        np.nan_to_num(heat, nan=low),
        cmap="inferno",
        vmin=low,
        vmax=high,
        alpha=opacity,
        extent=(0.0, width, height, 0.0),
        aspect="auto",
        interpolation="nearest",
    )


def _outline(panel: Panel, inside: np.ndarray, color: Color) -> None:
    """Draw the edge of a mask, closed also at the edge of the picture.

    A black rim sets it off from a map of its own colour.
    """
    if not inside.any():
        return
    rows, columns = inside.shape
    height, width = panel.size
    x, y = centres(width, columns, beyond=1), centres(height, rows, beyond=1)
    padded = np.pad(inside.astype(np.float64), 1)
    lines = panel.axes.contour(x, y, padded, levels=[0.5], colors=[color], linewidths=1.5)
    stroke = require("matplotlib.patheffects", extra="plot").withStroke
    lines.set_path_effects([stroke(linewidth=3, foreground="black")])


def _color_bar(page: Page, name: str, low: float, high: float, *, beside: bool) -> None:
    """Draw the colours of the map below the panels, left of the legend if there is one.

    Its name stands above the panels.
    """
    colors: Any = require("matplotlib.colors", extra="plot")
    cm: Any = require("matplotlib.cm", extra="plot")
    left, wide = (0.04, 0.2) if beside else (0.3, 0.4)
    place = (left, 0.24 / page.height, wide, 0.1 / page.height)
    bar = page.figure.colorbar(
        cm.ScalarMappable(colors.Normalize(low, high), "inferno"),
        cax=page.figure.add_axes(place),
        orientation="horizontal",
    )
    bar.ax.tick_params(labelsize=7, pad=1, length=2)
    middle = 1 - TOP / 2 / page.height
    page.figure.text(0.5, middle, name, ha="center", va="center", fontsize=11)
