"""Boundaries lie where their rows are, to scale."""

import numpy as np
import pytest
import torch

from medkit.plot import layers


def test_lines_are_at_their_rows_in_mm() -> None:
    rows = torch.tensor([2.5, 3.0, float("nan"), 4.0])
    figure = layers(
        torch.rand(10, 4),
        {"ILM": rows, "BM": rows + 4},
        std={"BM": torch.full((4,), 0.5)},
        spacing=(0.5, 2.0),
    )
    axes = figure.axes[0]
    top, bottom = axes.lines[:2]

    assert tuple(axes.images[0].get_extent()) == (0.0, 8.0, 5.0, 0.0)
    assert np.allclose(top.get_xdata(), [1, 3, 5, 7])
    assert np.allclose(top.get_ydata(), [1.25, 1.5, np.nan, 2.0], equal_nan=True)
    assert np.allclose(bottom.get_ydata() - top.get_ydata(), [2, 2, np.nan, 2], equal_nan=True)
    band = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    assert band[:, 1].min() == pytest.approx(1.25 + 2 - 0.25)
    assert band[:, 1].max() == pytest.approx(2.0 + 2 + 0.25)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ILM", "BM"]
    assert top.get_color() != bottom.get_color()


def test_no_length_is_made_up_where_none_is_known() -> None:
    image, rows = torch.rand(10, 4), {"ILM": torch.full((4,), 3.0)}

    known, unknown = (layers(image, rows, spacing=mm).axes[0] for mm in ((0.5, 2.0), None))

    assert [text.get_text() for text in known.texts] == ["2 mm"]
    assert not unknown.texts


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"image": torch.rand(2, 8, 4)}, r"image must be of shape \(H, W\)"),
        ({"rows": {"ILM": torch.zeros(5)}}, r"rows\['ILM'\] must be of shape \(4,\)"),
        ({"std": {"BM": torch.zeros(4)}}, "std must be of boundaries out of ILM"),
        ({"colors": ["red", "blue"]}, "colors must be 1, one per boundary"),
    ],
)
def test_what_does_not_fit_is_an_error(arguments: dict, match: str) -> None:
    given = {"image": torch.rand(8, 4), "rows": {"ILM": torch.zeros(4)}} | arguments
    with pytest.raises(ValueError, match=match):
        layers(given.pop("image"), given.pop("rows"), **given)
