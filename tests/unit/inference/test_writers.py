"""Predictions are written where they belong, in the original image, whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import medkit
from medkit._core.hdf5 import open_hdf5
from medkit.data import Volume, read_hdf5
from medkit.inference import (
    OctPredictionWriter,
    Slab,
    sliding_window_inference,
    sliding_window_slabs,
    write_slabs,
)
from medkit.ops import boundaries_to_mask, boundary_posterior, one_hot
from medkit.testing import assert_close

NAMES = ("ILM", "BM")


def perfect(rows: torch.Tensor, height: int) -> torch.Tensor:
    """Probabilities of whole rows (batch, boundary, width)."""
    mask = boundaries_to_mask(rows, height=height)
    return one_hot(mask.long(), num_classes=3).float()


def write(path: Path, rows: torch.Tensor, **provenance: str) -> None:
    with OctPredictionWriter(
        path, boundaries=NAMES, image_shape=(496, 5), provenance=provenance
    ) as writer:
        for part in rows.split(2):
            images = torch.randint(0, 255, (len(part), 496, 5), dtype=torch.uint8)
            writer.write(perfect(part, 480), images=images, layers=part * 496 / 480)


def test_boundaries_are_in_rows_of_the_original_image(tmp_path: Path) -> None:
    rows = torch.randint(100, 240, (5, 2, 5)).cumsum(1).float()
    write(tmp_path / "a.h5", rows, model_path="best.pt")

    with open_hdf5(tmp_path / "a.h5") as file:
        arrays = {name: file.read(name, max_bytes=1 << 24) for name in file.arrays}
        assert file.texts("metadata", "model_path") == ("best.pt",)
        assert file.texts("metadata", "medkit_version") == (medkit.__version__,)
        assert file.texts("predicted_layers", "coordinate_space") == ("rows of the original image",)
    for k, name in enumerate(NAMES):
        expected = rows[:, k].numpy() * 496 / 480  # exact: nothing of 4.96 or 8.81 pixels
        assert_close(arrays[f"predicted_layers/{name}"], expected.astype(np.float32), rtol=1e-6)
        assert_close(arrays[f"layers/{name}"], arrays[f"predicted_layers/{name}"])
        assert not arrays[f"boundary_std/{name}"].any()  # these probabilities are sure
    types = {name: (a.shape, str(a.dtype)) for name, a in arrays.items() if "/" not in name}
    assert types == {
        "images": ((5, 496, 5), "uint8"),
        "prediction_masks": ((5, 480, 5), "uint8"),
        "confidence_maps": ((5, 480, 5), "float16"),
        "entropy_maps": ((5, 480, 5), "float16"),
    }
    with h5py.File(tmp_path / "a.h5") as file:
        about = dict(file["dataset_info"].attrs)
    assert (about["num_samples"], about["image_height"], about["prediction_classes"]) == (5, 496, 3)


def test_the_spread_of_a_boundary_is_that_of_its_distribution(tmp_path: Path) -> None:
    chances = torch.rand(11, dtype=torch.float64).softmax(0)  # boundary at 0, ..., 10
    above = 1 - chances.cumsum(0)[:-1]  # P(b > y)
    p = torch.stack([above, 1 - above])[None, :, :, None]
    with OctPredictionWriter(tmp_path / "a.h5", boundaries=("ILM",), image_shape=(30, 1)) as out:
        out.write(p)
    places = np.arange(11)
    mean = (chances.numpy() * places).sum()
    std = np.sqrt((chances.numpy() * (places - mean) ** 2).sum())
    with h5py.File(tmp_path / "a.h5") as file:
        assert_close(file["predicted_layers/ILM"][0, 0], np.float32(3 * mean))
        assert_close(file["boundary_std/ILM"][0, 0], np.float32(3 * std))


def test_posterior_is_written_with_its_own_spread(tmp_path: Path) -> None:
    p = torch.randn(2, 3, 48, 5).softmax(1)
    writer = OctPredictionWriter(
        tmp_path / "a.h5",
        boundaries=NAMES,
        image_shape=(62, 5),
        method="posterior",
        temperature=4.0,
    )
    with writer:
        writer.write(p)

    expected = boundary_posterior(p, temperature=4.0)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["metadata"].attrs["boundary_temperature"] == 4.0
        for k, name in enumerate(NAMES):
            for group, rows in (
                ("predicted_layers", expected.mean),
                ("boundary_std", expected.std),
            ):
                assert_close(file[f"{group}/{name}"][()], (rows[:, k] * 62 / 48).numpy())
    with pytest.raises(ValueError, match="temperature must be positive"):
        OctPredictionWriter(
            tmp_path / "b.h5", boundaries=NAMES, image_shape=(62, 5), temperature=0.0
        )


def test_a_process_killed_half_way_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write(path, torch.full((2, 2, 5), 100.0))
    for target in (path, tmp_path / "new.h5"):
        before = target.read_bytes() if target.exists() else None
        command = [sys.executable, str(Path(__file__).with_name("killed_writer.py")), str(target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(3):
                assert process.stdout.readline() == "written\n"
            os.kill(process.pid, signal.SIGKILL)

        assert (target.read_bytes() if target.exists() else None) == before


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    writer = OctPredictionWriter(tmp_path / "a.h5", boundaries=NAMES, image_shape=(24, 6))
    with pytest.raises(RuntimeError, match="with block"):
        writer.write(torch.full((1, 3, 20, 6), 1 / 3))
    with pytest.raises(KeyError, match="mine"), writer:  # noqa: PT012
        writer.write(torch.full((1, 3, 20, 6), 1 / 3))
        raise KeyError("mine")

    assert list(tmp_path.iterdir()) == []
    empty = OctPredictionWriter(tmp_path / "a.h5", boundaries=NAMES, image_shape=(24, 6))
    with pytest.raises(ValueError, match="the file must be given at least one batch"), empty:
        pass
    assert list(tmp_path.iterdir()) == []


def test_batches_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    p, image = torch.full((1, 3, 20, 6), 1 / 3), torch.zeros(1, 24, 6)
    path = tmp_path / "a.h5"
    for batches, match in (
        ([(p[:, :2], None)], "probabilities must be of 3 classes; got 2"),
        ([(p, image[:, :20])], r"images must be of shape \(1, 24, 6\)"),
        ([(p, image), (p, None)], "images and layers must be given with every batch or none"),
    ):
        with (  # noqa: PT012
            pytest.raises(ValueError, match=match),
            OctPredictionWriter(path, boundaries=NAMES, image_shape=(24, 6)) as writer,
        ):
            for probabilities, images in batches:
                writer.write(probabilities, images=images)
    assert not path.exists()
    with pytest.raises(ValueError, match="boundaries must be different names"):
        OctPredictionWriter(path, boundaries=("a", "a"), image_shape=(24, 6))


def test_slabs_become_a_volume_in_its_place(tmp_path: Path) -> None:
    affine = np.array([[0, 0, 1.0, 5], [0, 2.0, 0, 6], [3.0, 0, 0, 7], [0, 0, 0, 1]])
    volume = Volume(torch.rand(1, 40, 9, 10), affine)
    network = torch.nn.Conv3d(1, 3, 3, padding=1)
    options = {"roi_size": (8, 8, 8), "overlap": 0.25}
    slabs = sliding_window_slabs(volume.data[None], network, **options)

    write_slabs(slabs, tmp_path / "a.h5", volume=volume, dtype="float32")

    stored = read_hdf5(tmp_path / "a.h5", name="scores")
    expected = sliding_window_inference(volume.data[None], network, **options)[0]
    assert torch.equal(stored.data, expected)
    assert np.array_equal(stored.affine, affine)


def test_slabs_of_another_volume_leave_no_file(tmp_path: Path) -> None:
    volume = Volume(torch.rand(1, 9, 8, 8), np.eye(4))
    for factor, data, match in (
        (1, volume.data[None, :, :, :6], "slabs must be those of one volume"),
        (1, volume.data[None, :, :8], "slabs must be 9 planes; got 8"),
        (1e6, volume.data[None], "scores must be within float16"),
    ):
        slabs = sliding_window_slabs(data, lambda x, k=factor: x * k, roi_size=4)
        with pytest.raises(ValueError, match=match):
            write_slabs(slabs, tmp_path / "a.h5", volume=volume)
    assert list(tmp_path.iterdir()) == []


def oct_writer(path: Path) -> OctPredictionWriter:
    return OctPredictionWriter(path, boundaries=NAMES, image_shape=(20, 6))


@pytest.mark.parametrize("bad", [torch.randn(1, 3, 10, 6), torch.full((1, 3, 10, 6), torch.nan)])
def test_what_is_no_probability_leaves_no_file(tmp_path: Path, bad: torch.Tensor) -> None:
    refusal = pytest.raises(ValueError, match=r"probabilities must be in \[0, 1\]")
    with refusal, oct_writer(tmp_path / "a.h5") as writer:
        writer.write(bad)
    assert not list(tmp_path.iterdir())


def test_a_batch_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    rule = r"prediction_masks must be of shape \(1, 10, 6\), as before; got \(1, 12, 6\)"
    refusal = pytest.raises(ValueError, match=rule)
    with refusal, oct_writer(tmp_path / "a.h5") as writer:
        for height in (10, 12):
            writer.write(torch.full((1, 3, height, 6), 1 / 3))
    slabs = [Slab(0, torch.ones(1, 1, 4, 8, 7)), Slab(4, torch.ones(1, 2, 5, 8, 7))]
    volume = Volume(torch.rand(1, 9, 8, 7), np.eye(4))
    with pytest.raises(ValueError, match=r"scores must be of shape \(1, 5, 8, 7\), as before"):
        write_slabs(slabs, tmp_path / "b.h5", volume=volume)
    assert not list(tmp_path.iterdir())


def test_a_finished_writer_refuses_more_and_may_begin_anew(tmp_path: Path) -> None:
    p = torch.full((1, 3, 10, 6), 1 / 3)
    writer = oct_writer(tmp_path / "a.h5")
    with writer:
        writer.write(p, layers=torch.ones(1, 2, 6))
    with pytest.raises(RuntimeError, match="in a with block"):
        writer.write(p)
    with writer:
        writer.write(p)
    with h5py.File(tmp_path / "a.h5") as file:
        assert "layers" not in file
