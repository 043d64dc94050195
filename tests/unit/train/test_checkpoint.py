"""Checkpoints hold everything, are checked, ranked, pruned, and never half there."""

import copy
import errno
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import nn

from medkit.train import (
    CheckpointError,
    CheckpointManager,
    EarlyStopping,
    ModelEma,
    Stepper,
    _commit,
    load_weights,
)


class _Run:
    """A model, its stepper and a checkpoint manager."""

    def __init__(self, root: Path, *, average: bool = False, **options: object) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        ema = ModelEma(self.model) if average else None
        self.stepper = Stepper(self.model, optimizer, ema=ema)
        self.checkpoints = CheckpointManager(root, **options)  # type: ignore[arg-type]
        self.checkpoints.register({"model": self.model, "stepper": self.stepper})

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.stepper.backward(self.model(torch.randn(5, 3)).square().mean())
            self.stepper.step()

    def state(self) -> dict[str, torch.Tensor]:
        return copy.deepcopy(self.model.state_dict())


def _names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_restored_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = _Run(tmp_path)
    whole.steps(5)
    whole.checkpoints.save(5)
    whole.steps(5)

    resumed = _Run(tmp_path)
    torch.rand(17)
    step = resumed.checkpoints.restore()
    resumed.steps(5)

    assert step == 5
    assert resumed.stepper.num_steps == 10
    assert _equal(resumed.state(), whole.state())


def test_a_checkpoint_is_a_folder_that_other_programs_read(tmp_path: Path) -> None:
    run = _Run(tmp_path, metric="dice")
    path = run.checkpoints.save(7, metric=0.5, extra={"fold": 2})

    assert path == tmp_path / "step_000000007"
    assert _names(path) == ["meta.json", "state.pt", "weights.pt"]
    assert list(torch.load(path / "weights.pt", weights_only=True)) == list(run.state())
    assert load_weights(path / "weights.pt", run.model).verified
    meta = json.loads((path / "meta.json").read_text())
    assert (meta["step"], meta["metric"], meta["extra"]) == (7, 0.5, {"fold": 2})
    assert meta["machine"]["torch"] == torch.__version__
    report = run.checkpoints.verify(path)
    assert (report.path, report.step, report.metric) == (path, 7, 0.5)
    assert (report.extra, report.problems) == ({"fold": 2}, ())


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    run = _Run(tmp_path, keep_last=2, keep_best=2, metric="dice")

    for step, dice in enumerate([0.5, 0.9, 0.7, 0.9, 0.1, None, float("nan")]):
        run.checkpoints.save(step, metric=dice)

    kept = [tmp_path / f"step_00000000{step}" for step in (1, 3, 5, 6)]
    assert _names(tmp_path) == [path.name for path in kept]
    assert run.checkpoints.latest() == kept[-1]
    assert run.checkpoints.best() == kept[0]  # of equals the earlier


def test_the_best_may_be_the_smallest(tmp_path: Path) -> None:
    run = _Run(tmp_path, keep_last=1, mode="min", metric="loss")
    weights = {}
    for step, loss in enumerate([0.5, 0.2, 0.4]):
        run.steps(1)
        run.checkpoints.save(step, metric=loss)
        weights[step] = run.state()

    step = run.checkpoints.restore(path="best")

    assert step == 1
    assert _equal(run.state(), weights[1])


def test_two_checkpoints_of_one_step_stand_side_by_side(tmp_path: Path) -> None:
    run = _Run(tmp_path, keep_last=3)
    first = run.checkpoints.save(4)
    run.steps(1)

    second = run.checkpoints.save(4)

    assert [first.name, second.name] == ["step_000000004", "step_000000004-1"]
    assert run.checkpoints.latest() == second


def test_an_earlier_step_than_the_newest_is_refused(tmp_path: Path) -> None:
    run = _Run(tmp_path)
    run.checkpoints.save(10)

    with pytest.raises(
        ValueError, match=r"step must be no earlier than step_000000010 in .*; got 9"
    ):
        run.checkpoints.save(9)


