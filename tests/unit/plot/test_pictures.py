"""Pictures look as they did when somebody looked at them last."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from unit.plot.pictures import PICTURES, pixels

GOLDEN = Path(__file__).parents[2] / "golden" / "plots"
TOLERANCE = 2.0  # root mean square of grey levels of 255; the smallest fault below makes 5

pytestmark = pytest.mark.skipif(
    not version("matplotlib").startswith("3.11."),
    reason="the pictures are by matplotlib 3.11; letters and margins differ in others",
)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Return the root mean square difference in grey levels; infinite between two sizes."""
    if first.shape != second.shape:
        return float("inf")
    return float(np.sqrt(np.mean((first.astype(float) - second.astype(float)) ** 2)))


def golden(name: str) -> np.ndarray:
    image = pytest.importorskip("matplotlib.image")
    return np.round(255 * image.imread(GOLDEN / f"{name}.png")[..., :3]).astype(np.uint8)


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_pictures_are_those_that_were_looked_at(name: str) -> None:
    assert difference(pixels(PICTURES[name]()), golden(name)) < TOLERANCE


def test_every_public_function_has_a_picture() -> None:
    from medkit import plot

    assert set(plot.__all__) <= set(PICTURES)


def without_lines(figure) -> None:
    for axes in figure.axes:
        for line in list(axes.lines):
            line.remove()


def without_outlines(figure) -> None:
    for axes in figure.axes:
        for each in list(axes.collections):
            each.remove()


def without_colours(figure) -> None:
    for axes in figure.axes:
        for image in axes.images[1:]:
            image.remove()


def of_other_aspect(figure) -> None:
    for axes in figure.axes:
        left, right = axes.get_xlim()
        axes.set_xlim(left, right + 0.1 * (right - left))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("overlay", without_lines),
        ("overlay", without_colours),
        ("overlay", of_other_aspect),
        ("mosaic", without_outlines),
        ("grad_cam", without_lines),
        ("layers", without_lines),
        ("layers", without_outlines),
        ("history", without_lines),
        ("reliability_diagram", without_outlines),
        ("scene", without_outlines),
    ],
)
def test_a_fault_is_seen(name: str, fault: Callable[..., None]) -> None:
    figure = PICTURES[name]()
    fault(figure)

    assert difference(pixels(figure), golden(name)) > 1.5 * TOLERANCE
