"""A cache gives what its dataset gave, is filled once, and is never an old or a broken one."""

import functools
import json
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from medkit.data import (
    CachedDataset,
    Case,
    ChecksumError,
    ClassBalancedPatchSampler,
    DataError,
    ForegroundPatchSampler,
    FormatError,
    GridPatchDataset,
    LimitError,
    Limits,
    MemoryCache,
    PatchDataset,
    TruncatedError,
    ValidPatchSampler,
    Volume,
    VolumeDataset,
    WeightedPatchSampler,
    cache,
    read_hdf5,
    write_nifti,
)
from unit.data.test_text_headers import mha, nrrd
from unit.data.volumes import affine, volume

METHODS = ["fork", "forkserver", "spawn"] if sys.platform == "linux" else ["spawn"]
forked = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


class Dicts(Dataset):
    """Items as they were given; each reading leaves a line in a file."""

    def __init__(self, items: list[object], log: Path | None = None) -> None:
        self.items = items
        self.log = log

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{index}\n")
        return self.items[index]


def _cases(count: int = 2, dtype: torch.dtype = torch.int16) -> VolumeDataset:
    cases = []
    for seed in range(count):
        image = volume(seed, channels=2, shape=(40 + seed, 50, 140), dtype=dtype)
        cases.append(
            {"image": image, "label": image.like(image.data[:1] > 117), "id": f"case {seed}"}
        )
    return VolumeDataset(cases)


def _same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor | np.ndarray):
        return (
            type(one) is type(other)
            and one.dtype == other.dtype
            and tuple(one.shape) == tuple(other.shape)
            and np.array_equal(_bits(one), _bits(other))
        )
    return type(one) is type(other) and (one == other or one != one)


def _bits(values: torch.Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


@pytest.mark.parametrize("checksum", [False, True])
def test_items_and_cases_are_those_of_the_dataset(checksum: bool, tmp_path: Path) -> None:
    dataset = _cases()
    cached = cache(dataset, tmp_path / "a.h5", checksum=checksum)

    assert len(cached) == 2
    for index in range(2):
        item, again = dataset[index], cached[index - 2]
        assert list(item) == list(again)
        assert all(_same(item[key], again[key]) for key in item)
        for one, other in zip(dataset.case(index), cached.case(index), strict=True):
            assert type(one) is type(other)
            if isinstance(one, Volume):
                assert _same(one.data, other.data)
                assert np.array_equal(one.affine, other.affine)
                assert (one.source, one.warnings) == (other.source, other.warnings)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int32, torch.float16, torch.bfloat16, torch.float64]
)
def test_any_type_of_voxel_is_converted_as_the_dataset_does(dtype, tmp_path: Path) -> None:
    dataset = _cases(1, dtype)
    cached = cache(dataset, tmp_path / "a.h5")

    assert _same(dataset[0]["image"], cached[0]["image"])
    patches = (PatchDataset(source, patch_size=(20, 33, 90)) for source in (dataset, cached))
    one, other = (patch[0] for patch in patches)
    assert all(_same(one[key], other[key]) for key in one)


def test_too_large_voxels_become_infinity_without_a_warning(tmp_path: Path) -> None:
    data = torch.full((1, 30, 40, 50), 1e300, dtype=torch.float64)
    cached = cache(VolumeDataset([{"image": Volume(data, np.eye(4))}]), tmp_path / "a.h5")

    assert torch.isinf(cached[0]["image"]).all()


TENSORS = [
    torch.tensor(3.5),
    torch.tensor([True, False]),
    torch.arange(7).to(torch.uint16),
    torch.arange(7).to(torch.uint64),
    torch.arange(5, dtype=torch.bfloat16) / 3,
    torch.full((2, 3), float("nan")),
    torch.arange(6.0).reshape(2, 3).T,
    torch.complex(torch.ones(3), torch.arange(3.0)),
    torch.zeros(0, 4, dtype=torch.int64),
    torch.rand(2, 3, 40, 50, 60),
    torch.rand(300, 2, 3, 4, generator=torch.Generator().manual_seed(0)),
    torch.rand(1, 9, 9, 9).bfloat16(),
]
ARRAYS = [
    np.array(7),
    np.arange(6, dtype=">i2").reshape(2, 3),
    np.zeros((0,), np.float32),
    np.asfortranarray(np.random.default_rng(0).random((30, 40, 50))),
    np.array([True, False]),
    np.arange(8, dtype=np.uint32)[::-2],
]
VALUES = ["", "x\0y \ud800 ü", 2**80, -1, 0.1, float("inf"), float("nan"), True, None]


