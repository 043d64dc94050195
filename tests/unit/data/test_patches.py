"""Patches are random by key, lie where their affine says, and hold foreground when asked."""

import pickle
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medkit.data import (
    Case,
    ForegroundPatchSampler,
    PatchDataset,
    UniformPatchSampler,
    Volume,
    VolumeDataset,
)
from medkit.testing import assert_close
from medkit.train import (
    ResumableBatchSampler,
    ResumableLoader,
    SampleIndex,
    SeededDataset,
    make_loader,
)
from unit.data.volumes import affine

SHAPE = (12, 14, 16)
forked = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def _case(
    seed: int = 0,
    shape: Sequence[int] = SHAPE,
    foreground: Sequence[tuple[int, int, int]] = ((3, 4, 5),),
    value: int = 1,
) -> dict[str, Volume | str]:
    """A case whose voxels are their own numbers, with a label that is ``value`` here and there."""
    data = torch.arange(int(np.prod(shape)), dtype=torch.int32).reshape(1, *shape)
    label = torch.zeros(1, *shape, dtype=torch.uint8)
    for d, h, w in foreground:
        label[0, d, h, w] = value
    image = Volume(data, affine(seed))
    return {"image": image, "label": image.like(label), "id": f"case {seed}"}


def _patches(*cases: dict[str, Volume | str], **options) -> PatchDataset:
    options = {"patch_size": (4, 5, 6), **options}
    return PatchDataset(VolumeDataset(cases or [_case()]), **options)


def _start(item, shape: Sequence[int] = SHAPE) -> tuple[int, ...]:
    """Index of the first voxel of an unpadded patch, from the number stored in it."""
    first = int(item["image"].flatten()[0])
    return tuple(int(i) for i in np.unravel_index(first, shape))


def test_items_are_plain_and_typed() -> None:
    item = _patches()[0]

    assert type(item) is dict
    assert {key: getattr(value, "dtype", str) for key, value in item.items()} == {
        "image": torch.float32, "label": torch.int64, "affine": torch.float64, "id": str,
    }  # fmt: skip
    assert item["image"].shape == item["label"].shape == (1, 4, 5, 6)


