"""What the examples say to options that cannot be."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["classify_histology", "reconstruct_scar", "train_surface_detection"]
)
def test_no_epochs_at_all_is_no_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        load(name).main(["--epochs", "0", "--out", str(tmp_path)])

    assert "--epochs must be at least 1; got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("classify_histology", "--data"),
        ("classify_histology", "--weights"),
        ("reconstruct_scar", "--data"),
        ("segment_oct_layers", "--data"),
        ("train_hybrid_unet", "--pretrained"),
        ("train_surface_detection", "--data"),
    ],
)
def test_path_that_is_not_there_is_named(
    name: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        load(name).main([option, str(tmp_path / "nowhere")])

    assert f"there is no {tmp_path / 'nowhere'}" in capsys.readouterr().err
