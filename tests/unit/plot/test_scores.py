"""Confusion matrices and reliability diagrams show the numbers they are of."""

import numpy as np
import pytest
import torch

from medkit.plot import confusion_matrix, reliability_diagram


def test_cells_show_share_and_count_of_the_true_class_in_rows() -> None:
    counts = torch.tensor([[6, 2, 0], [1, 1, 2], [0, 0, 0]])
    axes = confusion_matrix(counts, names=("a", "b", "c")).axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}

    assert texts[1, 0] == "25 %\n2"  # x is the predicted class
    assert texts[0, 1] == "25 %\n1"
    assert texts[2, 2] == "0"  # no cases, no share
    assert np.allclose(axes.images[0].get_array()[:2], [[0.75, 0.25, 0], [0.25, 0.25, 0.5]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_text_stands_out_from_its_cell() -> None:
    axes = confusion_matrix(np.array([[9, 1], [5, 5]])).axes[0]

    assert [text.get_color() for text in axes.texts] == ["white", "black", "black", "black"]


def test_points_are_those_of_a_loop_over_the_bins() -> None:
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.random(500), [0.0, 0.1, 0.3, 1.0]])
    correct = rng.random(504) < confidence**2
    figure = reliability_diagram(torch.from_numpy(confidence), torch.from_numpy(correct))
    line = next(line for line in figure.axes[0].lines if line.get_label() == "share right")
    error, means, shares, counts = 0.0, [], [], []
    for b in range(10):
        inside = (confidence > b / 10) & (confidence <= (b + 1) / 10)
        if b == 0:
            inside |= confidence == 0
        means.append(confidence[inside].mean())
        shares.append(correct[inside].mean())
        counts.append(inside.sum())
        error += inside.mean() * abs(means[-1] - shares[-1])

    assert np.allclose(line.get_xdata(), means)
    assert np.allclose(line.get_ydata(), shares)
    assert [bar.get_height() for bar in figure.axes[1].patches] == counts
    assert figure.axes[0].get_title() == f"ECE {error:.3f}"


def test_numbers_that_make_no_picture_are_errors() -> None:
    for call in (
        lambda: confusion_matrix(np.zeros((2, 3))),
        lambda: confusion_matrix(np.array([[1, -1], [0, 1]])),
        lambda: confusion_matrix(np.eye(2), names=("a",)),
        lambda: reliability_diagram(np.array([0.5]), np.array([1, 0])),
        lambda: reliability_diagram(np.array([]), np.array([])),
        lambda: reliability_diagram(np.array([1.5]), np.array([1])),
        lambda: reliability_diagram(np.array([float("nan")]), np.array([1])),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()


def test_a_share_that_is_right_is_refused() -> None:
    with pytest.raises(ValueError, match=r"correct must be 0 or 1; got 0\.3 to 1"):
        reliability_diagram(np.array([0.5, 0.7]), np.array([0.3, 1.0]))
