"""The scar example runs, on its own ventricle and on a file, and its report can be believed."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
import torch

from medkit.train import load_weights

pytest.importorskip("matplotlib")

SCRIPT = Path(__file__).parents[2] / "examples" / "reconstruct_scar.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reconstruct_scar", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["reconstruct_scar"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def out(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scar")
    options = ["--epochs", "60", "--device", "cpu", "--held-out", "4", "7"]
    example.main([*options, "--out", str(folder)])
    return folder


def test_files_hold_every_node(out: Path) -> None:
    with np.load(out / "scar.npz") as arrays, h5py.File(out / "scar.h5") as file:
        assert (
            sorted(arrays)
            == sorted(file)
            == [
                "coordinates",
                "scar_binary",
                "scar_probability",
                "scar_uncertainty",
            ]
        )
        for name in arrays:
            assert np.array_equal(arrays[name], file[name][()])
        assert len(arrays["scar_probability"]) == 6000
        assert arrays["scar_uncertainty"].min() >= 0
    assert (out / "scar.png").read_bytes().startswith(b"\x89PNG")


def test_another_program_reads_the_vtk_file(out: Path) -> None:
    meshio = pytest.importorskip("meshio")

    mesh = meshio.read(out / "scar.vtk")

    with np.load(out / "scar.npz") as arrays:
        assert np.array_equal(mesh.points, arrays["coordinates"])
        assert sorted(mesh.point_data) == [name for name in sorted(arrays) if name != "coordinates"]
        for name, values in mesh.point_data.items():
            assert np.array_equal(values.squeeze(), arrays[name])
    assert mesh.cells_dict["vertex"].squeeze().tolist() == list(range(6000))


def test_weights_are_those_that_gave_the_files(example: ModuleType, out: Path) -> None:
    model = example.CoordinateMLP(out_activation=torch.nn.Identity)
    example_scene = example.ventricle(6000)
    torch.manual_seed(0)
    load_weights(out / "model.pt", model)

    found = example.predict(model.eval(), example_scene, "cpu")["scar_probability"]

    with np.load(out / "scar.npz") as arrays:
        assert np.abs(found.numpy() - arrays["scar_probability"]).mean() < 0.02


def test_training_explains_most_of_what_was_measured(example: ModuleType, out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    measured = example.ventricle(6000).targets

    assert report["training"]["best training loss"] < measured.var().item() / 3
    assert report["measured voxels"]["root mean square error"] < measured.std().item() / 1.5


def test_every_slice_held_out_is_in_the_report(out: Path) -> None:
    held_out = json.loads((out / "report.json").read_text())["slices held out"]

    assert list(held_out) == ["4", "7"]
    for judged in held_out.values():
        assert 0 < judged["network"]["mean absolute error"] < 0.2


def test_a_slice_that_is_not_there_is_an_error(example: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--held-out must be from 0 to 7; got 8"):
        example.main(["--held-out", "8", "--out", str(tmp_path)])


def test_nodes_of_overlapping_slices_keep_both_memberships(example: ModuleType) -> None:
    scene = example.ventricle(2000)
    memberships = torch.bincount(scene.node_ids, minlength=2000)

    assert memberships.max() == 2
    assert (memberships == 2).sum() > 200
    for group in range(0, len(scene.targets), 50):
        inside = scene.coordinates[scene.node_ids[scene.group_ids == group]]
        assert (inside[:, :2].amax(0) - inside[:, :2].amin(0)).max() <= 2.5 + 1e-4
        assert inside[:, 2].max() - inside[:, 2].min() <= 10


def test_held_out_slice_is_not_trained_on(example: ModuleType) -> None:
    scene = example.ventricle(2000)
    known = example.without(scene, 4)

    assert 4 not in known.slices
    assert len(known.targets) == (scene.slices != 4).sum()
    assert known.group_ids.max() + 1 == len(known.targets)


def test_file_of_the_published_program_is_read(example: ModuleType, tmp_path: Path) -> None:
    scene = example.ventricle(2000)
    node, group = scene.node_ids.unique(), scene.group_ids
    first = torch.stack([group[scene.node_ids == n][0] for n in node[:300]])
    np.savez(
        tmp_path / "nodes.npz",
        coordinates=scene.coordinates[node[:300]].numpy(),
        intensities=scene.targets[first][:, None].numpy(),
        group_ids=first.numpy().astype(np.int32),
    )

    read = example.read_nodes(tmp_path / "nodes.npz")

    assert torch.allclose(read.targets[read.group_ids], scene.targets[first], atol=1e-6)
