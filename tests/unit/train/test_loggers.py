"""Logs hold every number, and after a resume nothing twice."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from medkit.train import (
    CheckpointManager,
    CSVLogger,
    JSONLinesLogger,
    Logger,
    MultiLogger,
    TensorBoardLogger,
    WandbLogger,
    _agreement,
)

KINDS = [CSVLogger, JSONLinesLogger]
Kind = type[CSVLogger] | type[JSONLinesLogger]


def _fill(log: CSVLogger | JSONLinesLogger, first: int, last: int) -> None:
    for step in range(first, last + 1):
        log.log({"loss": 1 / step, "lr": 1e-3}, step=step)
        if step % 3 == 0:
            log.log({"dice": math.sqrt(step)}, step=step)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [0, 1, 2, 3, 5])
def test_a_killed_run_leaves_the_file_of_one_that_was_not(
    kind: Kind, stop: int, tmp_path: Path
) -> None:
    whole = kind(tmp_path / "whole")
    _fill(whole, 1, 8)
    whole.close()
    first = kind(tmp_path / "killed")
    _fill(first, 1, stop)
    state = first.state_dict()
    _fill(first, stop + 1, 7)
    first.close()
    with (tmp_path / "killed").open("a") as stream:
        stream.write('{"step": 8, "lo')  # the kill came in the middle of a row

    second = kind(tmp_path / "killed")
    second.load_state_dict(state)
    _fill(second, stop + 1, 8)

    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_in_the_file_at_once(kind: Kind, tmp_path: Path) -> None:
    log = kind(tmp_path / "deep" / "log")

    log.log({"loss": 0.1}, step=1)

    assert "0.1" in log.path.read_text()


def test_numbers_come_back_exactly(tmp_path: Path) -> None:
    values = {"a": 0.1 + 0.2, "b": 1e-300, "c": float(torch.rand(()))}
    log = JSONLinesLogger(tmp_path / "log.jsonl")
    log.log(values, step=3)
    log.log({"a": math.nan}, step=4)

    rows = [json.loads(line) for line in log.path.read_text().splitlines()]

    assert rows == [{"step": 3, **values}, {"step": 4, "a": None}]


def test_late_columns_and_missing_values_in_a_table(tmp_path: Path) -> None:
    log = CSVLogger(tmp_path / "log.csv")
    log.log({"loss": 1.0}, step=1)
    log.log({"dice": 0.5}, step=1)
    log.close()
    log.log({"loss": math.inf, "dice": 0.75}, step=2)

    assert log.path.read_text() == "step,loss,dice\n1,1.0,\n1,,0.5\n2,,0.75\n"


def test_a_kill_while_a_column_is_added_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CSVLogger(tmp_path / "log.csv")
    log.log({"loss": 1.0}, step=1)
    before = log.path.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        log.log({"dice": 0.5}, step=1)

    assert log.path.read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_of_another_run_is_not_written_over(kind: Kind, tmp_path: Path) -> None:
    _fill(kind(tmp_path / "log"), 1, 2)
    before = (tmp_path / "log").read_bytes()

    with pytest.raises(FileExistsError, match="is the log of another run"):
        kind(tmp_path / "log").log({"loss": 1.0}, step=1)

    assert (tmp_path / "log").read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_lost_rows_is_an_error(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows must be at most 0"):
        kind(tmp_path / "log").load_state_dict({"rows": 2})


def test_a_checkpoint_cuts_the_log_back(tmp_path: Path) -> None:
    log = CSVLogger(tmp_path / "log.csv")
    checkpoints = CheckpointManager(tmp_path / "run")
    checkpoints.register({"log": log})
    _fill(log, 1, 3)
    checkpoints.save(3)
    expected = log.path.read_bytes()
    _fill(log, 4, 6)

    checkpoints.restore()

    assert log.path.read_bytes() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_first_process_writes(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_agreement, "in_several_processes", lambda: True)
    monkeypatch.setattr(_agreement.distributed, "get_rank", lambda: 1)
    log = kind(tmp_path / "log")

    log.log({"loss": 1.0}, step=1)

    assert log.state_dict() == {"rows": 1}
    assert not log.path.exists()
    log.load_state_dict({"rows": 0})


def test_several_logs_as_one() -> None:
    class Kept:
        def __init__(self) -> None:
            self.rows: list[tuple[int, Mapping[str, float]]] = []
            self.closed = False

        def log(self, values: Mapping[str, float], *, step: int) -> None:
            self.rows.append((step, values))

        def close(self) -> None:
            self.closed = True

    parts = [Kept(), Kept()]
    log = MultiLogger(parts)
    log.log({"loss": 1.0}, step=2)
    log.close()

    assert isinstance(log, Logger)
    assert all(part.rows == [(2, {"loss": 1.0})] and part.closed for part in parts)


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_what_was_logged_and_hides_what_was_lost(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = TensorBoardLogger(tmp_path)
    for step in range(1, 6):
        first.log({"loss": float(step)}, step=step)
        if step == 3:
            state = first.state_dict()
    first.close()
    second = TensorBoardLogger(tmp_path)
    second.load_state_dict(state)
    second.log({"loss": 40.0}, step=4)
    second.close()

    events = EventAccumulator(str(tmp_path)).Reload()

    points = [(point.step, point.value) for point in events.Scalars("loss")]
    assert points == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_the_numbers_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log = WandbLogger("medkit", folder=tmp_path / "out", config={"lr": 0.1})
    log.log({"loss": 0.5}, step=1)
    log.close()
    log.close()

    files = list((tmp_path / "out").rglob("*.wandb"))

    assert len(files) == 1
    deadline = time.monotonic() + 60  # its own process writes the file
    while b"loss" not in files[0].read_bytes():
        assert time.monotonic() < deadline, "the loss has not come into the file"


@pytest.mark.usefixtures("unhooked")
def test_names_that_are_taken_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="values must be named other than step"):
        CSVLogger(tmp_path / "log").log({"step": 1.0}, step=1)
    with pytest.raises(ValueError, match="mode must be one of 'online', 'offline'"):
        WandbLogger("p", folder=tmp_path, mode="dry")  # type: ignore[arg-type]
