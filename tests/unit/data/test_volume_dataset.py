"""Cases become plain dicts, checked for one grid, that any DataLoader can batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medkit.data import (
    Case,
    ChecksumError,
    GeometryError,
    LimitError,
    Limits,
    Volume,
    VolumeDataset,
    write,
)
from medkit.testing import assert_close
from unit.data.nifti_bytes import flip_bit
from unit.data.volumes import affine, volume

SHAPE = (3, 4, 5)


@pytest.fixture
def cases(tmp_path: Path) -> list[dict[str, str | Path]]:
    """Two cases on disk, image and label."""
    entries: list[dict[str, str | Path]] = []
    for seed in range(2):
        image = volume(seed, channels=2)
        write(image, tmp_path / f"scan{seed}.nii.gz")
        write(image.like((image.data[:1] % 3).to(torch.uint8)), tmp_path / f"label{seed}.nii")
        entries.append(
            {"image": str(tmp_path / f"scan{seed}.nii.gz"), "label": tmp_path / f"label{seed}.nii"}
        )
    return entries


def test_items_are_plain_and_typed(cases) -> None:
    dataset = VolumeDataset(cases)
    item = dataset[1]

    assert len(dataset) == 2
    assert type(item) is dict
    assert {key: getattr(value, "dtype", str) for key, value in item.items()} == {
        "image": torch.float32, "label": torch.int64, "affine": torch.float64, "id": str,
    }  # fmt: skip
    assert item["image"].shape == (2, *SHAPE)
    assert item["label"].shape == (1, *SHAPE)
    assert item["id"] == "scan1"
    assert torch.equal(item["image"], volume(1, channels=2).data.float())
    assert_close(item["affine"], affine(1), atol=1e-4)


def test_default_collation_makes_batches(cases) -> None:
    batch = next(iter(DataLoader(VolumeDataset(cases), batch_size=2)))

    assert batch["image"].shape == (2, 2, *SHAPE)
    assert batch["affine"].shape == (2, 4, 4)
    assert batch["id"] == ["scan0", "scan1"]


def test_case_keeps_dtypes_and_geometry(cases) -> None:
    case = VolumeDataset(cases).case(0)

    assert isinstance(case, Case)
    assert case.image.data.dtype == torch.int16
    assert case.label is not None
    assert case.label.data.dtype == torch.uint8


def test_volumes_in_memory_are_cases_too() -> None:
    image = volume()
    dataset = VolumeDataset([{"image": image}, {"image": image.crop((0, 0, 0), SHAPE), "id": 7}])

    assert "label" not in dataset[0]
    assert dataset.ids == ("a test", "7")


def test_negative_index_counts_from_the_end(cases) -> None:
    dataset = VolumeDataset(cases)

    assert dataset[-1]["id"] == "scan1"
    for index in (2, -3):
        with pytest.raises(IndexError, match=f"index must be below 2; got {index}"):
            dataset[index]


def test_cache_reads_each_file_once(cases, monkeypatch) -> None:
    reads: list[object] = []
    original = VolumeDataset._volume
    monkeypatch.setattr(
        VolumeDataset,
        "_volume",
        lambda self, entry, name: reads.append(entry) or original(self, entry, name),
    )
    kept, fresh = VolumeDataset(cases, cache=True), VolumeDataset(cases)

    for dataset in (kept, kept, fresh, fresh):
        dataset[0]

    assert len(reads) == 2 + 4
    assert kept.case(0) is kept.case(-2)


def test_prepare_works_on_volumes_and_its_result_is_checked(cases) -> None:
    def turn(case: Case) -> Case:
        assert case.label is not None
        return Case(case.image.flip("w"), case.label.flip("w"), case.id + " turned")

    item = VolumeDataset(cases, prepare=turn)[0]

    assert item["id"] == "scan0 turned"
    assert torch.equal(item["image"], volume(0, channels=2).data.flip(-1).float())


def test_prepare_must_keep_image_and_label_together(cases) -> None:
    def turn_half(case: Case) -> Case:
        return case._replace(image=case.image.flip("w"))

    with pytest.raises(GeometryError, match="corners of the label of 'scan0'"):
        VolumeDataset(cases, prepare=turn_half)[0]


def test_readers_options_are_passed_on(cases) -> None:
    with pytest.raises(LimitError):
        VolumeDataset(cases, limits=Limits(max_bytes=10))[0]
    path = Path(cases[0]["image"])
    path.write_bytes(flip_bit(path.read_bytes(), -6))
    with pytest.raises(ChecksumError):
        VolumeDataset(cases)[0]
    assert VolumeDataset(cases, verify=False)[0]["image"].shape == (2, *SHAPE)


@pytest.mark.parametrize("degrees", [0.0, 1e-5, 0.1])
def test_rounding_between_image_and_label_is_no_error(degrees: float) -> None:
    image = Volume(torch.zeros(1, 20, 20, 20), np.eye(4))
    label = Volume(torch.ones(1, 20, 20, 20, dtype=torch.uint8), _rotated(degrees))
    item = VolumeDataset([{"image": image, "label": label}])[0]

    assert np.array_equal(item["affine"], np.eye(4))


def test_another_grid_is_an_error_that_says_how_far(tmp_path: Path) -> None:
    image = Volume(torch.zeros(1, 20, 20, 20), np.eye(4), "image.nii")
    label = Volume(torch.ones(1, 20, 20, 20, dtype=torch.uint8), _rotated(1.0), "label.nii")
    dataset = VolumeDataset([{"image": image, "label": label, "id": "case 9"}])

    rule = r"label.nii: corners of the label of 'case 9'.*0.4\d+ mm"
    with pytest.raises(GeometryError, match=rule):
        dataset[0]
    assert VolumeDataset([{"image": image, "label": label}], tolerance=1.0)[0]["id"] == "image"


def test_another_size_is_an_error(tmp_path: Path) -> None:
    image = Volume(torch.zeros(1, 2, 3, 4), np.eye(4))
    label = Volume(torch.zeros(1, 2, 3, 5, dtype=torch.uint8), np.eye(4))

    with pytest.raises(GeometryError, match=r"shape of the label of 'case 0' must be \(2, 3, 4\)"):
        VolumeDataset([{"image": image, "label": label}])[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool, torch.int16])
def test_whole_numbers_of_any_type_are_labels(dtype: torch.dtype) -> None:
    image = volume()
    label = image.like((image.data % 2).to(dtype))
    dataset = VolumeDataset([{"image": image, "label": label}])

    assert not dataset.case(0).label.data.is_floating_point()
    assert torch.equal(dataset[0]["label"], image.data.long() % 2)


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf"), 1e30])
def test_fractions_are_no_labels(value: float) -> None:
    image = volume()
    label = image.like(torch.full(image.shape, value))

    with pytest.raises(ValueError, match="label of 'a test' must be whole numbers"):
        VolumeDataset([{"image": image, "label": label}])[0]


@pytest.mark.parametrize(
    ("label", "rule"),
    [
        (torch.zeros(1, *SHAPE, dtype=torch.complex64), "whole numbers"),
        (torch.zeros(2, *SHAPE, dtype=torch.uint8), "a class map with one channel"),
    ],
)
def test_labels_are_class_maps(label: torch.Tensor, rule: str) -> None:
    image = volume()

    with pytest.raises(ValueError, match=f"label of 'a test' must be {rule}"):
        VolumeDataset([{"image": image, "label": image.like(label)}])[0]


@pytest.mark.parametrize("case", [{"label": volume()}, {"image": volume(), "mask": volume()}])
def test_unknown_keys_are_refused(case) -> None:
    with pytest.raises(ValueError, match=r"cases\[0\] must be a mapping with 'image'"):
        VolumeDataset([case])


def test_names_are_file_names_or_paths_and_never_twice() -> None:
    names = VolumeDataset([{"image": "a/t1.nii.gz"}, {"image": "b/t1.nii"}, {"image": "c/t2"}]).ids

    assert names == ("a/t1.nii.gz", "b/t1.nii", "t2")
    rule = r"id of cases must be different for each case; got \['x'\]"
    with pytest.raises(ValueError, match=rule):
        VolumeDataset([{"image": "a", "id": "x"}, {"image": "b", "id": "x"}])


def _rotated(degrees: float) -> np.ndarray:
    matrix = np.eye(4)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix[:2, :2] = [[c, -s], [s, c]]
    return matrix


def test_an_image_in_several_files_has_their_channels_in_order(tmp_path: Path) -> None:
    volumes = [volume(seed, channels=1) for seed in range(3)]
    paths = [tmp_path / f"case 7 {name}.nii.gz" for name in ("t1", "t2", "flair")]
    for one, path in zip(volumes, paths, strict=True):
        write(volumes[0].like(one.data), path)
    label = volumes[0].like((volumes[0].data % 2).to(torch.uint8))

    dataset = VolumeDataset([{"image": [*paths[:2], volumes[0].like(volumes[2].data)]}])
    item = dataset[0]
    labelled = VolumeDataset([{"image": paths, "label": label, "id": "case 7"}])

    expected = np.concatenate([one.data.numpy() for one in volumes])
    np.testing.assert_array_equal(item["image"].numpy(), expected)
    np.testing.assert_array_equal(labelled[0]["image"].numpy(), expected)
    assert dataset.ids == ("case 7 t1",)
    assert labelled.ids == ("case 7",)


def test_channels_on_different_grids_are_refused() -> None:
    first, other = volume(0, channels=1), volume(0, channels=1)
    moved = Volume(other.data, other.affine + 0.5 * np.eye(4, k=3))
    smaller = Volume(other.data[..., 1:], other.affine)

    for second, field in ((moved, "corners"), (smaller, "shape")):
        dataset = VolumeDataset([{"image": [first, second], "id": "a"}])
        with pytest.raises(GeometryError, match=f"{field} of another channel of 'a'"):
            dataset.case(0)


def test_an_image_of_no_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cases\[0\]\['image'\] must be at least one file"):
        VolumeDataset([{"image": []}])


@pytest.mark.usefixtures("unhooked")
def test_a_tensor_is_no_case() -> None:
    with pytest.raises(TypeError, match="must be paths or Volumes; got Tensor"):
        VolumeDataset([{"image": torch.zeros(1, 2, 3, 4)}])
