"""Boundaries of layers over the image they are of."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from medkit._core import check
from medkit._core.optional import require

from ._overlay import geometry, grey_window
from ._page import Page
from ._palette import palette
from ._planes import as_array, centres, planes

if TYPE_CHECKING:
    import matplotlib.figure


def layers(
    image: Tensor | np.ndarray,
    rows: Mapping[str, Tensor | np.ndarray],
    *,
    std: Mapping[str, Tensor | np.ndarray] | None = None,
    spacing: Sequence[float | int] | None = None,
    colors: Sequence[str] | None = None,
) -> "matplotlib.figure.Figure":
    """Figure of an image and of the boundaries of its layers, e.g. of a B-scan of the retina.

    A boundary of row r lies r rows below the upper edge of the image, as everywhere in medkit.
    Where its row is NaN it has a gap.

    Args:
        image: Of shape (H, W).
        rows: Row of each boundary in each column (W,), by name.
        std: Standard deviation in rows of some boundaries (W,), by their names; a band of one on
            both sides.
        spacing: Height and width of a pixel in mm, for a scale bar; None draws square pixels and
            no bar. B-scans have pixels that are much wider than high.
        colors: One colour per boundary; None takes colours that readers with colour-vision
            deficiency can tell apart.

    Returns:
        The figure. It belongs to no window and no global state.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If shapes or names do not fit.

    Example:
        >>> import torch
        >>> figure = layers(torch.rand(20, 30), {"ILM": torch.full((30,), 7.5)})
        >>> figure.axes[0].lines[0].get_label()
        'ILM'
    """
    array = as_array("image", image)
    if len(array) != 1:
        raise check.fail("image", "of shape (H, W)", f"shape {tuple(image.shape)}")
    lines = {name: _line(f"rows[{name!r}]", row, array.shape[2]) for name, row in rows.items()}
    bands = {name: _line(f"std[{name!r}]", s, array.shape[2]) for name, s in (std or {}).items()}
    if not set(bands) <= set(lines):
        raise check.fail("std", f"of boundaries out of {', '.join(lines)}", list(bands))
    chosen = palette(len(lines)) if colors is None else colors
    if len(chosen) != len(lines):
        raise check.fail("colors", f"{len(lines)}, one per boundary", list(chosen))
    lengths, _ = geometry(array, spacing, None)
    page = Page(planes(None, radiological=False)[:1], array.shape, lengths, rows=[""], legend=True)
    panel = page.panel(0, 0)
    panel.show(array[0], None, grey_window(array))
    x = centres(lengths[2] * array.shape[2], array.shape[2])
    for (name, row), color in zip(lines.items(), chosen, strict=True):
        panel.axes.plot(x, row * lengths[1], color=color, linewidth=1.6, label=name)
        if name in bands:
            edges = [(row + sign * bands[name]) * lengths[1] for sign in (-1, 1)]
            panel.axes.fill_between(x, *edges, color=color, alpha=0.35, linewidth=0)
    if spacing is not None:
        panel.scale_bar()
    to_rgba = require("matplotlib.colors", extra="plot").to_rgba
    page.legend({name: to_rgba(color) for name, color in zip(lines, chosen, strict=True)})
    return page.figure


def _line(name: str, row: Tensor | np.ndarray, width: int) -> np.ndarray:
    line = row.detach().cpu().numpy() if isinstance(row, Tensor) else np.asarray(row)
    if line.shape != (width,):
        raise check.fail(name, f"of shape ({width},)", f"shape {line.shape}")
    return line.astype(np.float64)