@pytest.mark.parametrize("file", ["weights.pt", "averaged_weights.pt", "state.pt", "meta.json"])
def test_a_damaged_checkpoint_is_passed_over_and_set_aside(tmp_path: Path, file: str) -> None:
    run = _Run(tmp_path, average=True)
    run.checkpoints.save(1)
    good = run.state()
    run.steps(1)
    newest = run.checkpoints.save(2)
    whole = (newest / file).read_bytes()
    chosen = random.Random(0)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        for wrong in (damaged, whole[: chosen.randrange(len(whole))]):
            (newest / file).write_bytes(wrong)
            assert any(file in problem for problem in run.checkpoints.verify(newest).problems)

    with pytest.warns(RuntimeWarning, match=f"passed over .*{file} is .*damaged"):
        step = run.checkpoints.restore()

    assert step == 1
    assert _equal(run.state(), good)
    assert _names(tmp_path) == ["damaged-step_000000002", "step_000000001"]
    run.checkpoints.save(2)


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    run = _Run(tmp_path)
    path = run.checkpoints.save(1)
    (path / "state.pt").unlink()

    assert run.checkpoints.verify(path).problems == ("state.pt is missing",)
    with pytest.raises(CheckpointError, match=r"is damaged: state\.pt is missing"):
        run.checkpoints.restore(path=path)
    with (
        pytest.warns(RuntimeWarning, match="passed over"),
        pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"),
    ):
        run.checkpoints.restore()


def test_there_may_be_nothing_to_restore(tmp_path: Path) -> None:
    run = _Run(tmp_path)

    assert run.checkpoints.latest() is None
    assert run.checkpoints.best() is None
    for which in ("latest", "best"):
        with pytest.raises(FileNotFoundError, match=f"no checkpoint to call {which}"):
            run.checkpoints.restore(path=which)


def test_objects_must_be_those_of_the_checkpoint(tmp_path: Path) -> None:
    path = _Run(tmp_path).checkpoints.save(3)
    run = _Run(tmp_path)
    run.checkpoints.register({"stopping": EarlyStopping(3)})

    with pytest.raises(
        CheckpointError, match="holds model, stepper, and registered are model, ste"
    ):
        run.checkpoints.restore()
    assert run.checkpoints.restore(path=path, strict=False) == 3


def test_a_model_of_another_shape_is_refused_before_anything_changes(tmp_path: Path) -> None:
    run = _Run(tmp_path)
    run.steps(2)
    run.checkpoints.save(2)
    other = CheckpointManager(tmp_path)
    stepper = Stepper(run.model, torch.optim.AdamW(run.model.parameters()))
    other.register({"model": nn.Linear(2, 2), "stepper": stepper})

    with pytest.raises(CheckpointError, match="does not fit the model"):
        other.restore()

    assert stepper.num_steps == 0


def test_a_run_without_a_model_has_no_weight_file(tmp_path: Path) -> None:
    checkpoints, stopping = CheckpointManager(tmp_path), EarlyStopping(3)
    checkpoints.register({"stopping": stopping})
    stopping.update(0.5)

    path = checkpoints.save(1)
    stopping.update(0.1)
    checkpoints.restore()

    assert _names(path) == ["meta.json", "state.pt"]
    assert stopping.best == 0.5


def test_names_are_taken_once(tmp_path: Path) -> None:
    run = _Run(tmp_path)

    with pytest.raises(ValueError, match="objects must be of new names; got model, rng"):
        run.checkpoints.register({"rng": EarlyStopping(1), "model": run.model})


def test_due_goes_by_steps_and_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    by_steps = CheckpointManager(tmp_path / "a", every_steps=3)
    by_minutes = CheckpointManager(tmp_path / "b", every_minutes=2.0)
    never = CheckpointManager(tmp_path / "c")

    assert [by_steps.due(step) for step in range(1, 7)] == [False, False, True] * 2
    assert not by_minutes.due(1)
    now += 121
    assert by_minutes.due(2)
    by_minutes.save(2)
    assert not by_minutes.due(3)
    assert not never.due(3)


def test_a_full_disk_leaves_every_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _Run(tmp_path)
    run.checkpoints.save(1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))

    with pytest.raises(
        OSError, match=r"No space left on device: \d+ bytes needed and 10 free"
    ) as error:
        run.checkpoints.save(2)

    assert error.value.errno == errno.ENOSPC
    assert _names(tmp_path) == ["step_000000001"]
    assert run.checkpoints.restore() == 1


class _Full:
    """A file on a disk that has room for so many bytes more."""

    def __init__(self, stream: BinaryIO, room: list[int]) -> None:
        self.stream, self.room = stream, room

    def write(self, data: bytes | memoryview) -> int:
        size = memoryview(data).nbytes
        if size > self.room[0]:
            self.stream.write(memoryview(data).cast("B")[: self.room[0]])
            self.room[0] = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room[0] -= size
        return self.stream.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def __enter__(self) -> "_Full":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 0.999])
