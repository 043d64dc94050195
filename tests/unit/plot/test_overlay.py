"""Pictures show every voxel where it is in the patient, to scale, in colours that can be read."""

import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import Tensor

from medkit.data import Volume
from medkit.plot import overlay
from medkit.plot._page import round_length
from medkit.plot._palette import OKABE_ITO, palette
from unit.losses.refusals import refuses

SAR = np.array([[0, 0, 1.0, 0], [0, 2.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
"""Axes d, h, w to Superior, Anterior, Right; voxels of 3 x 2 x 1 mm."""


def head() -> tuple[Volume, Volume]:
    """A grey volume and one labelled voxel block: at the top, in front, on the right."""
    image = Volume(torch.rand(1, 6, 8, 10), SAR)
    label = torch.zeros(1, 6, 8, 10, dtype=torch.uint8)
    label[0, 5, 7, 8:] = 1
    label[0, 4, 7, 9] = 1
    return image, image.like(label)


def coloured(axes) -> np.ndarray:
    """Where a panel is painted."""
    return np.asarray(axes.images[1].get_array())[..., 3] > 0


@pytest.mark.parametrize(
    ("convention", "sagittal", "coronal_column"),
    [("neurological", (0, -1), slice(-2, None)), ("radiological", (0, 0), slice(0, 2))],
)
def test_every_side_of_the_patient_is_where_the_convention_puts_it(
    convention: str, sagittal: tuple[int, int], coronal_column: slice
) -> None:
    image, label = head()
    panels = overlay(image, {"Truth": label}, convention=convention).axes[3:]
    painted = [coloured(axes) for axes in panels]

    assert painted[0][sagittal]
    assert painted[0].sum() == 2
    assert painted[1][0, coronal_column].all()
    assert painted[2][0, coronal_column].all()
    letters = [[text.get_text() for text in axes.texts] for axes in panels]
    front, right = ("PA", "LR") if convention == "neurological" else ("AP", "RL")
    assert letters == [["S", "I", *front], ["S", "I", *right], ["A", "P", *right]]


FLIPS = ["".join(code) for code in itertools.product("SI", "AP", "RL")]
ORDERS = ["".join(code) for code in itertools.permutations("RAS")]


@pytest.mark.parametrize("axcodes", [*FLIPS, *ORDERS, "ILP", "PIL"])
def test_the_picture_does_not_depend_on_the_order_of_the_file(axcodes: str) -> None:
    image, label = head()
    reference = overlay(image, {"Truth": label})
    figure = overlay(image.to_axcodes(axcodes), {"Truth": label.to_axcodes(axcodes)})

    for ours, expected in zip(figure.axes, reference.axes, strict=True):
        assert np.allclose(ours.get_position().bounds, expected.get_position().bounds)
        for picture, other in zip(ours.images, expected.images, strict=True):
            assert np.array_equal(picture.get_array(), other.get_array())
            assert picture.get_extent() == other.get_extent()


def test_panels_are_true_to_the_spacing_and_of_one_scale() -> None:
    figure = overlay(*_pair(head()))
    inches = figure.get_size_inches()
    scales = []
    for axes in figure.axes:
        size = axes.get_position().size * inches
        left, right = axes.get_xlim()
        bottom, top = axes.get_ylim()
        scales += [size[0] / (right - left), size[1] / (bottom - top)]

    extents = [tuple(axes.images[0].get_extent()) for axes in figure.axes[:3]]
    assert extents == [(0, 16, 18, 0), (0, 10, 18, 0), (0, 10, 16, 0)]
    assert np.allclose(scales, scales[0])


def test_no_scale_bar_where_the_size_of_a_voxel_is_unknown() -> None:
    for axes in overlay(torch.rand(4, 5, 6)).axes:
        assert not axes.lines
        assert not any("mm" in text.get_text() for text in axes.texts)


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    image = torch.rand(40, 50, 60)
    for axes in overlay(image, spacing=(3, 2, 1.5)).axes:
        (bar,) = axes.lines
        (words,) = (text.get_text() for text in axes.texts if text.get_text().endswith(" mm"))
        start, end = bar.get_xdata()

        assert end - start == pytest.approx(float(words.removesuffix(" mm")))
        assert end - start <= axes.get_xlim()[1] / 3


@pytest.mark.parametrize(
    ("longest", "length"), [(61.0, 50), (50.0, 50), (49.0, 20), (0.13, 0.1), (3.0, 2)]
)
def test_bars_have_round_lengths(longest: float, length: float) -> None:
    assert round_length(longest) == pytest.approx(length)


def test_planes_go_through_most_of_the_first_map() -> None:
    label = torch.zeros(9, 9, 9, dtype=torch.int64)
    label[2, 3, 1:8] = 4
    label[2, 2:5, 6] = 4
    titles = [axes.get_title() for axes in overlay(label, {"Truth": label}).axes[:3]]

    assert titles == ["d = 2", "h = 3", "w = 6"]


def test_planes_go_through_the_middle_without_a_map() -> None:
    assert [a.get_title() for a in overlay(torch.rand(9, 5, 3)).axes] == ["d = 4", "h = 2", "w = 1"]


def test_planes_go_through_the_position() -> None:
    image, _ = head()
    figure = overlay(image, position=(1, 2, 3))

    assert [a.get_title() for a in figure.axes] == [
        "sagittal, w = 3",
        "coronal, h = 2",
        "axial, d = 1",
    ]
    sagittal = image.data[0, :, :, 3].numpy()[::-1]
    assert np.array_equal(figure.axes[0].images[0].get_array(), sagittal)


def test_labels_have_their_names_and_colours() -> None:
    label = torch.tensor([[0, 1], [2, 3]])
    figure = overlay(
        label.float(),
        {"Truth": label},
        names={2: "cyst", 3: "kidney"},
        colors=["red", "#00ff00"],
        alpha=0.5,
    )
    legend = figure.legends[0]
    pixels = np.asarray(figure.axes[1].images[1].get_array())

    assert [text.get_text() for text in legend.get_texts()] == ["cyst", "kidney"]
    assert [tuple(patch.get_facecolor()) for patch in legend.get_patches()] == [
        (1, 0, 0, 1),
        (0, 1, 0, 1),
    ]
    assert pixels.tolist() == [[[0, 0, 0, 0], [0, 0, 0, 0]], [[1, 0, 0, 0.5], [0, 1, 0, 0.5]]]


def test_all_labels_but_zero_are_shown_unless_named() -> None:
    maps = {"Truth": torch.tensor([[0, 5]] * 2), "Prediction": torch.tensor([[0, 2]] * 2)}
    figure = overlay(torch.rand(2, 2), maps)

    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["2", "5"]
    assert [text.get_text() for text in figure.texts] == ["Image", "Truth", "Prediction"]


def test_boolean_maps_are_labels() -> None:
    image = torch.rand(4, 5)

    assert (
        coloured(overlay(image, {"Bright": image > 0.5}).axes[1]).tolist() == (image > 0.5).tolist()
    )


@pytest.mark.parametrize("image", [torch.rand(7, 9), torch.rand(1, 1, 7, 9), np.ones((1, 7, 9))])
def test_a_flat_image_has_one_panel(image: Tensor) -> None:
    (axes,) = overlay(image, spacing=(2, 3) if image.ndim == 2 else (1, 2, 3)).axes

    assert tuple(axes.images[0].get_extent()) == (0, 27, 14, 0)


@pytest.mark.parametrize(
    ("axcodes", "corner"), [("SAR", (14.0, 0.0)), ("SPR", (0.0, 0.0)), (None, (14.0, 0.0))]
)
def test_boxes_are_outlined_in_the_planes_that_cut_them(
    axcodes: str | None, corner: tuple[float, float]
) -> None:
    figure = overlay(
        torch.rand(6, 10, 8),
        spacing=(1, 2, 1),
        axcodes=axcodes,
        position=(3, 3, 4),
        boxes={"unseen": ((0, 7, 0), (6, 10, 8))},
    )
    drawn = {axes.get_title(): axes.patches for axes in figure.axes}
    (box,) = next(patches for title, patches in drawn.items() if title.endswith("w = 4"))

    assert box.get_xy() == corner
    assert (box.get_width(), box.get_height()) == (6, 6)
    assert not next(patches for title, patches in drawn.items() if title.endswith("h = 3"))
    assert "unseen" in [text.get_text() for text in figure.axes[0].texts]


def test_intensities_run_from_black_to_white_whatever_their_range() -> None:
    image = torch.rand(5, 6) * 1e4 - 300
    image[0, 0] = torch.nan
    picture = overlay(image).axes[0].images[0]

    low, high = np.nanpercentile(image.numpy(), (0.5, 99.5))
    assert picture.get_clim() == pytest.approx((low, high), rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 7.0, torch.nan])
def test_a_uniform_image_is_shown(value: float) -> None:
    figure = overlay(torch.full((5, 6), value))
    figure.savefig(io.BytesIO(), format="png")

    assert len(figure.axes) == 1


def test_a_tall_volume_stays_on_the_page() -> None:
    width, height = overlay(
        torch.rand(200, 4, 4), {"a": torch.ones(200, 4, 4) > 0}
    ).get_size_inches()

    assert height == pytest.approx(14)
    assert width < 10


def test_saves_to_a_file() -> None:
    stream = io.BytesIO()
    overlay(*_pair(head())).savefig(stream, format="png", dpi=30)

    assert stream.getvalue().startswith(b"\x89PNG")


def test_uses_no_global_state_of_matplotlib() -> None:
    code = (
        "import sys, torch; from medkit.plot import overlay, history;"
        "assert 'matplotlib' not in sys.modules;"
        "overlay(torch.rand(3, 3, 3)); history({'loss': [1.0]});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("vision", ["normal", "protan", "deutan", "tritan"])
def test_first_colours_stay_apart_for_every_kind_of_colour_vision(vision: str) -> None:
    color = pytest.importorskip("skimage.color")
    # Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision
    # Deficiency", IEEE TVCG 15(6), 2009, severity 1.0; applied to linear RGB.
    matrices = {
        "normal": "1 0 0; 0 1 0; 0 0 1",
        "protan": "0.152286 1.052583 -0.204868; 0.114503 0.786281 0.099216; "
        "-0.003882 -0.048116 1.051998",
        "deutan": "0.367322 0.860646 -0.227968; 0.280085 0.672501 0.047413; "
        "-0.011820 0.042940 0.968881",
        "tritan": "1.255528 -0.076749 -0.178779; -0.078411 0.930809 0.147602; "
        "0.004733 0.691367 0.303900",
    }
    matrix = np.array([[float(v) for v in row.split()] for row in matrices[vision].split(";")])
    for grey in (0.5, 0.75):  # seen through at the default opacity
        rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in OKABE_ITO[:3]])
        rgb = 0.6 * rgb + 0.4 * grey
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen = np.clip(linear @ matrix.T, 0, 1)
        srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        lab = color.rgb2lab(srgb[None])[0]
        gaps = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]

        assert min(gaps) > 20  # a just noticeable difference is about 2.3


