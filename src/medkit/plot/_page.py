"""A page of panels in rows and columns, all of one scale in inches per millimetre."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medkit._core.optional import require

from ._planes import AXES, Plane

Box = tuple[Sequence[int], Sequence[int]]
Color = tuple[float, float, float, float]

WIDTH, HEIGHT = 10.0, 14.0  # inches, at most
LEFT, RIGHT, TOP, GAP, LEGEND = 0.32, 0.05, 0.3, 0.06, 0.4  # inches round and between panels


class Page:
    """The figure, and where its panels are.

    Args:
        planes: What the columns show.
        shape: Size of the volume in voxels.
        spacing: Size of a voxel in mm.
        rows: Names of the rows.
        legend: Whether to leave room for a legend.
    """

    def __init__(
        self,
        planes: Sequence[Plane],
        shape: Sequence[int],
        spacing: Sequence[float | int],
        *,
        rows: Sequence[str],
        legend: bool,
    ) -> None:
        lengths = [count * size for count, size in zip(shape, spacing, strict=True)]
        self.planes = planes
        self.shape = shape
        self.sizes = [plane.size(lengths) for plane in planes]
        self.bottom = LEGEND if legend else RIGHT
        wide = sum(width for _, width in self.sizes)
        high = max(height for height, _ in self.sizes) * len(rows)
        around = LEFT + RIGHT + GAP * (len(planes) - 1)
        over = TOP + self.bottom + GAP * (len(rows) - 1)
        self.scale = min((WIDTH - around) / wide, (HEIGHT - over) / high)
        self.row_height = high / len(rows) * self.scale
        self.width, self.height = around + wide * self.scale, over + high * self.scale
        figure = require("matplotlib.figure", extra="plot").Figure
        self.figure: Any = figure(figsize=(self.width, self.height))  # matplotlib is half typed
        for row, name in enumerate(rows):
            middle = self._bottom_of(row) + self.row_height / 2
            self.figure.text(
                LEFT / 2 / self.width,
                middle / self.height,
                name,
                rotation=90,
                ha="center",
                va="center",
                fontsize=11,
            )

    def panel(self, row: int, column: int) -> "Panel":
        """Make the panel of one plane; it is as high as its row, and black round the picture."""
        height, width = self.sizes[column]
        left = LEFT + sum(w * self.scale + GAP for _, w in self.sizes[:column])
        place = (left, self._bottom_of(row), width * self.scale, self.row_height)
        page = (self.width, self.height) * 2
        axes = self.figure.add_axes([a / b for a, b in zip(place, page, strict=True)])
        axes.set(xticks=[], yticks=[], facecolor="black", xlim=(0, width))
        spare = (self.row_height / self.scale - height) / 2
        axes.set_ylim(height + spare, -spare)
        axes.autoscale(enable=False)
        return Panel(axes, self.planes[column], self.shape, (height, width))

    def legend(self, colors: Mapping[str, Color]) -> None:
        """Name the colours below the panels, opaque to be told apart on white."""
        patch = require("matplotlib.patches", extra="plot").Patch
        self.figure.legend(
            handles=[patch(facecolor=color[:3], label=name) for name, color in colors.items()],
            loc="center",
            bbox_to_anchor=(0.5, self.bottom / 2 / self.height),
            ncols=len(colors),
            frameon=False,
            fontsize=11,
        )

    def _bottom_of(self, row: int) -> float:
        return self.height - TOP - (row + 1) * self.row_height - row * GAP


class Panel(NamedTuple):
    """One picture; its coordinates are mm from its upper left corner."""

    axes: Any
    plane: Plane
    shape: Sequence[int]
    size: tuple[float, float]

    def show(
        self, grey: np.ndarray, colors: np.ndarray | None, window: tuple[float, float]
    ) -> None:
        """Draw the grey picture and, over it, colours (rows, columns, RGBA)."""
        height, width = self.size
        extent = (0.0, width, height, 0.0)
        self.axes.imshow(
            grey, cmap="gray", vmin=window[0], vmax=window[1], extent=extent, aspect="auto"
        )
        if colors is not None:
            self.axes.imshow(colors, extent=extent, aspect="auto", interpolation="nearest")

    def title(self, index: int) -> None:
        """Say which plane it is."""
        where = f"{AXES[self.plane.through]} = {index}"
        name = f"{self.plane.name}, {where}" if self.plane.name else where
        self.axes.set_title(name, fontsize=min(11.0, self._fitting(name)), pad=4)

    def mark_sides(self) -> None:
        """Write which side of the patient lies at each edge of the picture."""
        if self.plane.letters is None:
            return
        height, width = self.size
        top, bottom, left, right = self.plane.letters
        inset = 0.02 * width
        self.write(top, (width / 2, inset), va="top", weight="bold")
        self.write(bottom, (width / 2, height - inset), va="bottom", weight="bold")
        self.write(left, (inset, height / 2), ha="left", weight="bold")
        self.write(right, (width - inset, height / 2), ha="right", weight="bold")

    def scale_bar(self) -> None:
        """Draw a bar of 1, 2 or 5 times a power of ten mm, at most a third of the width."""
        height, width = self.size
        length = round_length(width / 3)
        x, y = 0.05 * width, height - 0.05 * width
        self.axes.plot([x, x + length], [y, y], color="white", linewidth=3, solid_capstyle="butt")
        words = f"{length:g} mm"
        widest = self._fitting(words)
        size = min(9.0, 0.9 * widest)
        middle = max(x + length / 2, x + size / widest * width / 2)
        self.write(words, (middle, y - 0.02 * width), va="bottom", size=size)

    def outline(self, boxes: Mapping[str, Box], index: int, *, named: bool) -> None:
        """Draw the boxes that the plane cuts."""
        rectangle = require("matplotlib.patches", extra="plot").Rectangle
        per_row, per_column = (
            length / count
            for length, count in zip(self.size, self.plane.size(self.shape), strict=True)
        )
        for name, (start, stop) in boxes.items():
            if not start[self.plane.through] <= index < stop[self.plane.through]:
                continue
            row, column, rows, columns = self.plane.span(start, stop, self.shape)
            x, y = column * per_column, row * per_row
            frame = rectangle(
                (x, y),
                columns * per_column,
                rows * per_row,
                fill=False,
                edgecolor="white",
                linestyle="--",
                linewidth=1.2,
            )
            self.axes.add_patch(frame)
            if named:
                inset = 0.02 * self.size[1]
                self.write(name, (x + inset, y + inset), ha="left", va="top")

    def _fitting(self, text: str) -> float:
        """Return the size in points at which a text is as wide as the panel."""
        inches = self.axes.get_position().width * self.axes.figure.get_figwidth()
        return 72 * inches / (0.61 * len(text))  # a letter is about 0.6 times as wide as high

    def write(
        self,
        text: str,
        place: tuple[float, float],
        *,
        ha: str = "center",
        va: str = "center",
        size: float = 9.0,
        weight: str = "normal",
    ) -> None:
        """Write white letters with a dark edge; I, for inferior, has its bars."""
        stroke = require("matplotlib.patheffects", extra="plot").withStroke
        self.axes.text(
            *place,
            text,
            ha=ha,
            va=va,
            color="white",
            fontsize=size,
            weight=weight,
            family="monospace",
            path_effects=[stroke(linewidth=2, foreground="black")],
        )


def round_length(longest: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above ``longest``."""
    power = 10.0 ** math.floor(math.log10(longest))
    return next(power * step for step in (5, 2, 1) if power * step <= longest)
