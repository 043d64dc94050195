"""The hybrid U-Net example learns, goes on bit for bit, and every option and key has an effect."""

import csv
import dataclasses
import importlib.util
import json
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from medkit.data import Case, Volume, VolumeDataset, tumour_phantom
from medkit.inference import mc_dropout
from medkit.nn import HybridUNet3D
from medkit.train import CheckpointManager

pytest.importorskip("matplotlib")

SCRIPT = Path(__file__).parents[2] / "examples" / "train_hybrid_unet.py"
TINY = {"base_channels": 2}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_hybrid_unet", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_hybrid_unet"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def out(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    example.main(["demo", "--device", "cpu", "--output_dir", str(folder)])
    return folder


@pytest.fixture
def quick(
    example: ModuleType, out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Path]:
    """Return what runs the example for a moment, on the cases of the demo."""
    monkeypatch.setattr(example, "judge", lambda *_: ({}, example.matplotlib.figure.Figure()))
    for name, task in example.TASKS.items():
        config = task.config.override("data.num_workers=0")
        small = dataclasses.replace(task, config=config, model={**task.model, **TINY}, patches=1)
        monkeypatch.setitem(example.TASKS, name, small)

    def run(*arguments: str, folder: str = "run") -> Path:
        data = ["--data", str(out / "made_up"), "--patch_size", "24", "--device", "cpu"]
        example.main([*data, *arguments, "--output_dir", str(tmp_path / folder)])
        return tmp_path / folder

    return run


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def state(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights kept, and those of the network and its average at the end."""
    last = max(path for path in (folder / "checkpoints").iterdir() if path.name[:4] == "step")
    files = {"best": folder / "weights.pt", "last": last / "weights.pt"}
    files["average"] = last / "averaged_weights.pt"
    return {f"{n} {k}": v for n, path in files.items() for k, v in torch.load(path).items()}


def test_dice_rises_and_holds_on_unseen_cases(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    curve = report["dice of each epoch (validation)"]

    assert report["cases"] == {"train": 5, "validate": 1, "test": 2}
    assert curve[0] < 0.2
    assert max(curve) > curve[0] + 0.3
    for way in ("plain", "flips", "dropout"):
        mean, low, high = report["dice"][way]["whole tumour"].values()
        assert 0.6 < low <= mean <= high <= 1


def test_files_are_those_of_the_best_epoch(example: ModuleType, out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    curve = report["dice of each epoch (validation)"]
    model = HybridUNet3D(4, 4, deep_supervision=2, base_channels=4)
    kept = example.load_weights(out / "weights.pt", model)
    checkpoints = CheckpointManager(out / "checkpoints", metric="dice")
    best = checkpoints.best()

    assert round(checkpoints.verify(best).metric, 3) == max(curve)
    for name, average in torch.load(best / "averaged_weights.pt").items():
        assert torch.equal(model.state_dict()[name.removeprefix("network.")], average)
    assert kept.verified
    assert kept.metadata["config"]["optim"]["lr"] == 0.01
    for name in ("uncertainty.png", "history.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    parts = example.split(out / "made_up", 0)
    task = example.TASKS["demo"]
    again, _ = example.judge(model.eval(), parts, task)
    assert again["dice"]["flips"] == report["dice"]["flips"]


def test_draws_of_dropout_differ_and_calibration_is_reported(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    model = HybridUNet3D(4, 4, base_channels=2)

    unsure = mc_dropout(torch.randn(1, 4, 17, 17, 17), model, num_samples=3)

    assert unsure.variance.min() > 0
    assert report["temperature"] > 0
    assert 0 < report["calibration"]["after"]["Brier"] < 2
    assert set(report["AUROC for wrong voxels"]) == {"entropy", "mutual information"}


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_a_run_that_goes_on_ends_with_the_same_bits(
    way: str, quick: Callable[..., Path], example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quick("--epochs", "3", folder="whole")

    class Interrupted(example.Run):
        def step(self, loss: torch.Tensor) -> object:
            info = super().step(loss)
            if self.stepper.num_steps == 5 and info.stepped:  # in the second epoch of three steps
                if way == "killed":
                    raise RuntimeError("killed")
                signal.raise_signal(signal.SIGTERM)
            return info

    with monkeypatch.context() as patch:
        patch.setattr(example, "Run", Interrupted)
        with pytest.raises(RuntimeError if way == "killed" else SystemExit):
            quick("--epochs", "3", folder="other")
    other = quick("--epochs", "3", "--resume", folder="other")

    expected, found = state(whole), state(other)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert (other / "history.csv").read_text() == (whole / "history.csv").read_text()


def test_a_folder_that_holds_a_run_is_not_mixed_with_another(quick: Callable[..., Path]) -> None:
    quick("--epochs", "1")

    with pytest.raises(SystemExit, match="--resume, or another --output_dir"):
        quick("--epochs", "1")


def test_options_reach_the_configuration(example: ModuleType, tmp_path: Path) -> None:
    def config(*arguments: str) -> object:
        return example.chosen(example.parse(list(arguments))).config

    plain = config()
    assert config("--config", "quick_test") == plain
    changed = config(
        *("--epochs", "2", "--batch_size", "3", "--lr", "5e-4"),
        *("--seed", "7", "--patch_size", "40"),
    )
    assert (changed.epochs, changed.data.batch_size, changed.optim.lr) == (2, 3, 5e-4)
    assert (changed.seed, changed.data.patch_size) == (7, 40)
    assert changed.schedule.warmup_epochs == 0.2
    large = config("--config", "production")
    assert (large.epochs, large.optim.lr, large.data.patch_size, large.amp.mode) == (
        *(400, 1e-3, 128),
        "auto",
    )
    assert (large.patience, large.checkpoint.metric, large.checkpoint.mode) == (30, "dice", "max")
    (tmp_path / "w.pt").touch()
    tuned = config("--config", "fine_tuning", "--pretrained", str(tmp_path / "w.pt"))
    assert (tuned.epochs, tuned.optim.lr) == (100, 1e-4)


@pytest.mark.parametrize(
    "arguments", [["demo", "--config", "production"], ["--config", "fine_tuning"]]
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        example.parse(arguments)
    assert "demo has a config" in (said := capsys.readouterr().err) or "--pretrained" in said


def test_production_reads_every_key_and_logs(
    quick: Callable[..., Path], example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: dict[str, list[object]] = {"made": [], "values": []}

    class Recorder:
        def __init__(self, project: str, **options: object) -> None:
            logged["made"].append((project, options["config"]["optim"]["lr"]))

        def log(self, values: dict[str, float], *, step: int) -> None:
            logged["values"].append((step, set(values)))

        def close(self) -> None:
            logged["made"].append("closed")

    monkeypatch.setattr(example, "WandbLogger", Recorder)

    folder = quick(
        *("--config", "production", "--wandb_project", "tumours", "--epochs", "1"),
        *("--batch_size", "1", "--lr", "2e-3", "--seed", "3", "--patch_size", "28"),
    )

    assert logged["made"] == [("tumours", 2e-3), "closed"]
    assert [step for step, _ in logged["values"]] == [1, 2, 3, 3]
    assert "dice" in logged["values"][-1][1]
    assert len(rows(folder)) == 4


def test_fine_tuning_begins_with_the_weights_given(
    quick: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first = quick("--epochs", "1", folder="first")
    tuned = quick(
        *("--config", "fine_tuning", "--pretrained", str(first / "weights.pt")),
        *("--epochs", "1", "--lr", "1e-7"),
        folder="tuned",
    )

    before, after = (torch.load(folder / "weights.pt") for folder in (first, tuned))
    count = len(before)
    assert f"{count} of {count} tensors were pretrained" in capsys.readouterr().out
    assert all(torch.allclose(after[name], value, atol=1e-5) for name, value in before.items())


def test_a_key_that_nothing_reads_is_an_error(
    quick: Callable[..., Path], example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "train", lambda *_: None)

    with pytest.raises(ValueError, match=r"keys .* must be read.*optim\.lr"):
        quick("--epochs", "1")


def test_it_stops_early_and_keeps_the_best(
    quick: Callable[..., Path], example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = example.TASKS["quick_test"]
    impatient = task.config.override(["patience=1", "min_delta=2"])
    monkeypatch.setitem(example.TASKS, "quick_test", dataclasses.replace(task, config=impatient))

    epochs = [row for row in rows(quick("--epochs", "5")) if row["dice"]]

    assert len(epochs) == 2  # the second did not improve by 2


def test_labels_are_those_of_the_table(example: ModuleType) -> None:
    image = Volume(torch.rand(4, 2, 2, 1) + 1, np.eye(4))
    label = Volume(torch.tensor([0, 1, 2, 4], dtype=torch.uint8).reshape(1, 2, 2, 1), np.eye(4))

    made = example.prepare(Case(image, label, "a"))

    assert made.label.data.flatten().tolist() == [0, 1, 2, 3]
    assert made.image.data.mean((1, 2, 3)).abs().max() < 1e-6
    masks = example.in_regions(made.label.data[None])[0].reshape(3, 4).tolist()
    assert masks == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]
    with pytest.raises(ValueError, match=r"labels of b must be among \[0, 1, 2, 4\]; got \[3\]"):
        example.prepare(Case(image, label.like(label.data.clamp(max=3)), "b"))


def test_made_up_cases_come_back_from_their_files(example: ModuleType, out: Path) -> None:
    case = example.find_cases(out / "made_up")[5]
    read = VolumeDataset([case]).case(0)
    made = tumour_phantom(size=24, seed=5)

    assert [path.name for path in case["image"]] == [
        f"made_005_{name}.nii.gz" for name in ("t1", "t1ce", "t2", "flair")
    ]
    assert torch.equal(read.image.data, made.image.data)
    assert torch.equal(read.label.data, made.label.data)


def test_patients_stay_in_one_part_and_missing_files_are_named(
    example: ModuleType, tmp_path: Path
) -> None:
    for number in range(12):
        name = f"BraTS-GLI-{number // 2:05}-{number % 2:03}"
        (tmp_path / name).mkdir()
        for kind in ("t1", "t1ce", "t2", "flair", "seg"):
            (tmp_path / name / f"{name}-{kind}.nii.gz").touch()

    parts = example.split(tmp_path, 0)

    patients = [{name[:-4] for name in part.ids} for part in parts]
    assert sum(map(len, patients)) == 6
    assert sum(len(part) for part in parts) == 12
    (tmp_path / name / f"{name}-t2.nii.gz").unlink()
    with pytest.raises(SystemExit, match=r"00005-001 must hold one file \*_t2.nii.gz; got 0"):
        example.split(tmp_path, 0)


def test_an_empty_folder_is_named(example: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="must hold the folders of 3 cases or more; got 0"):
        example.split(tmp_path, 0)


def test_the_learning_rate_leaves_its_warm_up(out: Path, example: ModuleType) -> None:
    rates = [float(row["lr"]) for row in rows(out) if row["lr"]]
    peak = example.TASKS["demo"].config.optim.lr

    assert rates[0] == 0
    assert math.isclose(max(rates), peak)
    assert rates[-1] < peak / 10
