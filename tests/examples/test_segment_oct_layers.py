"""The retina example runs, uses every key of its presets, and its report can be believed."""

import dataclasses
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import h5py
import pytest
import torch

from medkit.metrics import layer_errors
from medkit.nn import HybridAttentionUNet
from medkit.train import all_keys_read, load_weights, sample_rng, seed_everything

pytest.importorskip("matplotlib")

SCRIPT = Path(__file__).parents[2] / "examples" / "segment_oct_layers.py"
NAMES = ("ILM", "BM")
SHORT = ["epochs=2", "schedule.warmup_epochs=0.5", "data.num_workers=0", "compile=false"]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("segment_oct_layers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["segment_oct_layers"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    for name, preset in list(module.PRESETS.items()):
        module.PRESETS[f"tiny {name}"] = dataclasses.replace(
            preset,
            train=preset.train.override(SHORT),
            base_channels=2,
            size=(60, 48),
            synthetic=(5, 2, 62, 48),
        )
    return module


@pytest.fixture(scope="module")
def out(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oct")
    example.main(["--preset", "tiny quick", "--device", "cpu", "--out", str(folder)])
    return folder


def test_the_table_is_that_of_the_file(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    with h5py.File(out / "predictions.h5") as file:
        assert file["predicted_layers"].attrs["coordinate_space"] == "rows of the original image"
        found, truth = (
            torch.stack([torch.from_numpy(file[f"{group}/{name}"][()]) for name in NAMES], dim=1)
            for group in ("predicted_layers", "layers")
        )
    errors = layer_errors(found, truth)

    table = report["errors in rows of the stored B-scans"]["posterior"]
    for k, name in enumerate(NAMES):
        assert table[name]["mae"] == pytest.approx(float(errors.mae[k]), abs=1e-4)
        assert table[name]["coverage"] == 1
    assert (found[:, 0] <= found[:, 1]).all()
    assert ((found >= 0) & (found <= 62)).all()
    for title in ("best", "middle", "worst"):
        assert (out / f"{title}.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_run_that_is_resumed_gives_the_same_table(
    example: ModuleType, out: Path, tmp_path: Path
) -> None:
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    arguments = ["--preset", "tiny quick", "--device", "cpu", "--out", str(tmp_path)]

    example.main([*arguments, "--resume"])

    first, second = (json.loads((each / "report.json").read_text()) for each in (out, tmp_path))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_parts_share_no_patient(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())

    patients = [set(part) for part in report["patients"].values()]

    assert [len(part) for part in patients] == [3, 1, 1]
    assert set.union(*patients) == set(range(5))


def test_weights_are_chosen_without_the_test_patients(
    example: ModuleType, out: Path, tmp_path: Path
) -> None:
    preset = example.PRESETS["tiny quick"]
    eyes = example.open_eyes(out / "eyes.h5", preset.size, preset.train.seed)
    known = {name: part for name, part in eyes.parts.items() if name != "test"}
    options = example.parse(["--device", "cpu", "--out", str(tmp_path)])
    seed_everything(preset.train.seed)

    model = example.train(eyes._replace(parts=known), preset, options)

    chosen = HybridAttentionUNet(base_channels=2)
    best = preset.train.checkpoint.make_manager(out / "checkpoints").best()
    load_weights(best / "weights.pt", chosen)
    for one, other in zip(model.state_dict().values(), chosen.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["quick", "gtx1650ti_4gb", "a100_80gb"])
def test_every_key_of_a_preset_is_read(example: ModuleType, name: str, tmp_path: Path) -> None:
    arguments = ["--preset", f"tiny {name}", "--device", "cpu", "--out", str(tmp_path)]
    example.main(arguments)  # counts by itself

    @dataclasses.dataclass(frozen=True)
    class WithOneMore(type(example.PRESETS[name])):
        memory_efficient: bool = True

    tiny = example.PRESETS[f"tiny {name}"]
    kept = {field.name: getattr(tiny, field.name) for field in dataclasses.fields(tiny)}
    example.PRESETS["more"] = WithOneMore(**kept)
    with pytest.raises(ValueError, match=r"read or named in unused; got memory_efficient$"):
        example.main(["--preset", "more", *arguments[2:]])


@pytest.mark.parametrize(
    ("name", "accumulate", "amp", "clip", "patience"),
    [("gtx1650ti_4gb", 8, "off", 1.0, 10), ("a100_80gb", 2, "bf16", 1.0, 10)],
)
def test_presets_reach_the_parts_they_are_meant_for(
    example: ModuleType, name: str, accumulate: int, amp: str, clip: float, patience: int
) -> None:
    """In the published program the same file gave accumulation 1, no clipping and no AMP."""
    config = example.PRESETS[name].train.override(["compile=false"])
    stepper = config.make_stepper(torch.nn.Linear(2, 1), batches_per_epoch=20)

    assert (stepper.accumulate, stepper.amp.mode, stepper.clip_norm) == (accumulate, amp, clip)
    assert config.make_early_stopping().patience == patience


def test_columns_nobody_annotated_train_nothing(example: ModuleType) -> None:
    logits = torch.randn(2, 3, 20, 6, requires_grad=True)
    rows = torch.tensor([[5.0], [11.0]]).repeat(2, 1, 6)
    rows[:, :, 2:4] = torch.nan

    example.LayerLoss()(logits, rows).backward()

    moved = logits.grad.abs().amax((0, 1, 2))
    assert (moved > 0).tolist() == [True, True, False, False, True, True]


def test_a_batch_without_any_annotation_trains_nothing(example: ModuleType) -> None:
    logits = torch.randn(1, 3, 20, 6, requires_grad=True)

    loss = example.LayerLoss()(logits, torch.full((1, 2, 6), torch.nan))
    loss.backward()

    assert loss.isfinite()
    assert not logits.grad.any()


def test_augmentation_keeps_layers_in_order(example: ModuleType) -> None:
    augment = example.augmentation(25.0)
    rows = torch.stack([torch.full((96,), 20.0), torch.linspace(24, 40, 96)])
    sample = {"image": torch.rand(1, 60, 96), "boundaries": rows}

    for index in range(50):
        ilm, bm = augment(sample, generator=sample_rng(0, 0, index))["boundaries"]
        known = ~(ilm.isnan() | bm.isnan())
        assert known.float().mean() > 0.5
        assert (ilm <= bm)[known].all()


def test_brightest_edge_finds_plain_layers(example: ModuleType) -> None:
    rows = torch.arange(124)[:, None].expand(124, 80)
    image = torch.where((rows >= 40) & (rows < 70), 200.0, 20.0)

    found = example.brightest_edge(image[None])

    assert (found[0] - torch.tensor([[40.0], [70.0]])).abs().max() <= 1


def test_file_without_patients_is_split_in_blocks(
    example: ModuleType, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "eyes.h5"
    data.write_bytes((out / "eyes.h5").read_bytes())
    with h5py.File(data, "r+") as file:
        del file["patients"]

    eyes = example.open_eyes(data, (60, 48), 0)

    assert eyes.patients == tuple(range(10))
    assert "no patients" in capsys.readouterr().out


def test_a_watched_preset_is_the_preset(example: ModuleType) -> None:
    preset = example.PRESETS["quick"]
    with pytest.raises(ValueError, match="base_channels"), all_keys_read(preset) as watched:
        assert watched == preset