def test_a_disk_that_fills_up_while_saving_leaves_every_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    run = _Run(tmp_path, average=True)
    first = run.checkpoints.save(1)
    good = run.state()
    room = [int(share * sum(file.stat().st_size for file in first.iterdir()))]
    run.steps(1)
    unlimited = Path.open

    def limited(path: Path, mode: str = "r", **options: Any) -> object:
        stream = unlimited(path, mode, **options)
        return _Full(stream, room) if mode == "wb" else stream  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", limited)

    with pytest.raises(OSError, match="No space left on device") as error:
        run.checkpoints.save(2)

    monkeypatch.undo()
    assert error.value.errno == errno.ENOSPC
    assert room == [0]
    assert _names(tmp_path) == ["step_000000001"]
    assert run.checkpoints.restore() == 1
    assert _equal(run.state(), good)
    assert run.checkpoints.save(2).name == "step_000000002"


@pytest.mark.parametrize("call", range(1, 8))
def test_an_error_of_the_disk_at_any_moment_leaves_every_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    run = _Run(tmp_path)
    run.checkpoints.save(1)
    calls = 0

    def fail(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(OSError, match="Input/output error"):
        run.checkpoints.save(2)

    monkeypatch.undo()
    assert run.checkpoints.restore() in (1, 2)
    assert not [name for name in _names(tmp_path) if name.startswith(".")]


def test_without_fsync_nothing_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    run = _Run(tmp_path, fsync=False)

    run.checkpoints.save(1)

    assert synced == []
    assert run.checkpoints.restore() == 1


def test_a_folder_ranked_by_something_else_is_refused(tmp_path: Path) -> None:
    _Run(tmp_path, metric="dice").checkpoints.save(1, metric=0.5)

    with pytest.raises(ValueError, match=r"metric and mode must be \['dice', 'max'\]"):
        CheckpointManager(tmp_path, metric="loss", mode="min")


def test_another_machine_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _Run(tmp_path)
    run.checkpoints.save(1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)

    with pytest.warns(RuntimeWarning, match=r"not bit for bit .* threads \d+ then, 77 now"):
        run.checkpoints.restore()


def test_leftovers_of_a_killed_save_are_cleared_at_the_start(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        child = process.pid
    (tmp_path / f".step_000000003.{_commit._HOST}-{child}.tmp").mkdir()

    CheckpointManager(tmp_path)

    assert _names(tmp_path) == []


@pytest.mark.usefixtures("unhooked")
def test_options_are_checked(tmp_path: Path) -> None:
    for options, message in (
        ({"keep_last": 0}, "keep_last must be at least 1; got 0"),
        ({"keep_best": -1}, "keep_best must be at least 0; got -1"),
        ({"mode": "best"}, "mode must be one of 'min', 'max'"),
        ({"every_steps": 0}, "every_steps must be at least 1; got 0"),
        ({"every_minutes": -1.0}, "every_minutes must be positive; got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            CheckpointManager(tmp_path, **options)


def test_the_best_needs_a_checkpoint_with_a_metric(tmp_path: Path) -> None:
    checkpoints = CheckpointManager(tmp_path, metric="dice")
    checkpoints.save(1)

    with pytest.raises(FileNotFoundError, match=r"to call best: none was saved with metric=$"):
        checkpoints.restore(path="best")


@pytest.mark.parametrize("alone", [False, True])
def test_averaged_weights_lie_beside_the_weights(tmp_path: Path, alone: bool) -> None:
    def make() -> tuple[nn.Module, ModelEma, Stepper, CheckpointManager]:
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        ema = ModelEma(model, decay=0.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        stepper = Stepper(model, optimizer, ema=None if alone else ema)
        checkpoints = CheckpointManager(tmp_path, keep_last=9)
        checkpoints.register(
            {"model": model, "stepper": stepper, **({"mean": ema} if alone else {})}
        )
        return model, ema, stepper, checkpoints

    model, ema, stepper, checkpoints = make()
    for _ in range(3):
        stepper.backward(model(torch.randn(4, 3)).square().sum())
        stepper.step()
        if alone:
            ema.update(model)
    path = checkpoints.save(3)
    expected = {name: tensor.clone() for name, tensor in ema.average.items()}

    fresh, resumed, _, again = make()
    report = load_weights(path / "averaged_weights.pt", fresh)
    assert report.verified
    assert _equal(fresh.state_dict(), expected)
    assert not _equal(expected, model.state_dict())
    again.restore()
    assert resumed.num_updates == 3
    assert _equal(resumed.average, expected)
    held = torch.load(path / "state.pt", weights_only=True)["mean" if alone else "stepper"]
    assert (held if alone else held["ema"])["average"] == {}  # written once


def test_damaged_averaged_weights_are_found(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    checkpoints = CheckpointManager(tmp_path)
    checkpoints.register({"model": model, "ema": ModelEma(model)})
    path = checkpoints.save(1)

    (path / "averaged_weights.pt").write_bytes(b"")

    assert checkpoints.verify(path).problems == ("averaged_weights.pt is damaged",)
