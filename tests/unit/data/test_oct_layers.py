"""B-scans with boundaries: what is stored is given, lazily, in any process, or refused by name."""

import pickle
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medkit.data import DataError, FormatError, HDF5Reader, OctLayerDataset, group_split
from medkit.ops import rescale_boundaries
from medkit.transforms import Resize

METHODS = ["fork", "forkserver", "spawn"] if sys.platform == "linux" else ["spawn"]
COUNT, HEIGHT, WIDTH = 6, 31, 24


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    ilm = rng.uniform(4, 12, (COUNT, WIDTH))
    ilm[:, 5:8] = np.nan
    return {
        "images": rng.integers(0, 256, (COUNT, HEIGHT, WIDTH), dtype=np.uint8),
        "layers/ILM": ilm,
        "layers/BM": rng.uniform(15, 25, (COUNT, WIDTH)),
        "patients": np.array([3, 3, 9, 9, 4, 4]),
    }


def _written(path: Path, arrays: dict[str, np.ndarray], *, compressed: bool = False) -> Path:
    options = {"compression": "gzip"} if compressed else {}
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **options)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return _written(tmp_path / "eyes.h5", _arrays(), compressed=True)


def test_items_are_what_was_stored(path: Path) -> None:
    arrays, dataset = _arrays(), OctLayerDataset(path)

    assert (len(dataset), dataset.image_shape) == (COUNT, (HEIGHT, WIDTH))
    assert dataset.patients == (3, 3, 9, 9, 4, 4)
    for index, item in enumerate(dataset):
        assert (item["id"], item["patient"]) == (f"eyes:{index}", dataset.patients[index])
        assert item["image"].dtype == item["boundaries"].dtype == torch.float32
        assert np.array_equal(item["image"][0].numpy(), arrays["images"][index])
        for line, name in zip(item["boundaries"].numpy(), ("ILM", "BM"), strict=True):
            stored = arrays[f"layers/{name}"][index].astype(np.float32)
            assert np.array_equal(line, stored, equal_nan=True)
    assert dataset[-1]["id"] == "eyes:5"
    with pytest.raises(IndexError, match="index must be below 6"):
        dataset[COUNT]


def test_one_item_reads_one_image(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[tuple[str, object]] = []
    plain = HDF5Reader.read

    def counted(self: HDF5Reader, name: str, **region: object) -> torch.Tensor:
        reads.append((name, region.get("size")))
        return plain(self, name, **region)

    monkeypatch.setattr(HDF5Reader, "read", counted)
    dataset = OctLayerDataset(path)

    assert [name for name, _ in reads] == ["patients"]
    _ = dataset[2]
    assert reads[1:] == [
        ("layers/ILM", (1, WIDTH)),
        ("layers/BM", (1, WIDTH)),
        ("images", (1, HEIGHT, WIDTH)),
    ]


@pytest.mark.parametrize("method", METHODS)
def test_any_kind_of_worker_reads_the_same(path: Path, method: str) -> None:
    dataset = OctLayerDataset(path, prepare=Resize(size=(30, WIDTH)))
    expected = next(iter(DataLoader(dataset, batch_size=COUNT)))

    loader = DataLoader(dataset, batch_size=COUNT, num_workers=1, multiprocessing_context=method)
    (batch,) = list(loader)

    assert torch.equal(batch["image"], expected["image"])
    assert torch.equal(batch["boundaries"].nan_to_num(), expected["boundaries"].nan_to_num())
    assert batch["patient"].tolist() == [3, 3, 9, 9, 4, 4]


def test_open_file_is_not_pickled(path: Path) -> None:
    dataset = OctLayerDataset(path)
    _ = dataset[0]

    copy = pickle.loads(pickle.dumps(dataset))

    assert torch.equal(copy[3]["image"], dataset[3]["image"])


def test_prepared_boundaries_are_rows_of_the_prepared_image(path: Path) -> None:
    plain, resized = OctLayerDataset(path), OctLayerDataset(path, prepare=Resize(size=(30, WIDTH)))

    moved = rescale_boundaries(
        plain[1]["boundaries"], from_shape=(HEIGHT, WIDTH), to_shape=(30, WIDTH)
    )

    assert torch.allclose(resized[1]["boundaries"], moved, equal_nan=True, atol=1e-5)


def test_other_boundaries_and_no_patients(tmp_path: Path) -> None:
    arrays = _arrays()
    arrays["layers/RNFL"] = arrays["layers/BM"] - 3
    del arrays["patients"]

    dataset = OctLayerDataset(_written(tmp_path / "a.h5", arrays), boundaries=("ILM", "RNFL", "BM"))

    assert dataset.patients is None
    assert "patient" not in dataset[0]
    stored = torch.from_numpy(arrays["layers/RNFL"][0]).float()
    assert torch.equal(dataset[0]["boundaries"][1], stored)


def test_split_by_patient_shares_none(path: Path) -> None:
    patients = OctLayerDataset(path).patients
    assert patients is not None

    parts = group_split(patients, ratios=(1, 1, 1))

    assert sorted(chain(*parts)) == list(range(COUNT))
    assert all(len({patients[i] for i in part}) == 1 for part in parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("images"), "name must be one of its arrays"),
        (lambda a: a.pop("layers/BM"), r"name must be one of its arrays .*layers/ILM"),
        (lambda a: a.update(images=a["images"][0]), r"images must be \(B-scan, height, width\)"),
        (
            lambda a: a.update({"layers/BM": a["layers/BM"][:, :-1]}),
            r"layers/BM must be of shape \(6, 24\)",
        ),
        (
            lambda a: a.update({"layers/ILM": a["layers/ILM"][:-1]}),
            r"layers/ILM must be of shape \(6, 24\)",
        ),
        (lambda a: a.update(patients=a["patients"][:-1]), "patients must be 6 whole numbers"),
        (lambda a: a.update(patients=a["patients"] / 2), "patients must be 6 whole numbers"),
        (lambda a: a.update(patients=a["patients"].astype("S2")), "patients must be an array of n"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    change: Callable[[dict[str, np.ndarray]], object], message: str, tmp_path: Path
) -> None:
    arrays = _arrays()
    change(arrays)

    with pytest.raises(FormatError, match=message):
        OctLayerDataset(_written(tmp_path / "a.h5", arrays))


def test_no_file_of_the_kind_and_no_names_are_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"nothing")
    with pytest.raises(DataError):
        OctLayerDataset(tmp_path / "a.h5")
    for names in ((), ("BM", "BM")):
        with pytest.raises(ValueError, match="boundaries must be one or more different names"):
            OctLayerDataset(path, boundaries=names)
