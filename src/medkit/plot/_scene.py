"""Skeletons, points and surfaces in space."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from medkit._core import check
from medkit._core.optional import require

from ._palette import palette

if TYPE_CHECKING:
    import matplotlib.figure

Points = Tensor | np.ndarray


def scene(
    points: Mapping[str, Points],
    *,
    triangles: Mapping[str, Points] | None = None,
    view: tuple[float, float] = (20.0, -60.0),
    max_points: int = 20_000,
) -> "matplotlib.figure.Figure":
    """Figure of points in space, e.g. of skeletons, and of surfaces, all of one scale in mm.

    Make points of a mask with ``mask.nonzero() * spacing``, and a surface with
    ``skimage.measure.marching_cubes``.

    Args:
        points: Places (N, 3) in mm, by name; they have colours that readers with
            colour-vision deficiency can tell apart.
        triangles: For surfaces, three numbers of points for each triangle (M, 3), by the name of
            the points; others are drawn as dots.
        view: Elevation and azimuth of the eye in degrees.
        max_points: Of more dots every second, third ... is drawn.

    Returns:
        The figure. It belongs to no window and no global state.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If shapes or names do not fit, or there is nothing to show.

    Example:
        >>> import torch
        >>> mask = torch.eye(5).expand(5, 5, 5) > 0
        >>> figure = scene({"vessel": mask.nonzero() * torch.tensor([3.0, 1.0, 1.0])})
        >>> figure.axes[0].get_zlabel()
        'third axis (mm)'
    """
    dots = {name: _rows(f"points[{name!r}]", one) for name, one in points.items()}
    faces = {name: _rows(f"triangles[{name!r}]", x) for name, x in (triangles or {}).items()}
    if not set(faces) <= set(dots) or not sum(map(len, dots.values())):
        raise check.fail("points", "at least one, with those of all triangles", list(dots))
    check.integer("max_points", max_points, minimum=1)
    figure: Any = require("matplotlib.figure", extra="plot").Figure(
        figsize=(6.0, 5.5), layout="constrained"
    )
    axes = figure.add_subplot(projection="3d")
    for (name, places), color in zip(dots.items(), palette(len(dots)), strict=True):
        if name in faces:
            corners = faces[name].astype(np.int64)
            axes.plot_trisurf(
                *places.T, triangles=corners, color=color, alpha=0.6, linewidth=0, label=name
            )
        else:
            kept = places[:: -(-len(places) // max_points) or 1]
            axes.scatter(*kept.T, color=color, s=6, label=name, depthshade=True)
    every = np.concatenate([places for places in dots.values() if len(places)])
    middle, half = (every.max(0) + every.min(0)) / 2, np.ptp(every, 0).clip(1e-3) / 2
    axes.set(
        **{f"{axis}lim": (m - h, m + h) for axis, m, h in zip("xyz", middle, half, strict=True)}
    )
    axes.set_box_aspect(half, zoom=0.85)  # room for the labels
    axes.set(**{f"{a}label": f"{n} axis (mm)" for a, n in zip("xyz", _ORDER, strict=True)})
    axes.view_init(*view)
    axes.legend(frameon=False, loc="upper left")
    return figure


_ORDER = ("first", "second", "third")


def _rows(name: str, x: Points) -> np.ndarray:
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if array.ndim != 2 or array.shape[1] != 3:
        raise check.fail(name, "of shape (number, 3)", f"shape {array.shape}")
    return array.astype(np.float64)
