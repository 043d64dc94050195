"""The histology example runs on its own tissue and on LungHist700's layout, and goes on exactly."""

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import _torchvision_shim

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")

SCRIPT = Path(__file__).parents[2] / "examples" / "classify_histology.py"
CPU = ["--device", "cpu"]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("classify_histology", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["classify_histology"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def out(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("histology") / "run"
    example.main(["--epochs", "2", "--out", str(folder), *CPU])
    return folder


@pytest.fixture(scope="module")
def lung(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients in the layout of LungHist700; each class has a colour of its own."""
    folder = tmp_path_factory.mktemp("lung")
    kinds = {"aca": ("bd", (200, 60, 60)), "nor": ("", (60, 200, 60)), "scc": ("pd", (60, 60, 200))}
    rows = []
    for number, (patient, kind) in enumerate(
        (patient, kind) for patient in (2, 3, 4, 1, 6, 9) for kind in kinds for _ in range(2)
    ):
        differentiation, colour = kinds[kind]
        name = f"{kind}_{differentiation}" if differentiation else kind
        place = folder / "data" / "images" / name
        place.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(-40, 40, (48, 64, 3))
        pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{name}_20x_{number}.jpg", quality=95)
        rows.append([kind, differentiation, "20x", number, patient])
    rows.append(["aca", "bd", "40x", 99, 2])  # another magnification; no such file
    with (folder / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["superclass", "subclass", "resolution", "image_id", "patient_id"], *rows]
        )
    return folder


def test_report_and_pictures(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    for score in ("accuracy", "macro F1", "Matthews correlation", "AUROC, one against one"):
        low, high = report["test"][score]["95 % interval"]
        assert low <= report["test"][score]["value"] <= high
    for name in ("confusion", "reliability", "attention"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = np.mean([row["class"] == row["found"] for row in rows])
    assert round(right, 3) == report["test"]["accuracy"]["value"]
    assert {round(sum(float(r[c]) for c in ("little", "some", "much")), 2) for r in rows} == {1.0}


def test_no_patient_is_in_two_parts(example: ModuleType, lung: Path) -> None:
    for tissue in (example.stained_tiles(64), example.lung_tissue(lung, "20x")):
        patients = [{tissue.patients[i] for i in part} for part in tissue.parts]
        assert not patients[0] & patients[1] | patients[0] & patients[2] | patients[1] & patients[2]
        assert all(patients)
    for parts in example.SPLITS.values():
        assert sum(map(len, parts)) == len(set().union(*parts))


def test_published_splits_have_their_sizes(example: ModuleType) -> None:
    assert [len(part) for part in example.SPLITS["20x"]] == [29, 5, 4]
    assert [len(part) for part in example.SPLITS["40x"]] == [24, 7, 6]


def test_resumed_run_ends_with_the_same_weights(
    example: ModuleType, out: Path, tmp_path: Path
) -> None:
    options = ["--out", str(tmp_path / "run"), *CPU]
    example.main(["--epochs", "1", *options])
    with pytest.raises(SystemExit, match="holds a run: go on with --resume"):
        example.main(options)
    example.main(["--epochs", "2", "--resume", *options])

    assert (tmp_path / "run" / "predictions.csv").read_text() == (
        out / "predictions.csv"
    ).read_text()
    logs = [(folder / "log.csv").read_text() for folder in (out, tmp_path / "run")]
    assert logs[0] == logs[1]


def test_layout_of_the_data_set_with_weights_and_albumentations(
    example: ModuleType, lung: Path, tmp_path: Path
) -> None:
    pytest.importorskip("albumentations")
    from medkit.convert import save_keras_weights
    from medkit.nn import KerasResNetV2

    torch.manual_seed(1)
    body = KerasResNetV2(base_channels=8)
    save_keras_weights(body, tmp_path / "body.h5")
    given = ["--data", str(lung), "--weights", str(tmp_path / "body.h5"), "--albumentations"]
    example.main([*given, "--epochs", "1", "--out", str(tmp_path / "run"), *CPU])

    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["test"]["patients"]["number"] == 1
    model = example.build(
        example.parse(given), example.PRESETS["quick"], 3
    )  # what a run begins with
    for name, value in body.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_backbone_of_timm(example: ModuleType, lung: Path, tmp_path: Path) -> None:
    _torchvision_shim.install()
    pytest.importorskip("timm")
    options = ["--data", str(lung), "--backbone", "test_resnet.r160_in1k", "--epochs", "1"]
    example.main([*options, "--out", str(tmp_path / "run"), *CPU])

    assert (tmp_path / "run" / "attention.png").exists()


def test_loss_is_that_of_keras(example: ModuleType) -> None:
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    weight = example.class_weights(labels, 3)
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    p = np.exp(logits.double().numpy())
    p /= p.sum(1, keepdims=True)
    by_hand = np.mean(
        [
            -np.log(p[i, t]) * 6 / (3 * n)
            for i, (t, n) in enumerate(zip([0, 0, 0, 1, 2, 2], [3, 3, 3, 1, 2, 2], strict=True))
        ]
    )

    assert float(example.keras_loss(logits, labels, weight)) == pytest.approx(by_hand, rel=1e-6)
