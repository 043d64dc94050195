"""Curves show the numbers that were logged, each where it belongs."""

import io

import numpy as np
import pytest

from medkit.plot import history
from medkit.train import History

RUN = {
    "epoch": [0, 1, 2, 3],
    "step": [10, 20, 30, 40],
    "train_loss": [0.9, 0.5, 0.4, 0.35],
    "dice": [0.3, float("nan"), 0.8, 0.7],
    "iou": [0.2, 0.4, 0.6, 0.5],
}


def test_losses_and_scores_have_panels_of_their_own() -> None:
    figure = history(RUN)
    curves = {a.get_title(): [line.get_label() for line in a.lines] for a in figure.axes}

    assert curves == {"Loss": ["train_loss"], "Score": ["dice", "iou"]}


def test_curves_are_the_columns_with_epochs_from_one() -> None:
    loss, score = history(RUN).axes

    assert loss.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert loss.lines[0].get_ydata().tolist() == RUN["train_loss"]
    assert score.lines[0].get_xdata().tolist() == [1, 3, 4]
    assert score.lines[0].get_ydata().tolist() == [0.3, 0.8, 0.7]


def test_takes_another_column_for_the_horizontal_axis() -> None:
    (axes, _) = history(RUN, x="step").axes

    assert axes.lines[0].get_xdata().tolist() == RUN["step"]
    assert axes.get_xlabel() == "step"


def test_counts_where_there_is_no_such_column() -> None:
    (axes,) = history({"loss": [3.0, 2.0]}).axes

    assert axes.lines[0].get_xdata().tolist() == [1, 2]


def test_marks_the_best_epoch_in_every_panel() -> None:
    figure = history(RUN, best="dice")

    for axes in figure.axes:
        mark = axes.lines[-1]
        assert mark.get_label() == "best (epoch 3)"
        assert set(mark.get_xdata()) == {3}


def test_panels_can_be_chosen() -> None:
    figure = history(RUN, panels={"Overlap": ["iou"], "Optimisation": ["train_loss", "dice"]})

    assert [axes.get_title() for axes in figure.axes] == ["Overlap", "Optimisation"]
    assert len(figure.axes[1].lines) == 2


def test_curves_of_a_panel_differ_in_colour_and_marker() -> None:
    (axes,) = history({f"score {i}": [0.1, 0.2] for i in range(5)}).axes

    assert len({line.get_color() for line in axes.lines}) == 5
    assert len({line.get_marker() for line in axes.lines}) == 5


def test_takes_the_history_of_a_run() -> None:
    run = History()
    run.log_epoch(5, epoch=0, values={"train_loss": 1.0})
    run.log_epoch(10, epoch=1, values={"train_loss": 0.5, "dice": 0.9})
    figure = history(run.epochs, best="dice")
    figure.savefig(io.BytesIO(), format="png")

    assert np.array_equal(figure.axes[1].lines[0].get_xdata(), [2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"panels": {"a": ["nothing"]}}, r"panels must be names of columns, epoch.*'nothing'"),
        ({"best": "nothing"}, r"columns must be names of columns, epoch.*'nothing'"),
    ],
)
def test_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        history(RUN, **options)


def test_refuses_to_show_nothing() -> None:
    with pytest.raises(ValueError, match="columns must be names of columns, epoch; got nothing"):
        history({"epoch": [0, 1]})