def test_patch_is_a_box_of_the_case_where_its_affine_says() -> None:
    cases = [_case(0), _case(1)]
    patches = _patches(*cases, patches_per_case=8)

    for index in range(16):
        item = patches[index]
        case = cases[index // 8]
        start = _start(item)
        box = tuple(slice(a, a + n) for a, n in zip(start, (4, 5, 6), strict=True))
        assert torch.equal(item["image"][0], case["image"].data[0][box].float())
        assert torch.equal(item["label"][0], case["label"].data[0][box].long())
        assert_close(item["affine"][:, 3], case["image"].affine @ (*start, 1))
        assert_close(item["affine"][:, :3], case["image"].affine[:, :3].copy())
        assert item["id"] == case["id"]


def test_patches_do_not_share_memory_with_the_case() -> None:
    case = _case()
    item = _patches(case, patch_size=SHAPE)[0]
    item["image"].zero_()
    item["label"].fill_(9)

    assert case["image"].data.max() > 0
    assert case["label"].data.max() == 1


def test_patches_depend_on_seed_epoch_and_index_alone() -> None:
    patches = _patches(patches_per_case=20)
    starts = [_start(patches[i]) for i in range(20)]

    assert [_start(patches[i]) for i in reversed(range(20))] == starts[::-1]
    assert [_start(_patches(patches_per_case=20)[i]) for i in range(20)] == starts
    assert len(set(starts)) > 15
    patches.set_epoch(1)
    assert [_start(patches[i]) for i in range(20)] != starts
    patches.set_epoch(0)
    assert [_start(patches[i]) for i in range(20)] == starts
    assert [_start(_patches(patches_per_case=20, seed=1)[i]) for i in range(20)] != starts


def test_an_index_that_says_when_it_was_drawn_is_believed() -> None:
    patches = _patches(patches_per_case=20)
    later = _patches(patches_per_case=20)
    later.set_epoch(3)

    for i in range(20):
        index = SampleIndex(i, epoch=3, draw=i)
        assert _start(patches[index]) == _start(later[i])
    repeated = {_start(patches[SampleIndex(0, epoch=3, draw=draw)]) for draw in range(20)}
    assert len(repeated) > 15


@pytest.mark.parametrize("keyed", [True, False])
def test_patches_behind_a_seeded_dataset_are_new_in_every_epoch(keyed: bool) -> None:
    data = SeededDataset(_patches(patches_per_case=6), seed=0)
    sampler = ResumableBatchSampler(6, 6, seed=0, shuffle=False)
    loader = make_loader(data, sampler) if keyed else DataLoader(data, batch_size=6)
    resumable = ResumableLoader(loader)

    (first,), (second,) = ([batch["image"] for batch in resumable] for _ in range(2))

    own = _patches(patches_per_case=6)
    own.set_epoch(1)
    assert not torch.equal(first, second)
    assert torch.equal(second, torch.stack([own[i]["image"] for i in range(6)]))


def test_the_global_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(1)
    np_state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = _start(_patches()[0])
    drawn = torch.rand(1)
    torch.manual_seed(1)

    assert torch.equal(torch.rand(1), drawn)
    assert np.array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
    torch.manual_seed(99)
    assert _start(_patches()[0]) == first


@forked
@pytest.mark.parametrize("workers", [1, 2])
def test_forked_workers_draw_the_same_patches(workers: int) -> None:
    patches = _patches(_case(0), _case(1), patches_per_case=6, sampler=ForegroundPatchSampler())

    assert list(_batches(patches, workers, "fork")) == list(_batches(patches, 0))


def test_a_spawned_worker_draws_the_same_patches() -> None:
    dataset = VolumeDataset([_case(0), _case(1)], cache=True)
    sampler = ForegroundPatchSampler()
    patches = PatchDataset(dataset, patch_size=4, patches_per_case=6, sampler=sampler)

    assert list(_batches(patches, 1, "spawn")) == list(_batches(patches, 0))


@forked
def test_workers_that_stay_alive_follow_the_epoch() -> None:
    patches = _patches(patches_per_case=6)
    loader = DataLoader(
        patches, 2, num_workers=2, persistent_workers=True, multiprocessing_context="fork"
    )
    seen = []
    for epoch in (0, 1, 0):
        patches.set_epoch(epoch)
        seen.append(torch.cat([batch["image"] for batch in loader]))

    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_pickling_keeps_everything() -> None:
    patches = _patches(patches_per_case=5, sampler=ForegroundPatchSampler())
    patches.set_epoch(3)
    copied = pickle.loads(pickle.dumps(patches))

    for index in range(5):
        assert torch.equal(copied[index]["image"], patches[index]["image"])


def test_uniform_patches_reach_every_position_equally() -> None:
    starts = Counter(_start(item)[2] for item in _all(_patches(patches_per_case=1100)))

    assert set(starts) == set(range(11))
    assert all(70 < count < 130 for count in starts.values())  # 100 each, deviation 10


def test_foreground_lies_anywhere_in_the_patch() -> None:
    voxel = (6, 7, 8)
    sampler = ForegroundPatchSampler(probability=1.0)
    patches = _patches(_case(foreground=[voxel]), patches_per_case=1200, sampler=sampler)
    places = Counter(tuple(np.subtract(voxel, _start(item)).tolist()) for item in _all(patches))

    assert len(places) == 4 * 5 * 6  # each place in the patch, 10 times each
    assert max(places.values()) < 25


def test_foreground_at_the_border_is_reached() -> None:
    for voxel in ((0, 0, 0), (11, 13, 15), (0, 13, 8)):
        sampler = ForegroundPatchSampler(probability=1.0)
        patches = _patches(_case(foreground=[voxel]), patches_per_case=20, sampler=sampler)

        assert all(item["label"].sum() == 1 for item in _all(patches))


def test_each_foreground_voxel_is_equally_likely() -> None:
    line = [(0, 0, w) for w in range(9)]
    case = _case(foreground=[*line, (11, 13, 15)])
    sampler = ForegroundPatchSampler(probability=1.0)
    patches = _patches(case, patch_size=1, patches_per_case=1000, sampler=sampler)

    counts = Counter(_start(item) for item in _all(patches))
    assert set(counts) == {*line, (11, 13, 15)}
    assert all(70 < count < 130 for count in counts.values())  # 100 each, deviation 10


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_probability_is_the_share_of_patches_with_foreground(probability: float) -> None:
    shape = (40, 40, 40)
    sampler = ForegroundPatchSampler(probability=probability)
    case = _case(shape=shape, foreground=[(20, 20, 20)])
    patches = _patches(case, patch_size=2, patches_per_case=1000, sampler=sampler)

    share = sum(int(item["label"].sum()) for item in _all(patches)) / 1000
    assert abs(share - probability) < 0.06  # a uniform patch hits the voxel 1 time in 7000


@pytest.mark.parametrize(
    ("options", "reached"),
    [({}, {1, 2, 255}), ({"classes": (2,)}, {2}), ({"ignore_index": 255}, {1, 2}),
     ({"classes": (1, 255), "ignore_index": 255}, {1}), ({"classes": (0,)}, {0})],
)  # fmt: skip
def test_classes_and_ignored_labels(options, reached: set[int]) -> None:
    case = _case(foreground=[])
    for place, value in enumerate((1, 2, 255)):
        case["label"].data[0, place] = value
    sampler = ForegroundPatchSampler(probability=1.0, **options)
    patches = _patches(case, patch_size=1, patches_per_case=60, sampler=sampler)

    assert {int(item["label"]) for item in _all(patches)} == reached


def test_cases_without_foreground_are_all_named_at_once() -> None:
    cases = [_case(0), _case(1, foreground=[]), _case(2), _case(3, foreground=[])]
    rule = "foreground must be in every case, or without_foreground='uniform'"

    with pytest.raises(ValueError, match=f"{rule}; got none in 'case 1', 'case 3'"):
        _patches(*cases, sampler=ForegroundPatchSampler())


def test_cases_without_foreground_can_be_drawn_from_anywhere() -> None:
    sampler = ForegroundPatchSampler(probability=1.0, without_foreground="uniform")
    patches = _patches(_case(0), _case(1, foreground=[]), patches_per_case=50, sampler=sampler)

    assert all(patches[index]["label"].sum() == 1 for index in range(50))
    assert len({_start(patches[index]) for index in range(50, 100)}) > 25


def test_cases_without_label_can_be_drawn_from_uniformly_only() -> None:
    case = {"image": _case()["image"], "id": "unlabelled"}

    assert set(_patches(case)[0]) == {"image", "affine", "id"}
    with pytest.raises(ValueError, match="label must be in every case; got none in 'unlabelled'"):
        _patches(case, sampler=ForegroundPatchSampler())


@pytest.mark.parametrize("label_outside", [0, -100, 255])
def test_small_volumes_are_padded_on_both_sides(label_outside: int) -> None:
    case = _case(shape=(3, 14, 4), foreground=[(0, 0, 0)])
    sampler = ForegroundPatchSampler(probability=1.0)
    patches = _patches(
        case, patch_size=(6, 5, 9), sampler=sampler, pad_value=-5.0, pad_label=label_outside
    )
    item = patches[0]

    image, label = item["image"][0], item["label"][0]
    inside = (slice(1, 4), slice(None), slice(2, 6))
    assert torch.equal(image[inside], case["image"].data[0, :, :5].float())
    assert torch.equal(label[inside], case["label"].data[0, :, :5].long())
    outside = torch.ones_like(image, dtype=torch.bool)
    outside[inside] = False
    assert image[outside].unique().tolist() == [-5]
    assert label[outside].unique().tolist() == [label_outside]
    first = item["affine"].numpy() @ (1, 0, 2, 1)
    assert_close(first, case["image"].affine[:, 3].copy())


@pytest.mark.parametrize(
    ("options", "name"), [({}, "pad_value"), ({"pad_value": 0.0}, "pad_label")]
)
def test_small_volumes_are_named_before_training_starts(options, name: str) -> None:
    rule = rf"{name} must be given, as 'case 1' \(3, 14, 4\) is smaller than the patch \(4, 5, 6\)"

    with pytest.raises(ValueError, match=rule):
        _patches(_case(0), _case(1, shape=(3, 14, 4), foreground=[]), **options)


def test_padding_without_label_needs_no_label_value() -> None:
    case = {"image": _case(shape=(3, 14, 4), foreground=[])["image"]}

    assert _patches(case, pad_value=0.0)[0]["image"].shape == (1, 4, 5, 6)


def test_loader_makes_batches() -> None:
    batch = next(iter(DataLoader(_patches(_case(0), _case(1), patches_per_case=2), batch_size=4)))

    assert batch["image"].shape == (4, 1, 4, 5, 6)
    assert batch["id"] == ["case 0", "case 0", "case 1", "case 1"]


def test_own_samplers_fit_in() -> None:
    class First:
        def prepare(self, cases):
            return [self for _ in cases]

        def start(self, case: Case, patch_size, generator):
            assert (case.id, patch_size) == ("case 0", (4, 5, 6))
            return (0, 0, int(generator.integers(3, 4)))

    assert _start(_patches(sampler=First())[0]) == (0, 0, 3)


def test_index_is_small() -> None:
    case = _case(shape=(64, 64, 256), foreground=[(1, 2, 3)])
    (draw,) = ForegroundPatchSampler().prepare([VolumeDataset([case]).case(0)])

    assert len(pickle.dumps(draw)) < 0.05 * case["label"].data.nbytes


@pytest.mark.parametrize("index", [5, -6])
def test_index_beyond_the_end_is_an_error(index: int) -> None:
    with pytest.raises(IndexError, match=f"index must be below 5; got {index}"):
        _patches(patches_per_case=5)[index]


def test_negative_index_counts_from_the_end() -> None:
    patches = _patches(patches_per_case=5)

    assert torch.equal(patches[-1]["image"], patches[4]["image"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 0}, "patch_size must be at least 1; got 0"),
        ({"patch_size": (4, 4)}, "patch_size must be one value or 3"),
        ({"patches_per_case": 0}, "patches_per_case must be at least 1; got 0"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
    ],
)
def test_options_are_checked(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _patches(**options)


def test_sampler_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\]; got 1.5"):
        ForegroundPatchSampler(probability=1.5)
    with pytest.raises(ValueError, match="epoch must be at least 0; got -1"):
        _patches().set_epoch(-1)


