"""Curves of a training run."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from medkit._core import check
from medkit._core.optional import require

from ._palette import OKABE_ITO

if TYPE_CHECKING:
    import matplotlib.figure

X_COLUMNS = ("epoch", "step")
CURVES = tuple(zip((*OKABE_ITO[:2], *OKABE_ITO[6:3:-1]), "os^Dv", strict=True))
"""Colour and marker of each curve of a panel; yellow and sky blue are too pale on white."""


def history(
    columns: Mapping[str, Sequence[float | int]],
    *,
    x: str = "epoch",
    panels: Mapping[str, Sequence[str]] | None = None,
    best: str | None = None,
) -> "matplotlib.figure.Figure":
    """Figure of the numbers of a training run, epoch by epoch.

    Losses and scores have panels of their own, as their scales have nothing in common. Curves
    differ in colour and in marker. A missing number, NaN, leaves a gap of one marker.

    Args:
        columns: One number per epoch by name, e.g. ``History.epochs`` of ``medkit.train``.
        x: Column of the horizontal axis; numbers 1, 2, ... where there is none. Epochs counted
            from 0 are shown from 1.
        panels: Which columns each panel shows, by its title; None puts names with "loss" in one
            and all others in a second.
        best: Column whose highest value is marked, in all panels, e.g. the validation score that
            chose the checkpoint.

    Returns:
        The figure. It belongs to no window and no global state.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If a column is missing, or there is nothing to show.

    Example:
        >>> run = {"epoch": [0, 1, 2], "train_loss": [0.9, 0.5, 0.4], "dice": [0.3, 0.7, 0.8]}
        >>> [axes.get_title() for axes in history(run, best="dice").axes]
        ['Loss', 'Score']
    """
    places = _places(columns, x)
    groups = _groups(columns, x) if panels is None else {t: list(p) for t, p in panels.items()}
    wanted = [name for names in groups.values() for name in names]
    missing = [name for name in [*wanted, *([best] if best else [])] if name not in columns]
    if missing or not wanted:
        rule = f"names of columns, {', '.join(columns)}"
        raise check.fail("panels" if panels else "columns", rule, missing or "nothing to show")
    figure: Any = require("matplotlib.figure", extra="plot").Figure(  # matplotlib is half typed
        figsize=(4.8 * len(groups), 3.4), layout="constrained"
    )
    at = None if best is None else places[int(np.nanargmax(np.asarray(columns[best], float)))]
    for number, (title, names) in enumerate(groups.items()):
        axes = figure.add_subplot(1, len(groups), number + 1)
        for name, (color, marker) in zip(names, cycle(CURVES), strict=False):
            values = np.asarray(columns[name], float)
            known = np.isfinite(values)
            axes.plot(
                places[known], values[known], color=color, marker=marker, markersize=4, label=name
            )
        _finish(axes, title, x, at)
    return figure


def _places(columns: Mapping[str, Sequence[float | int]], x: str) -> np.ndarray:
    """Return the numbers of the horizontal axis, epochs from 1."""
    longest = max((len(column) for column in columns.values()), default=0)
    if x not in columns:
        return np.arange(1, longest + 1)
    places = np.asarray(columns[x], float)
    return places + 1 if x == "epoch" and len(places) and places.min() == 0 else places


def _groups(columns: Mapping[str, Sequence[float | int]], x: str) -> dict[str, list[str]]:
    """Put losses in one panel and scores in another."""
    names = [name for name in columns if name not in {*X_COLUMNS, x}]
    losses = [name for name in names if "loss" in name.lower()]
    scores = [name for name in names if name not in losses]
    return {title: group for title, group in (("Loss", losses), ("Score", scores)) if group}


def _finish(axes: Any, title: str, x: str, best: float | None) -> None:  # noqa: ANN401
    """Give a panel its words, its grid and the mark of the best epoch."""
    ticker = require("matplotlib.ticker", extra="plot")
    if best is not None:
        axes.axvline(best, color="0.4", linestyle="--", linewidth=1, label=f"best ({x} {best:g})")
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.grid(visible=True, color="0.9")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
