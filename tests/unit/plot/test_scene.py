"""Points and surfaces stand where they are in mm, of one scale along all axes."""

import io

import numpy as np
import pytest
import torch

from medkit.plot import scene


def test_dots_are_at_their_places_and_axes_have_one_scale() -> None:
    points = torch.rand(50, 3) * torch.tensor([10.0, 20.0, 40.0])
    figure = scene({"skeleton": points, "none": torch.zeros(0, 3)})
    axes = figure.axes[0]

    assert np.allclose(np.stack(axes.collections[0]._offsets3d).T, points, atol=1e-5)
    sizes = [np.ptp(limits) for limits in (axes.get_xlim(), axes.get_ylim(), axes.get_zlim())]
    assert np.allclose(sizes, np.ptp(points.numpy(), 0), rtol=1e-5)
    assert np.allclose(axes._box_aspect / np.array(sizes), axes._box_aspect[0] / sizes[0])


def test_surfaces_have_their_triangles() -> None:
    corners = np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9.0]])
    faces = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])
    figure = scene({"organ": corners, "line": corners * 2}, triangles={"organ": faces})
    surface, dots = figure.axes[0].collections
    figure.savefig(io.BytesIO(), dpi=40)

    assert np.shape(surface._faces)[0] == 4
    assert len(dots._offsets3d[0]) == 4
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["organ", "line"]


def test_many_dots_are_thinned_out() -> None:
    axes = scene({"dense": torch.rand(1000, 3)}, max_points=300).axes[0]

    assert len(axes.collections[0]._offsets3d[0]) == 250


def test_what_is_no_scene_is_an_error() -> None:
    for call in (
        lambda: scene({}),
        lambda: scene({"a": torch.zeros(0, 3)}),
        lambda: scene({"a": torch.zeros(4, 2)}),
        lambda: scene({"a": torch.zeros(4, 3)}, triangles={"b": torch.zeros(1, 3)}),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()
