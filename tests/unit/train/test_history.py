"""Histories keep every number, in files that other programs read."""

import csv
import json
import math
from pathlib import Path

import pytest

from medkit.train import History, StepInfo


def _history() -> History:
    history = History()
    for step in range(1, 5):
        info = StepInfo(stepped=True, loss=1 / step, grad_norm=2.0, lr=1e-3 / 3, skipped=False)
        history.log_step(step, epoch=(step - 1) // 2, info=info)
        if step % 2 == 0:
            values = {"train_loss": 0.1 * step} | ({"dice": 0.3} if step == 4 else {})
            history.log_epoch(step, epoch=(step - 1) // 2, values=values)
    return history


def test_columns_are_as_long_as_their_table() -> None:
    history = _history()

    assert {len(column) for column in history.steps.values()} == {4}
    assert list(history.epochs["step"]) == [2.0, 4.0]
    assert math.isnan(history.epochs["dice"][0])
    assert history.epochs["dice"][1] == 0.3


def test_a_number_that_is_left_out_later_is_nan() -> None:
    history = _history()
    history.log_epoch(6, epoch=2, values={"train_loss": 0.5})

    assert math.isnan(history.epochs["dice"][2])


def test_mean_loss_is_that_of_the_epochs_steps() -> None:
    history = _history()

    assert history.mean_loss(0) == (1 + 1 / 2) / 2
    assert history.mean_loss(1) == pytest.approx((1 / 3 + 1 / 4) / 2, rel=1e-15)
    assert math.isnan(history.mean_loss(2))


def test_json_lines_hold_every_number_exactly_in_order(tmp_path: Path) -> None:
    _history().save(tmp_path / "h.jsonl")

    rows = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]

    assert [("train_loss" in row, row["step"]) for row in rows] == [
        (False, 1), (False, 2), (True, 2), (False, 3), (False, 4), (True, 4),
    ]  # fmt: skip
    assert rows[3] == {"step": 3, "epoch": 1, "loss": 1 / 3, "lr": 1e-3 / 3, "grad_norm": 2.0}
    assert rows[5] == {"epoch": 1, "step": 4, "train_loss": 0.4, "dice": 0.3}


def test_csv_is_one_table_with_blanks(tmp_path: Path) -> None:
    _history().save(str(tmp_path / "h.csv"))

    with (tmp_path / "h.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))

    assert list(rows[0]) == ["step", "epoch", "loss", "lr", "grad_norm", "train_loss", "dice"]
    assert [row["step"] for row in rows] == ["1", "2", "2", "3", "4", "4"]
    assert float(rows[3]["loss"]) == 1 / 3
    assert rows[2]["loss"] == rows[2]["dice"] == ""
    assert rows[5]["dice"] == "0.3"


def test_a_state_brings_back_every_row() -> None:
    history, copy = _history(), History()

    copy.load_state_dict(history.state_dict())

    assert list(copy.rows()) == list(history.rows())
    info = StepInfo(stepped=True, loss=1.0, grad_norm=1.0, lr=1.0, skipped=False)
    copy.log_step(5, epoch=2, info=info)
    assert len(copy.steps["loss"]) == 5


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="values must be named other than epoch and step; got step"
    ):
        History().log_epoch(1, epoch=0, values={"step": 1.0})
    with pytest.raises(ValueError, match=r"path must be a \.jsonl or \.csv file"):
        History().save(tmp_path / "h.txt")
    assert list(tmp_path.iterdir()) == []