def test_many_labels_get_many_colours() -> None:
    assert len(set(palette(30))) == 30
    assert palette(3) == OKABE_ITO[:3]


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        (
            {"Truth": torch.ones(4, 5, 7, dtype=torch.uint8)},
            {},
            r"maps\['Truth'\] must be of shape \(4, 5, 6\)",
        ),
        ({"Truth": torch.ones(2, 4, 5, 6)}, {}, r"maps\['Truth'\] must be \(D, H, W\)"),
        ({}, {"alpha": 1.5}, r"alpha must be in \[0, 1\]; got 1.5"),
        ({}, {"spacing": (1, 0, 1)}, "spacing must be positive; got 0"),
        ({}, {"spacing": (1, 1, 1, 1)}, "spacing must be one value or 3"),
        ({}, {"axcodes": "SAX"}, "axcodes must be one letter of each of R/L, A/P and S/I"),
        ({}, {"axcodes": "SAI"}, "axcodes must be one letter of each of R/L, A/P and S/I"),
        ({}, {"position": (1, 5, 1)}, r"position must be a voxel of \(4, 5, 6\); got \(1, 5, 1\)"),
        ({}, {"position": (1, 1)}, "position must be one value or 3"),
        (
            {"Truth": torch.ones(4, 5, 6) > 0},
            {"colors": ["red", "blue"]},
            "colors must be 1, one per label",
        ),
    ],
)
def test_refuses(maps: dict[str, Tensor], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlay(torch.rand(4, 5, 6), maps, **options)


def _pair(pair: tuple[Volume, Volume]) -> tuple[Volume, dict[str, Volume]]:
    return pair[0], {"Truth": pair[1]}


def test_a_map_in_another_place_is_an_error() -> None:
    image = Volume(torch.zeros(1, 4, 5, 6), np.diag([3.0, 1.0, 1.0, 1.0]))
    elsewhere = Volume(torch.ones(1, 4, 5, 6), np.eye(4))

    with pytest.raises(ValueError, match=r"maps\['Truth'\] must be where the image is"):
        overlay(image, {"Truth": elsewhere.like(elsewhere.data.bool())})


@pytest.mark.parametrize(
    ("maps", "options", "argument"),
    [
        ({"Truth": torch.rand(4, 5, 6)}, {}, r"maps\['Truth'\]"),
        (torch.ones(4, 5, 6, dtype=torch.uint8), {}, "maps"),
        ({"Truth": torch.ones(4, 5, 6) > 0}, {"names": ["one"]}, "names"),
    ],
)
def test_what_is_no_map_of_labels_is_refused(maps, options, argument: str) -> None:
    with refuses(argument):
        overlay(torch.rand(4, 5, 6), maps, **options)


def test_one_spacing_is_that_of_every_axis() -> None:
    image = torch.rand(4, 5, 6)
    limits = [[axes.get_xlim() for axes in overlay(image, spacing=s).axes] for s in (2.0, (2,) * 3)]
    assert limits[0] == limits[1]


@pytest.mark.parametrize("shape", [(60, 60, 4), (200, 4, 6), (40, 40, 40)])
def test_the_words_of_the_scale_bar_stay_in_their_panel(shape: tuple[int, ...]) -> None:
    figure = overlay(torch.rand(*shape), spacing=1)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes:
        (words,) = (text for text in axes.texts if text.get_text().endswith(" mm"))
        box, panel = words.get_window_extent(canvas.get_renderer()), axes.get_window_extent()
        assert panel.x0 <= box.x0
        assert box.x1 <= panel.x1


def test_sides_are_marked_in_bold() -> None:
    texts = overlay(head()[0]).axes[0].texts
    assert {t.get_weight() for t in texts if not t.get_text().endswith("mm")} == {"bold"}
