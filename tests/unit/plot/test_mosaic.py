"""A mosaic shows the slices it says, with outlines and colours where they belong, to scale."""

import io

import numpy as np
import pytest
import torch

from medkit.data import Volume
from medkit.plot import mosaic, overlay

SAR = np.array([[0, 0, 1.0, 0], [0, 2.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])


def panels(figure) -> list:
    return [axes for axes in figure.axes if len(axes.images) and axes.texts]


def test_slices_are_cut_and_turned_as_in_an_overlay() -> None:
    volume = Volume(torch.rand(1, 6, 8, 10), SAR)
    axial = overlay(volume, position=(2, 4, 5)).axes[2]

    for convention in ("neurological", "radiological"):
        shown = panels(mosaic(volume, indices=[2, 5], convention=convention))
        expected = axial.images[0].get_array()
        if convention == "radiological":
            expected = expected[:, ::-1]
        assert np.array_equal(shown[0].images[0].get_array(), expected)
        assert shown[0].images[0].get_extent() == axial.images[0].get_extent()
        assert [axes.texts[0].get_text() for axes in shown] == ["2", "5"]


def test_panels_are_true_to_the_spacing() -> None:
    figure = mosaic(torch.rand(6, 8, 10), axis=1, spacing=(3, 2, 1))
    inches = figure.get_size_inches()
    assert len(panels(figure)) == 8
    for axes in panels(figure):
        across, up = axes.get_position().size * inches
        left, right = axes.get_xlim()
        bottom, top = axes.get_ylim()
        assert (right - left, bottom - top) == pytest.approx((10, 18))
        assert across / 10 == pytest.approx(up / 18)
    bare = mosaic(torch.rand(6, 8, 10), axis=1)
    known, unknown = (
        any("mm" in text.get_text() for text in panels(each)[0].texts) for each in (figure, bare)
    )
    assert known
    assert not unknown


def test_slices_are_taken_where_there_is_something_to_see() -> None:
    image, labels, heat = (torch.zeros(40, 8, 9) for _ in range(3))
    labels[10:13, 2, 2] = 1
    heat[20:35, 1, 1] = 1.0

    def numbers(**maps: torch.Tensor) -> list[int]:
        return [int(axes.texts[0].get_text()) for axes in panels(mosaic(image, **maps))]

    assert numbers(labels=labels.int()) == [10, 11, 12]
    assert numbers(heat=heat)[0::11] == [20, 34]
    assert numbers()[0::11] == [0, 39]


def test_labels_are_outlined_also_at_the_edge() -> None:
    labels = torch.zeros(1, 8, 10, dtype=torch.int64)
    labels[0, 5:, 7:] = 3
    figure = mosaic(torch.rand(1, 8, 10), labels=labels, names={3: "lesion"}, spacing=(1, 2, 1))
    (contour,) = panels(figure)[0].collections
    points = np.concatenate([path.vertices for path in contour.get_paths()])

    assert points.min(0) == pytest.approx([7, 10])  # mm from the upper left corner
    assert points.max(0) == pytest.approx([10, 16])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lesion"]


def test_colours_of_a_map_are_where_it_is_high_and_nowhere_else() -> None:
    heat = torch.zeros(1, 8, 8)
    heat[0, 2, 3], heat[0, 5, 5], heat[0, 0, 0] = 0.6, 0.04, float("nan")
    figure = mosaic(torch.zeros(1, 8, 8), heat=heat, heat_label="entropy (nats)")
    colours = panels(figure)[0].images[1]
    alpha = np.broadcast_to(colours.get_alpha(), (8, 8))

    assert (colours.norm.vmin, colours.norm.vmax) == (0.0, pytest.approx(0.6))
    assert alpha[2, 3] == pytest.approx(0.7)
    assert np.count_nonzero(alpha) == 1
    assert "entropy (nats)" in [text.get_text() for text in figure.texts]
    figure.savefig(stream := io.BytesIO(), dpi=50)
    stream.seek(0)
    picture = pytest.importorskip("matplotlib.image").imread(stream)
    box = panels(figure)[0].get_position()
    x = box.x0 + box.width * 3.5 / 8
    y = 1 - (box.y1 - box.height * 2.5 / 8)
    pixel = picture[int(y * picture.shape[0]), int(x * picture.shape[1]), :3]
    assert pixel == pytest.approx(0.7 * np.array([0.988, 1.0, 0.644]), abs=0.02)  # inferno's last


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"axis": 3}, "axis must be one of 0, 1, 2"),
        ({"indices": [6]}, "indices must be slices below 6"),
        ({"indices": []}, "indices must be slices below 6"),
        ({"labels": torch.zeros(5, 8, 9) > 0}, r"labels must be of shape \(6, 8, 9\)"),
        ({"heat": torch.zeros(6, 8, 9), "heat_range": (1, 1)}, "heat_range must be two values"),
    ],
)
def test_bad_options_are_errors(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        mosaic(torch.rand(6, 8, 9), **options)


def test_maps_without_a_value_and_without_labels_are_drawn() -> None:
    image = torch.rand(3, 8, 9)
    for heat in (torch.zeros(3, 8, 9), torch.full((3, 8, 9), float("nan"))):
        mosaic(image, heat=heat).savefig(io.BytesIO(), dpi=40)
    mosaic(image, labels=torch.zeros(3, 8, 9, dtype=torch.int64)).savefig(io.BytesIO(), dpi=40)


def test_a_float_map_is_no_map_of_labels() -> None:
    with pytest.raises(TypeError, match=r"^labels must be labels, integers .*; got float"):
        mosaic(torch.rand(3, 8, 9), labels=torch.rand(3, 8, 9))
