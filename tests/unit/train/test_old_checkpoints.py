"""Checkpoints of every earlier release can be gone on from."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

from medkit.train import load_weights

FOLDER = Path(__file__).parents[2] / "golden" / "checkpoint"
RELEASES = sorted(path.parent.name for path in FOLDER.glob("*/facts.json"))


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_checkpoint", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:the run goes on, but not bit for bit:RuntimeWarning")
@pytest.mark.parametrize("release", RELEASES)
def test_a_checkpoint_of_a_release_gives_back_all_it_held(
    writer: ModuleType, release: str, tmp_path: Path
) -> None:
    shutil.copytree(FOLDER / release, tmp_path, dirs_exist_ok=True)
    torch.rand(9)
    run = writer.Run(tmp_path)

    step = run.checkpoints.restore()

    assert step == writer.STEPS
    assert run.facts() == json.loads((tmp_path / "facts.json").read_text())
    run.train(step + 3)
    assert run.stepper.num_steps == step + 3
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert len(rows) == 1 + step + 3


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(("file", "prefix"), [("weights", "model"), ("averaged_weights", "ema")])
def test_weights_of_a_release_load_alone(
    writer: ModuleType, release: str, file: str, prefix: str, tmp_path: Path
) -> None:
    model = writer.Run(tmp_path).model

    (path,) = (FOLDER / release / "run").glob(f"*/{file}.pt")
    report = load_weights(path, model)

    assert report.verified
    facts = json.loads((FOLDER / release / "facts.json").read_text())["tensors"]
    for name, tensor in model.state_dict().items():
        assert tensor.tolist() == facts[f"{prefix}.{name}"]


def test_there_is_a_checkpoint_of_a_release() -> None:
    assert RELEASES