@pytest.mark.parametrize("checksum", [False, True])
def test_every_kind_of_value_comes_back_as_it_was(checksum: bool, tmp_path: Path) -> None:
    items = [
        {f"key {n}": value for n, value in enumerate(values)}
        for values in (TENSORS, ARRAYS, VALUES)
    ]
    cached = cache(Dicts([*items, {}]), tmp_path / "a.h5", version="1", checksum=checksum)

    for index, item in enumerate(items):
        again = cached[index]
        assert list(again) == list(item)
        for key in item:
            assert _same(item[key], again[key]), (key, item[key], again[key])
    assert cached[3] == {}


def test_what_comes_back_is_in_memory_of_its_own(tmp_path: Path) -> None:
    cached = cache(Dicts([{"a": torch.zeros(50, 60, 70)}]), tmp_path / "a.h5", version="1")
    cached[0]["a"] += 1

    assert not cached[0]["a"].any()


def test_gradients_are_left_behind(tmp_path: Path) -> None:
    weight = torch.ones(3, requires_grad=True)
    cached = cache(
        Dicts([{"a": weight * 2, "b": torch.nn.Parameter(weight)}]), tmp_path / "a", version="1"
    )

    assert not cached[0]["a"].requires_grad
    assert cached[0]["b"].tolist() == [1, 1, 1]


