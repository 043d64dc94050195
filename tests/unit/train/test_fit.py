"""``fit`` is the loop one would write by hand, and can be stopped and taken up again."""

import csv
import importlib.util
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from medkit.train import (
    CheckpointManager,
    EarlyStopping,
    FitResult,
    Stepper,
    WarmupCosine,
    evaluate,
    fit,
    load_weights,
)

SCRIPT = Path(__file__).with_name("interrupted_fit.py")


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("interrupted_fit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUN = _script()


class _AbsoluteDifference:
    """Mean absolute error over everything it has seen."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.total, self.count = torch.zeros((), dtype=torch.float64), 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        self.total += (prediction - target).abs().sum()
        self.count += target.numel()

    def compute(self) -> Tensor:
        return self.total / self.count


def _batches(count: int = 4) -> list[dict[str, Tensor]]:
    x = torch.linspace(-1, 1, count * 4).reshape(count, 4, 1)
    return [{"image": part, "label": 2 * part} for part in x]


def _linear(lr: float = 0.3) -> tuple[nn.Module, Stepper]:
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    return model, Stepper(model, torch.optim.SGD(model.parameters(), lr=lr))


def _train(folder: Path | None = None, *, epochs: int = RUN.EPOCHS, seed: int = 0) -> FitResult:
    model, loader, stepper = RUN.make()
    torch.rand(seed)
    checkpoints = None if folder is None else CheckpointManager(folder)
    result = fit(
        model,
        loader,
        RUN.loss_fn,
        stepper=stepper,
        epochs=epochs,
        checkpoints=checkpoints,
        resume=folder is not None,
    )
    return result, model.state_dict()  # type: ignore[return-value]


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_overfits_a_tiny_problem() -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 1, 8, 8, 8)
    label = (nn.functional.avg_pool3d(image, 3, 1, 1) > 0).long().squeeze(1)
    model = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 2, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    stepper = Stepper(model, optimizer, scheduler=WarmupCosine(optimizer, 150, warmup_steps=10))

    fit(
        model,
        [{"image": image, "label": label}],
        nn.functional.cross_entropy,
        stepper=stepper,
        epochs=150,
    )

    assert (model(image).argmax(1) == label).float().mean() > 0.98


def test_its_numbers_have_the_bits_of_a_loop_by_hand() -> None:
    result, weights = _train()

    model, loader, stepper = RUN.make()
    optimizer, schedule = stepper.optimizer, stepper.scheduler
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    rows: list[tuple[float, ...]] = []
    means: list[float] = []
    for epoch in range(RUN.EPOCHS):
        batches = iter(loader)  # 7 batches: windows of 2, 2, 2 and 1
        losses_of_epoch = []
        for size in (2, 2, 2, 1):
            losses = []
            for _ in range(size):
                batch = next(batches)
                loss = RUN.loss_fn(model(batch["image"]), batch["label"])
                (loss / size).backward()
                losses.append(loss.item())
            norm = nn.utils.clip_grad_norm_(parameters, 1.0).item()
            lr = optimizer.param_groups[0]["lr"]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses_of_epoch.append(sum(losses) / size)
            rows.append((len(rows) + 1, epoch, losses_of_epoch[-1], lr, norm))
        means.append(math.fsum(losses_of_epoch) / 4)

    assert list(zip(*result.history.steps.values(), strict=True)) == rows
    assert list(result.history.epochs["train_loss"]) == means
    assert _equal(model.state_dict(), weights)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_run_taken_up_between_epochs_ends_in_the_same_bits(tmp_path: Path, epochs: int) -> None:
    whole, weights = _train()

    _train(tmp_path, epochs=epochs)
    result, resumed = _train(tmp_path, seed=17)

    assert _equal(resumed, weights)
    assert list(result.history.rows()) == list(whole.history.rows())


def test_a_run_killed_between_checkpoints_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole, weights = _train()

    class KilledError(Exception):
        pass

    def deadly(output: Tensor, target: Tensor) -> Tensor:
        if stepper.num_steps == deadline:
            raise KilledError
        return RUN.loss_fn(output, target)

    for deadline in (3, 4, 5, 9, 14):
        model, loader, stepper = RUN.make()
        if deadline > 3:
            torch.rand(deadline)  # a new process has another random state
        checkpoints = CheckpointManager(tmp_path, every_steps=2)
        options = {"stepper": stepper, "epochs": RUN.EPOCHS, "checkpoints": checkpoints}
        with pytest.raises(KilledError):
            fit(model, loader, deadly, resume=True, **options)  # type: ignore[arg-type]
    result, resumed = _train(tmp_path)

    assert _equal(resumed, weights)
    assert list(result.history.rows()) == list(whole.history.rows())


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_ends_the_program_cleanly_with_a_checkpoint_to_go_on_from(
    tmp_path: Path, workers: int
) -> None:
    whole, weights = _train()
    command = [sys.executable, str(SCRIPT), str(tmp_path), "0.05", str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, workers included
        output, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (0, "")
    assert output.splitlines()[-1].startswith("signal after ")
    checkpoints = CheckpointManager(tmp_path)
    assert checkpoints.verify(checkpoints.latest() or tmp_path).problems == ()
    result, resumed = _train(tmp_path, seed=5)
    assert _equal(resumed, weights)
    assert list(result.history.rows()) == list(whole.history.rows())


@pytest.mark.parametrize("batch", [1, 2, 7, 8, 20])
def test_a_signal_ends_after_the_step_it_came_in(tmp_path: Path, batch: int) -> None:
    whole, weights = _train()
    seen = []

    def interrupted(output: Tensor, target: Tensor) -> Tensor:
        seen.append(1)
        if len(seen) == batch:
            signal.raise_signal(signal.SIGTERM)
        return RUN.loss_fn(output, target)

    model, loader, stepper = RUN.make()
    first = fit(
        model,
        loader,
        interrupted,
        stepper=stepper,
        epochs=RUN.EPOCHS,
        checkpoints=CheckpointManager(tmp_path),
    )
    in_window = (batch - 1) % 7 % 2 == 0 and batch % 7 != 0
    result, resumed = _train(tmp_path, seed=5)

    assert first.reason == "signal"
    assert len(seen) == batch + in_window
    assert _equal(resumed, weights)
    assert list(result.history.rows()) == list(whole.history.rows())


def test_a_signal_without_checkpoints_just_ends_the_run() -> None:
    model, stepper = _linear()

    def interrupted(output: Tensor, target: Tensor) -> Tensor:
        signal.raise_signal(signal.SIGTERM)
        return nn.functional.mse_loss(output, target)

    result = fit(model, _batches(), interrupted, stepper=stepper, epochs=3)

    assert (result.reason, stepper.num_steps) == ("signal", 1)


def test_a_signal_during_validation_ends_after_it(tmp_path: Path) -> None:
    model, stepper = _linear()
    calls = []

    def validate() -> dict[str, float]:
        calls.append(1)
        signal.raise_signal(signal.SIGTERM)
        return {"dice": 0.5}

    result = fit(
        model,
        _batches(),
        nn.functional.mse_loss,
        stepper=stepper,
        epochs=3,
        validate=validate,
        checkpoints=CheckpointManager(tmp_path, metric="dice"),
    )

    assert (result.reason, len(calls), stepper.num_steps) == ("signal", 1, 4)
    assert CheckpointManager(tmp_path, metric="dice").best() == tmp_path / "step_000000004"


def test_the_best_and_the_last_are_on_the_disk(tmp_path: Path) -> None:
    model, stepper = _linear()
    scores = iter([0.1, 0.9, 0.3, 0.2])
    weights = []

    def validate() -> dict[str, float]:
        weights.append(model.weight.item())
        return {"dice": next(scores)}

    checkpoints = CheckpointManager(tmp_path, keep_last=1, metric="dice")
    result = fit(
        model, _batches(), nn.functional.mse_loss,
        stepper=stepper, epochs=4, validate=validate, checkpoints=checkpoints,
    )  # fmt: skip

    assert result.reason == "finished"
    assert list(result.history.epochs["dice"]) == [0.1, 0.9, 0.3, 0.2]
    best, last = checkpoints.best(), checkpoints.latest()
    assert best is not None
    assert last is not None
    load_weights(best / "weights.pt", model)
    assert model.weight.item() == weights[1]
    load_weights(last / "weights.pt", model)
    assert model.weight.item() == weights[3]
    with (tmp_path / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["dice"] for row in rows if row["dice"]] == ["0.1", "0.9", "0.3", "0.2"]
    assert len(rows) == 4 * 4 + 4


def test_early_stopping_ends_the_run_and_stays_stopped(tmp_path: Path) -> None:
    def run(scores: list[float]) -> tuple[FitResult, list[float]]:
        model, stepper = _linear()
        result = fit(
            model, _batches(), nn.functional.mse_loss,
            stepper=stepper, epochs=10, validate=lambda: {"dice": scores.pop(0)},
            checkpoints=CheckpointManager(tmp_path), resume=True,
            early_stopping=EarlyStopping(2, metric="dice", mode="max"),
        )  # fmt: skip
        return result, scores

    first, left = run([0.5, 0.4, 0.3, 0.9])
    again, untouched = run([0.9])

    assert first.reason == again.reason == "early"
    assert left == [0.9]
    assert untouched == [0.9]
    assert len(again.history.epochs["dice"]) == 3


def test_early_stopping_that_has_the_model_ends_with_the_best(tmp_path: Path) -> None:
    scores, weights = [0.5, 0.7, 0.4, 0.3], []

    def run() -> tuple[FitResult, float]:
        model, stepper = _linear()

        def validate() -> dict[str, float]:
            weights.append(model.weight.item())
            return {"dice": scores[len(weights) - 1]}

        result = fit(
            model, _batches(), nn.functional.mse_loss,
            stepper=stepper, epochs=10, validate=validate,
            checkpoints=CheckpointManager(tmp_path), resume=True,
            early_stopping=EarlyStopping(2, metric="dice", mode="max", model=model),
        )  # fmt: skip
        return result, model.weight.item()

    (first, ended), (again, restored) = run(), run()

    assert first.reason == again.reason == "early"
    assert ended == restored == weights[1]
    assert len(set(weights)) == 4


def test_skipped_windows_leave_no_row() -> None:
    model, _ = _linear()
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.1), nonfinite="skip")
    batches = _batches()
    batches[1]["image"] = batches[1]["image"] * math.nan

    result = fit(model, batches, nn.functional.mse_loss, stepper=stepper, epochs=2)

    assert list(result.history.steps["step"]) == [1, 2, 3, 4, 5, 6]
    assert stepper.num_skipped == 2
    assert all(map(math.isfinite, result.history.epochs["train_loss"]))


def test_a_bad_batch_is_named() -> None:
    model, stepper = _linear()
    batches: list[dict[str, object]] = [
        {**b, "id": [f"case_{i}"]} for i, b in enumerate(_batches())
    ]
    batches[2]["image"] = torch.full((4, 1), math.nan)

    with pytest.raises(FloatingPointError, match=r"loss is nan .* batch 2 .*\['case_2'\]"):
        fit(model, batches, nn.functional.mse_loss, stepper=stepper, epochs=1)  # type: ignore[arg-type]


def test_keys_can_have_other_names_and_other_entries_are_left_alone() -> None:
    model, stepper = _linear()
    batches = [{"x": b["image"], "y": b["label"], "id": ["a"]} for b in _batches()]
    keys = ("x", "y")

    fit(model, batches, nn.functional.mse_loss, stepper=stepper, epochs=20, keys=keys)  # type: ignore[arg-type]
    scores = evaluate(model, batches, {"error": _AbsoluteDifference()}, keys=keys)  # type: ignore[arg-type]

    assert scores["error"] < 0.1


def test_a_bar_shows_loss_and_score(capsys: pytest.CaptureFixture[str]) -> None:
    model, stepper = _linear()

    fit(
        model, _batches(), nn.functional.mse_loss,
        stepper=stepper, epochs=2, validate=lambda: {"dice": 0.5}, progress=True,
    )  # fmt: skip

    text = capsys.readouterr().err
    assert "8/8" in text
    assert "loss" in text


def test_mistakes_are_told_before_the_first_step(tmp_path: Path) -> None:
    model, stepper = _linear()
    other, _ = _linear()
    loss = nn.functional.mse_loss
    old = CheckpointManager(tmp_path / "old")
    old.register({"model": model})
    old.save(1)
    before = model.weight.item()

    with pytest.raises(ValueError, match="stepper must be made for this model"):
        fit(other, _batches(), loss, stepper=stepper, epochs=1)
    with pytest.raises(ValueError, match="train_loader must be one that gives batches"):
        fit(model, [], loss, stepper=stepper, epochs=1)
    with pytest.raises(ValueError, match="resume must be True to go on with the run in"):
        fit(
            model, _batches(), loss,
            stepper=stepper, epochs=1, checkpoints=CheckpointManager(tmp_path / "old"),
        )  # fmt: skip
    with pytest.raises(ValueError, match="checkpoints must be given to resume"):
        fit(model, _batches(), loss, stepper=stepper, epochs=1, resume=True)
    with pytest.raises(ValueError, match="metric must be train_loss without validate; got dice"):
        fit(
            model, _batches(), loss,
            stepper=stepper, epochs=1,
            checkpoints=CheckpointManager(tmp_path / "new", metric="dice"),
        )  # fmt: skip
    assert model.weight.item() == before


def test_a_watched_number_that_validate_does_not_give_is_an_error() -> None:
    model, stepper = _linear()

    with pytest.raises(ValueError, match="metric must be one of train_loss, iou; got dice"):
        fit(
            model, _batches(), nn.functional.mse_loss,
            stepper=stepper, epochs=1, validate=lambda: {"iou": 0.5},
            early_stopping=EarlyStopping(1, metric="dice"),
        )  # fmt: skip


def test_evaluate_is_the_metric_over_all_batches() -> None:
    model, _ = _linear()
    batches = _batches()
    everything = {key: torch.cat([b[key] for b in batches]) for key in ("image", "label")}
    expected = (model(everything["image"]) - everything["label"]).abs().mean().item()

    metric = _AbsoluteDifference()
    metric.update(torch.ones(5), torch.zeros(5))  # is forgotten
    scores = evaluate(model, batches, {"error": metric})

    assert scores["error"] == pytest.approx(expected, rel=1e-6)


def test_evaluate_leaves_modes_gradients_and_randomness_alone() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5), nn.BatchNorm1d(1))
    model.train()
    model[2].eval()  # frozen on purpose
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    data = DataLoader(_batches(), batch_size=None, shuffle=True)  # type: ignore[arg-type]
    state = torch.get_rng_state()
    seen = []

    def predict(image: Tensor) -> Tensor:
        seen.append(model.training or torch.is_grad_enabled())
        return model(image) + 0 * torch.rand(())

    evaluate(model, data, {"error": _AbsoluteDifference()}, predict=predict)

    assert seen == [False] * 4
    assert [module.training for module in model] == [True, True, False]
    assert _equal(dict(model.named_buffers()), buffers)
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluate_restores_modes_after_an_error() -> None:
    model, _ = _linear()

    with pytest.raises(ValueError, match="batch must be a dict with 'image' and 'label'"):
        evaluate(model, [{"image": torch.zeros(1, 1)}], {"error": _AbsoluteDifference()})

    assert model.training


def test_a_result_becomes_one_number_or_several() -> None:
    class Both(_AbsoluteDifference):
        def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
            return {"sum": self.total, "mean": self.total / self.count}

    model, _ = _linear()
    batches = _batches()
    mean = evaluate(model, batches, {"error": _AbsoluteDifference()})["error"]

    one = evaluate(model, batches, {"e": Both()}, score=lambda result: float(result["mean"]))
    many = evaluate(
        model, batches, {"e": Both()}, score=lambda result: {k: float(v) for k, v in result.items()}
    )

    assert one == {"e": mean}
    assert many == {"e/sum": pytest.approx(16 * mean), "e/mean": mean}
    with pytest.raises(
        TypeError, match="metric 'e' must give a number or score must turn its resu"
    ):
        evaluate(model, batches, {"e": Both()})


def test_a_loader_that_runs_dry_is_an_error() -> None:
    model = nn.Linear(2, 1)
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.1))
    once = ({"image": torch.ones(1, 2), "label": torch.ones(1, 1)} for _ in range(3))

    with pytest.raises(ValueError, match="none in epoch 2 from a generator"):
        fit(model, once, nn.functional.mse_loss, stepper=stepper, epochs=3)


def test_a_negative_number_of_epochs_is_an_error() -> None:
    model = nn.Linear(2, 1)
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.1))

    with pytest.raises(ValueError, match="epochs must be at least 0; got -2"):
        fit(model, [], nn.functional.mse_loss, stepper=stepper, epochs=-2)