@pytest.mark.usefixtures("unhooked")
def test_classes_are_whole_numbers() -> None:
    with pytest.raises(TypeError, match="classes must be one or more integers; got 2"):
        ForegroundPatchSampler(classes=2)
    with pytest.raises(TypeError, match=r"classes\[1\] must be an integer; got 1.5"):
        ForegroundPatchSampler(classes=[1, 1.5])
    with pytest.raises(TypeError, match=r"ignore_index must be an integer; got 1\.5"):
        ForegroundPatchSampler(ignore_index=1.5)
    with pytest.raises(ValueError, match="classes must be one or more integers; got none"):
        ForegroundPatchSampler(classes=[])


@pytest.mark.usefixtures("unhooked")
def test_rule_for_empty_cases_is_checked() -> None:
    with pytest.raises(ValueError, match="without_foreground must be one of 'error', 'uniform'"):
        ForegroundPatchSampler(without_foreground="skip")


def test_uniform_is_the_default() -> None:
    ours = [_start(item) for item in _all(_patches(patches_per_case=9))]

    assert ours == [
        _start(item) for item in _all(_patches(patches_per_case=9, sampler=UniformPatchSampler()))
    ]


def _all(patches: PatchDataset) -> Iterator[dict]:
    return (patches[index] for index in range(len(patches)))


def _batches(patches: PatchDataset, workers: int, how: str | None = None) -> Iterator[object]:
    loader = DataLoader(patches, 5, num_workers=workers, multiprocessing_context=how)
    for batch in loader:
        yield batch["id"], *(batch[key].tolist() for key in ("image", "label", "affine"))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
@pytest.mark.parametrize("classes", [None, [40000]])
def test_foreground_of_wide_unsigned_labels_is_found(dtype, classes) -> None:
    label = torch.zeros(1, *SHAPE, dtype=torch.int64)
    label[0, 3, 4, 5] = 40000
    image = Volume(torch.rand(1, *SHAPE), np.eye(4))
    dataset = VolumeDataset([{"image": image, "label": image.like(label.to(dtype))}])
    sampler = ForegroundPatchSampler(probability=1, classes=classes, ignore_index=7)

    patches = PatchDataset(dataset, patch_size=4, sampler=sampler, patches_per_case=3)

    assert all((item["label"] == 40000).any() for item in patches)
