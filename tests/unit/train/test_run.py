"""A run goes on where it stopped, whatever stopped it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medkit.train import (
    CheckpointManager,
    EarlyStopping,
    JSONLinesLogger,
    ResumableBatchSampler,
    ResumableLoader,
    Run,
    Stepper,
    make_loader,
)

SCRIPT = Path(__file__).with_name("killed_run.py")


@pytest.mark.parametrize(("kills", "workers"), [(14, 0), (3, 2), (3, 4)])
def test_kills_at_random_moments_change_not_one_bit(
    kills: int, workers: int, tmp_path: Path
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(tmp_path), str(kills), str(workers)]

    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )

    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout)
    assert result["same"], result
    assert result["kills"] == kills
    assert max(result["steps"]) > 2  # beyond the first checkpoint


def _make(folder: Path | None, accumulate: int = 1) -> tuple[nn.Module, Run[Tensor]]:
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    stepper = Stepper(model, optimizer, accumulate=accumulate)
    data = torch.arange(10.0)[:, None]
    sampler = ResumableBatchSampler(10, 2, seed=0)
    loader = ResumableLoader(make_loader(data, sampler))  # type: ignore[arg-type]
    checkpoints = None if folder is None else CheckpointManager(folder / "run", metric="error")
    log = None if folder is None else JSONLinesLogger(folder / "log.jsonl")
    return model, Run(stepper, loader, checkpoints=checkpoints, log=log, progress=False)


def _loop(model: nn.Module, run: Run[Tensor], epochs: int, stop_at: int = -1) -> list[list[float]]:
    seen = []
    with run:
        for _ in run.epochs(epochs):
            for batch in run.batches():
                seen.append(batch.flatten().tolist())
                run.step((model(batch) - batch).square().mean() / 100)
                if len(seen) == stop_at:
                    signal.raise_signal(signal.SIGTERM)
            if not run.stopped:
                run.score({"error": float(len(seen))})
    return seen


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("stop_at", [1, 5, 7])
def test_a_signal_ends_the_loops_and_the_next_run_goes_on(
    accumulate: int, stop_at: int, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    model, run = _make(tmp_path / "a", accumulate)
    whole = _loop(model, run, 3)

    first_model, first = _make(tmp_path / "b", accumulate)
    seen = _loop(first_model, first, 3, stop_at)
    assert first.stopped
    assert len(seen) < len(whole)
    second_model, second = _make(tmp_path / "b", accumulate)
    seen += _loop(second_model, second, 3)

    assert seen == whole
    assert torch.equal(second_model.weight, model.weight)  # type: ignore[arg-type]
    assert not second.stopped


def test_scores_rank_checkpoints_and_steps_are_logged(tmp_path: Path) -> None:
    model, run = _make(tmp_path)

    _loop(model, run, 2)

    assert run.checkpoints is not None
    best = run.checkpoints.best()
    assert best is not None
    assert run.checkpoints.verify(best).metric == 10.0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 11))
    assert [row["error"] for row in rows if "error" in row] == [5.0, 10.0]
    assert [row["epoch"] for row in rows if "error" in row] == [0, 1]


def test_a_finished_run_has_nothing_left(tmp_path: Path) -> None:
    model, run = _make(tmp_path)
    _loop(model, run, 2)

    again_model, again = _make(tmp_path)

    assert _loop(again_model, again, 2) == []
    assert torch.equal(again_model.weight, model.weight)  # type: ignore[arg-type]


def test_it_needs_neither_checkpoints_nor_log() -> None:
    model, run = _make(None)

    assert len(_loop(model, run, 2)) == 10


def test_an_epoch_that_is_left_early_is_an_error() -> None:
    model, run = _make(None)

    def leave_early() -> None:
        with run:
            for _ in run.epochs(2):
                for batch in run.batches():
                    run.step(model(batch).mean())
                    break

    with pytest.raises(RuntimeError, match=r"batches\(\) must be read to its end"):
        leave_early()


def test_taken_names_are_refused() -> None:
    _, run = _make(None)

    with pytest.raises(ValueError, match="objects must be of new names; got data"):
        Run(run.stepper, run.loader, objects={"data": run.loader})


def _stopped(folder: Path, errors: list[float], *, signal_at: int | None = None) -> list[int]:
    """Run up to ten epochs whose errors are given; return the epochs that were run."""
    model, plain = _make(None)
    stopping = EarlyStopping(2, metric="error")
    saved = CheckpointManager(folder, metric="error", mode="min")
    run = Run(plain.stepper, plain.loader, checkpoints=saved, early_stopping=stopping)
    epochs = []
    with run:
        for epoch in run.epochs(10):
            for batch in run.batches():
                run.step((model(batch) - batch).square().mean() / 100)
            epochs.append(epoch)
            run.score({"error": errors[epoch]})
            if epoch == signal_at:
                signal.raise_signal(signal.SIGTERM)
    assert saved.best() is not None
    assert saved.verify(saved.best() or folder).metric == min(errors[: epochs[-1] + 1])
    return epochs


def test_early_stopping_ends_the_epochs_also_of_a_run_that_goes_on(tmp_path: Path) -> None:
    errors = [5.0, 3.0, 4.0, 3.5, 1.0]

    assert _stopped(tmp_path / "a", errors) == [0, 1, 2, 3]
    assert _stopped(tmp_path / "b", errors, signal_at=2) == [0, 1, 2]
    assert _stopped(tmp_path / "b", errors) == [3]  # one bad epoch was remembered
    with pytest.raises(IndexError):  # it is over: no epoch was run
        _stopped(tmp_path / "b", errors)


def test_a_run_whose_early_stopping_has_the_model_ends_with_the_best_weights() -> None:
    model, plain = _make(None)
    stopping = EarlyStopping(2, metric="error", model=model)
    sums = []
    with Run(plain.stepper, plain.loader, early_stopping=stopping) as run:
        for epoch in run.epochs(10):
            for batch in run.batches():
                run.step((model(batch) - batch).square().mean() / 100)
            sums.append(sum(float(p.detach().sum()) for p in model.parameters()))
            run.score({"error": [3.0, 2.0, 4.0, 5.0][epoch]})

    assert len(set(sums)) == 4
    assert sum(float(p.detach().sum()) for p in model.parameters()) == sums[1]


def test_a_watched_number_that_is_not_given_is_an_error() -> None:
    _, plain = _make(None)
    run = Run(plain.stepper, plain.loader, early_stopping=EarlyStopping(2, metric="dice"))

    with pytest.raises(ValueError, match=r"values must be with 'dice' for early stopping; got \["):
        run.score({"error": 1.0})