class Odd(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((torch.zeros(1), 0), "item must be a dict of tensors; got tuple"),
        ({"a": {"b": torch.zeros(1)}}, "'a' must be a plain tensor.*got dict"),
        ({"a": [1, 2]}, "'a' must be .*got list"),
        ({"a": torch.zeros(1).as_subclass(Odd)}, "'a' must be a plain tensor.*got Odd"),
        ({"a": np.ma.masked_array([1.0])}, "'a' must be .*got MaskedArray"),
        ({"a": np.array(["x"])}, "'a' must be .*got an array of <U1"),
        ({"a": np.float64(1)}, "'a' must be .*got float64"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "'a' must be .*got a tensor"),
        ({"a/b": 1}, "keys of an item must be names without '/'"),
        ({"": 1}, "keys of an item"),
        ({3: 1}, "keys of an item"),
        ({"image": torch.zeros(1, 2, 3, 4), "affine": np.zeros((4, 4))}, "affine must be"),
    ],
)
def test_what_cannot_be_kept_is_named_with_its_item(item, message: str, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        cache(Dicts([{}, item]), tmp_path / "a.h5", version="1")

    assert "in item 1 of the dataset to cache" in caught.value.__notes__
    assert [p.name for p in tmp_path.iterdir()] == [".a.h5.lock"]


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize(
    "sampler",
    [
        None,
        ForegroundPatchSampler(probability=0.7),
        ClassBalancedPatchSampler(),
        WeightedPatchSampler(lambda case: case.label.data[0] + 0.5),
        ValidPatchSampler(ignore_index=1, min_valid_ratio=0.99),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_patches_are_those_of_the_dataset(sampler, checksum: bool, tmp_path: Path) -> None:
    dataset = _cases()
    options = {"sampler": sampler, "patches_per_case": 4, "pad_value": -1, "pad_label": 7}
    cached = cache(dataset, tmp_path / "a.h5", checksum=checksum)
    for size in ((20, 30, 100), (60, 30, 150)):
        one = PatchDataset(dataset, patch_size=size, **options)
        other = PatchDataset(cached, patch_size=size, **options)
        for item, again in zip(one, other, strict=True):
            assert all(_same(item[key], again[key]) for key in item)


def test_a_grid_of_patches_is_that_of_the_dataset(tmp_path: Path) -> None:
    dataset = _cases()
    cached = cache(dataset, tmp_path / "a.h5")
    grids = (GridPatchDataset(source, patch_size=(30, 40, 90)) for source in (dataset, cached))

    for item, again in zip(*grids, strict=True):
        assert all(_same(item[key], again[key]) for key in item)


def test_patches_are_read_without_the_rest(tmp_path: Path, monkeypatch) -> None:
    cached = cache(_cases(), tmp_path / "a.h5")
    sampler = ForegroundPatchSampler(probability=1)
    patches = PatchDataset(cached, patch_size=10, sampler=sampler)
    read = []
    inner = type(cached._arrays).read

    def noting(self, name: str, box: tuple[slice, ...], dtype=None):
        read.append([part.stop - part.start for part in box])
        return inner(self, name, box, dtype)

    monkeypatch.setattr(type(cached._arrays), "read", noting)
    patches[1]

    assert read == [[1, 1, 1, 140], [2, 10, 10, 10], [1, 10, 10, 10]]


def test_regions_are_the_case_and_then_cropped(tmp_path: Path) -> None:
    cached = cache(_cases(), tmp_path / "a.h5")
    lazy, whole = cached.lazy_case(1), cached.case(1)

    region = lazy.image.read((5, 10, 20), (30, 40, 100))
    assert _same(region.data, whole.image.data[:, 5:35, 10:50, 20:120])
    assert np.array_equal(region.affine, whole.image.crop((5, 10, 20), (1, 1, 1)).affine)
    assert _same(lazy.label.data, whole.label.data)
    assert lazy.id == whole.id == "case 1"


def test_dicts_with_volumes_are_cases_too(tmp_path: Path) -> None:
    place = affine(3)
    items = [
        {
            "image": torch.rand(1, 9, 9, 9),
            "label": torch.ones(1, 9, 9, 9),
            "affine": torch.tensor(place),
        },
        {"image": torch.rand(1, 9, 9, 9).bfloat16(), "id": "b"},
        {"image": torch.rand(1, 9, 9)},
    ]
    cached = cache(Dicts(items), tmp_path / "a.h5", version="1")

    image, label, name = cached.case(0)
    assert np.array_equal(image.affine, place)
    assert np.array_equal(label.affine, place)
    assert (name, cached.case(1).id, cached.case(1).label) == ("0", "b", None)
    assert _same(cached.case(1).image.data, items[1]["image"])
    assert _same(
        cached.lazy_case(1).image.read((1, 1, 1), (2, 3, 4)).data,
        items[1]["image"][:, 1:3, 1:4, 1:5],
    )
    assert [notice.code for notice in cached.case(1).image.warnings] == ["no_orientation"]
    with pytest.raises(ValueError, match=r"item 2 must be an image \(C, D, H, W\)"):
        cached.lazy_case(2)


@pytest.mark.parametrize("index", [2, -3])
def test_an_index_beyond_the_end_is_an_error(index: int, tmp_path: Path) -> None:
    cached = cache(_cases(), tmp_path / "a.h5")

    with pytest.raises(IndexError, match="below 2"):
        cached[index]


def test_others_can_read_the_file(tmp_path: Path) -> None:
    dataset = _cases()
    cache(dataset, tmp_path / "a.h5")
    image = dataset.case(1).image

    again = read_hdf5(tmp_path / "a.h5", name="items/000001/image")
    assert _same(again.data, image.data)
    assert np.array_equal(again.affine, image.affine)
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["items/000001/image"][()], image.data.numpy())
        assert file["items/000001/image"].attrs["affine"].dtype == np.float64


def test_chunks_hardly_stick_out(tmp_path: Path) -> None:
    image = torch.zeros(1, 155, 240, 240, dtype=torch.uint8)
    cache(VolumeDataset([{"image": Volume(image, np.eye(4))}]), tmp_path / "a.h5")

    with h5py.File(tmp_path / "a.h5") as file:
        assert file["items/000000/image"].chunks == (1, 31, 30, 240)
    assert (tmp_path / "a.h5").stat().st_size < 1.02 * image.numel()


# ------------------------------------------------------------------------- old, damaged, foreign


def test_a_cache_is_filled_once(tmp_path: Path) -> None:
    dataset = Dicts([{"a": 1}, {"a": 2}], tmp_path / "log")
    for _ in range(2):
        assert cache(dataset, tmp_path / "a.h5", version="1")[1] == {"a": 2}

    assert (tmp_path / "log").read_text() == "0\n1\n"


def _twice(case: Case) -> Case:
    return Case(case.image.like(case.image.data * 2), case.label, case.id)


def _times(case: Case, factor: int) -> Case:
    return Case(case.image.like(case.image.data * factor), case.label, case.id)


def _files(folder: Path, **options) -> VolumeDataset:
    return VolumeDataset([{"image": folder / "x.nii", "id": options.pop("id", "x")}], **options)


CHANGES = {
    "id": {"id": "y"},
    "prepare": {"prepare": _twice},
    "argument": {"prepare": functools.partial(_times, factor=3)},
    "other argument": {"prepare": functools.partial(_times, factor=4)},
    "tolerance": {"tolerance": 0.2},
}


def test_every_change_of_the_dataset_is_another_fingerprint(tmp_path: Path) -> None:
    write_nifti(volume(0), tmp_path / "x.nii")
    marks = [_files(tmp_path, **dict(change)).fingerprint() for change in ({}, *CHANGES.values())]
    assert marks[0] == _files(tmp_path).fingerprint()
    write_nifti(volume(1), tmp_path / "x.nii")
    marks.append(_files(tmp_path).fingerprint())
    marks.append(VolumeDataset([{"image": [tmp_path / "x.nii"] * 2, "id": "x"}]).fingerprint())
    v = volume(2)
    seen = (v, v.like(v.data + 1), Volume(v.data, affine(9)), v.like(v.data.float()))
    marks += [VolumeDataset([{"image": one, "id": "x"}]).fingerprint() for one in seen]

    assert len(set(marks)) == len(marks)


def test_a_file_of_a_folder_that_changes_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"a")
    before = VolumeDataset([{"image": tmp_path / "series"}]).fingerprint()
    (tmp_path / "series" / "2.dcm").write_bytes(b"a")

    assert VolumeDataset([{"image": tmp_path / "series"}]).fingerprint() != before


@pytest.mark.parametrize("ending", [".nhdr", ".mhd", ".nrrd"])
def test_voxels_beside_a_header_that_change_are_noticed(ending: str, tmp_path: Path) -> None:
    detached = {
        ".nhdr": nrrd(b"", data_file="a.raw"),
        ".mhd": mha(b"", ElementDataFile="a.raw"),
        ".nrrd": nrrd(),
    }
    (tmp_path / "a.raw").write_bytes(bytes(120))
    path = tmp_path / f"a{ending}"
    path.write_bytes(detached[ending])
    before = VolumeDataset([{"image": path}]).fingerprint()
    os.utime(tmp_path / "a.raw", (1, 1))

    changed = VolumeDataset([{"image": path}]).fingerprint() != before
    assert changed == (ending != ".nrrd")


def test_a_function_without_a_name_has_no_fingerprint() -> None:
    dataset = VolumeDataset([{"image": volume()}], prepare=lambda case: case)

    with pytest.raises(ValueError, match="prepare must be a function that can be pickled"):
        dataset.fingerprint()


@pytest.mark.parametrize("change", ["file", "version", "options", "length"])
def test_a_stale_cache_is_an_error_or_is_rebuilt(change: str, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_nifti(volume(0), tmp_path / "x.nii")
    cases = [{"image": tmp_path / "x.nii"}]
    options = {}
    cache(VolumeDataset(cases), path, **options)
    if change == "file":
        write_nifti(volume(1, dtype=torch.int32), tmp_path / "x.nii")
    elif change == "length":
        cases = [*cases, {"image": volume(3)}]
    else:
        options = {"version": "2"} if change == "version" else {"checksum": True, "chunk": 5}
    named = {
        "file": "other files, options or functions",
        "length": "items 1, not 2",
        "version": "version '', not '2'",
        "options": r"chunk \[32, 32, 256\], not \[5, 5, 5\]; checksum False, not True",
    }

    with pytest.raises(FormatError, match=f"made from this dataset.*{named[change]}.*rebuild"):
        cache(VolumeDataset(cases), path, **options)
    again = cache(VolumeDataset(cases), path, stale="rebuild", **options)
    assert len(again) == len(cases)
    assert _same(again[0]["image"], VolumeDataset(cases)[0]["image"])
    assert cache(VolumeDataset(cases), path, **options).origin == again.origin


def test_a_dataset_that_cannot_say_what_it_is_needs_a_version(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"version must be given, as a Dicts has no fingerprint\(\)"
    ):
        cache(Dicts([{}]), tmp_path / "a.h5")


@pytest.mark.parametrize("keep", [0, 100, 0.5, -1])
def test_a_cache_that_was_cut_is_refused_or_rebuilt(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    cache(_cases(), path)
    size = path.stat().st_size
    os.truncate(path, int(keep * size) if keep == 0.5 else keep % size)

    with pytest.raises(DataError) as caught:
        cache(_cases(), path)
    assert "stale='rebuild' replaces" in caught.value.__notes__[0]
    assert _same(cache(_cases(), path, stale="rebuild")[1]["image"], _cases()[1]["image"])


def test_a_cache_without_all_items_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    cache(_cases(), path)
    with h5py.File(path, "r+") as file:
        del file["items/000001"]

    with pytest.raises(TruncatedError, match="all items; got 1 items"):
        CachedDataset(path)


@pytest.mark.parametrize("text", ["{}", "[", "3", '{"items": "2"}', '{"items": 3}'])
def test_a_cache_that_says_nonsense_is_refused(text: str, tmp_path: Path) -> None:
    cache(_cases(), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["origin"] = text

    with pytest.raises(DataError, match=r"a\.h5: cache must be"):
        CachedDataset(tmp_path / "a.h5")


def _other_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["precious"] = np.arange(3)


@pytest.mark.parametrize("make", [_other_hdf5, lambda path: path.write_bytes(b"precious")])
def test_a_file_that_is_no_cache_is_never_replaced(make: Callable, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    make(path)
    before = path.read_bytes()

    with pytest.raises(FormatError):
        cache(_cases(), path, stale="rebuild")
    assert path.read_bytes() == before


def test_a_damaged_voxel_is_noticed_with_checksums(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    data = torch.full((1, 40, 40, 40), 1234567, dtype=torch.int32)
    cache(VolumeDataset([{"image": Volume(data, np.eye(4))}]), path, checksum=True)
    content = bytearray(path.read_bytes())
    content[content.index(np.array([1234567] * 9, "<i4").tobytes()) + 7] ^= 16
    path.write_bytes(content)

    with pytest.raises(ChecksumError):
        CachedDataset(path)[0]


def test_a_cache_that_is_rebuilt_leaves_its_readers_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    old = cache(Dicts([{"a": torch.zeros(9)}]), path, version="1")
    assert not old[0]["a"].any()
    cache(Dicts([{"a": torch.ones(9)}]), path, version="2", stale="rebuild")

    assert not old[0]["a"].any()
    with pytest.raises(FormatError, match="as it was when it was opened"):
        pickle.loads(pickle.dumps(old))[0]


def test_limits_hold(tmp_path: Path) -> None:
    cache(_cases(1), tmp_path / "a.h5")
    cached = CachedDataset(tmp_path / "a.h5", limits=Limits(max_bytes=10_000))

    assert cached.lazy_case(0).image.read((0, 0, 0), (10, 10, 10)).shape == (2, 10, 10, 10)
    with pytest.raises(LimitError):
        cached[0]


def test_the_global_random_state_is_neither_used_nor_changed(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    cache(_cases(), tmp_path / "a.h5")

    assert torch.equal(before, torch.get_rng_state())


def test_options_are_checked(tmp_path: Path, unhooked) -> None:
    for options, message in (
        ({"stale": "ignore"}, "stale must be one of 'error', 'rebuild'"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"chunk": (4, 4)}, "chunk must be one value or 3"),
        ({"num_workers": -1}, "num_workers must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            cache(_cases(), tmp_path / "a.h5", **options)


# ------------------------------------------------------------------------- workers and ranks


class Reading(Dataset):
    """Reads patches, items and regions of a cache where it is told to."""

    def __init__(self, cached: CachedDataset) -> None:
        self.cached = cached
        self.patches = PatchDataset(cached, patch_size=(8, 9, 10), patches_per_case=2)
        self.lazy = cached.lazy_case(1)

    def __len__(self) -> int:
        return len(self.cached)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        region = self.lazy.image.read((index, 1, 2), (3, 4, 5)).data
        return [self.cached[index]["image"][0, :9], self.patches[index]["image"], region]


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("method", METHODS)
@forked
def test_workers_read_what_the_parent_reads(method: str, checksum: bool, tmp_path: Path) -> None:
    dataset = Reading(cache(_cases(), tmp_path / "a.h5", checksum=checksum))
    alone = [dataset[index] for index in range(2)]  # the file is open here before workers start
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context=method)

    for one, other in zip(alone, loader, strict=True):
        assert all(map(_same, one, other))


@forked
def test_workers_can_fill(tmp_path: Path) -> None:
    cached = cache(_cases(3), tmp_path / "a.h5", num_workers=2)

    assert all(_same(cached[n]["image"], _cases(3)[n]["image"]) for n in range(3))


def _call_cache(dataset: Dicts, path: Path, start, queue) -> None:
    start.wait()
    queue.put(cache(dataset, path, version="1")[1]["a"])


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")


@needs_fork
@forked
def test_one_of_several_processes_fills_and_the_others_wait(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    dataset = Dicts([{"a": n, "b": torch.zeros(10**6)} for n in range(3)], tmp_path / "log")
    start, queue = context.Event(), context.Queue()
    arguments = (dataset, tmp_path / "a.h5", start, queue)
    processes = [context.Process(target=_call_cache, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    assert [queue.get(timeout=60) for _ in processes] == [1] * 4
    for process in processes:
        process.join()

    assert (tmp_path / "log").read_text() == "0\n1\n2\n"


class Killing(Dicts):
    """Ends its process while it is read."""

    def __getitem__(self, index: int) -> object:
        if index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


@needs_fork
@forked
def test_a_process_that_is_killed_while_it_fills_leaves_nothing(tmp_path: Path) -> None:
    items = [{"a": torch.zeros(10**5)}, {"a": torch.ones(10**5)}]
    context = multiprocessing.get_context("fork")
    arguments = (Killing(items), tmp_path / "a.h5")
    process = context.Process(target=cache, args=arguments, kwargs={"version": "1"})
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".a.h5.*.tmp"))) == 1
    (tmp_path / ".a.h5x.1-2.tmp").write_bytes(b"of another file")

    assert cache(Dicts(items), tmp_path / "a.h5", version="1")[1]["a"].all()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.h5.lock", ".a.h5x.1-2.tmp", "a.h5"]


def test_a_dataset_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Failing(Dicts):
        def __getitem__(self, index: int) -> object:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        cache(Failing([{}]), tmp_path / "a.h5", version="1")
    assert [p.name for p in tmp_path.iterdir()] == [".a.h5.lock"]


def test_what_the_file_says_is_json(tmp_path: Path) -> None:
    cache(Dicts([{"a": torch.zeros(1)}]), tmp_path / "a.h5", version="1")

    with h5py.File(tmp_path / "a.h5") as file:
        assert json.loads(file.attrs["origin"])["items"] == 1


# ------------------------------------------------------------------------- in memory


def test_a_memory_cache_makes_each_item_once(tmp_path: Path) -> None:
    dataset = MemoryCache(Dicts([{"a": torch.zeros(2)}, {"a": torch.ones(2)}], tmp_path / "log"))
    for index in (0, 1, -1, 0):
        item = dataset[index]
        item["a"] += 5
        item["b"] = 1

    assert (tmp_path / "log").read_text() == "0\n1\n"
    assert dataset[0].keys() == {"a"}
    assert [dataset[index]["a"].tolist() for index in range(len(dataset))] == [[0, 0], [1, 1]]
    with pytest.raises(IndexError, match="below 2"):
        dataset[2]


def test_a_memory_cache_is_pickled_without_what_it_keeps(tmp_path: Path) -> None:
    dataset = MemoryCache(Dicts([{"a": torch.zeros(10**6)}]))
    dataset[0]
    dataset._dataset.items = [{"a": 1}]

    assert len(pickle.dumps(dataset)) < 10_000
    assert pickle.loads(pickle.dumps(dataset))[0] == {"a": 1}
