"""Samplers led by classes, by weights and by what is annotated, and the grid of patches."""

import pickle
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medkit.data import (
    Case,
    ClassBalancedPatchSampler,
    ForegroundPatchSampler,
    GridPatchDataset,
    PatchDataset,
    UniformPatchSampler,
    ValidPatchSampler,
    Volume,
    VolumeDataset,
    WeightedPatchSampler,
)
from medkit.testing import assert_close
from unit.losses.refusals import refuses

SHAPE = (9, 10, 11)


def case(
    label: torch.Tensor | None = None, image: torch.Tensor | None = None, name: str = "a"
) -> Case:
    shape = next((tuple(x.shape) for x in (label, image) if x is not None), SHAPE)
    image = torch.arange(int(np.prod(shape))).reshape(1, *shape) if image is None else image[None]
    volume = Volume(image, np.diag([2.0, 3.0, 4.0, 1.0]))
    return Case(volume, None if label is None else volume.like(label[None]), name)


def starts(sampler, of: Case, size: Sequence[int], count: int) -> list[tuple[int, ...]]:
    (draw,) = sampler.prepare([of])
    draw = pickle.loads(pickle.dumps(draw))
    generator = np.random.default_rng(0)
    return [draw.start(of, size, generator) for _ in range(count)]


def three_classes() -> torch.Tensor:
    label = torch.zeros(SHAPE, dtype=torch.uint8)
    label[0, 0, 0] = 1
    label[4:6, 4:6, 4:6] = 2
    return label


def constant(weights: torch.Tensor):
    def of(_: Case) -> torch.Tensor:
        return weights

    return of


class TestClassBalancedPatchSampler:
    def drawn(self, sampler: ClassBalancedPatchSampler, count: int = 900) -> Counter[int]:
        """Labels of the patches of one voxel that a sampler draws."""
        label = three_classes()
        return Counter(label[s].item() for s in starts(sampler, case(label), (1, 1, 1), count))

    def test_every_class_of_the_case_comes_equally_often(self) -> None:
        counts = self.drawn(ClassBalancedPatchSampler())

        assert set(counts) == {0, 1, 2}  # of 990 voxels 981 are background and one is class 1
        assert all(abs(count - 300) < 60 for count in counts.values())  # deviation 14

    def test_ratios(self) -> None:
        counts = self.drawn(ClassBalancedPatchSampler(classes={1: 3.0, 2: 1.0, 5: 9.0}))

        assert set(counts) == {1, 2}  # the share of the missing class goes to the others
        assert abs(counts[1] - 675) < 60

    def test_ignored_label_is_never_drawn(self) -> None:
        assert set(self.drawn(ClassBalancedPatchSampler(ignore_index=0))) == {1, 2}

    def test_each_voxel_of_a_class_is_equally_likely(self) -> None:
        sampler = ClassBalancedPatchSampler(classes=[2])
        counts = Counter(starts(sampler, case(three_classes()), (1, 1, 1), 800))

        assert len(counts) == 8
        assert all(abs(count - 100) < 40 for count in counts.values())  # deviation 9

    def test_voxel_lies_anywhere_in_a_patch_inside_the_volume(self) -> None:
        sampler = ClassBalancedPatchSampler(classes=[1])

        assert set(starts(sampler, case(three_classes()), (3, 4, 5), 20)) == {(0, 0, 0)}

    def test_case_without_the_classes_is_named_or_drawn_from_anywhere(self) -> None:
        empty = case(torch.zeros(SHAPE, dtype=torch.uint8), name="scan 9")
        with pytest.raises(ValueError, match=r"without_classes='uniform'; got none in 'scan 9'"):
            ClassBalancedPatchSampler(classes=[4]).prepare([empty])
        anywhere = ClassBalancedPatchSampler(classes=[4], without_classes="uniform")

        assert len(set(starts(anywhere, empty, (2, 2, 2), 50))) > 30
        with pytest.raises(ValueError, match="label must be in every case; got none in 'a'"):
            anywhere.prepare([case()])

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match=r"classes\[1\] must be a ratio of 0 or more; got -1"):
            ClassBalancedPatchSampler(classes={1: -1.0})
        with pytest.raises(ValueError, match="at least one class with a ratio above 0"):
            ClassBalancedPatchSampler(classes={1: 0.0})
        with pytest.raises(ValueError, match="classes must be one or more integers; got none"):
            ClassBalancedPatchSampler(classes=[])
        with refuses("without_classes"):
            ClassBalancedPatchSampler(without_classes="skip")


class TestWeightedPatchSampler:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int16, torch.float64])
    def test_middle_voxels_follow_the_weights(self, dtype: torch.dtype) -> None:
        weights = torch.zeros(SHAPE, dtype=dtype)
        weights[4, 5, 6], weights[7, 7, 2] = 3, 1
        sampler = WeightedPatchSampler(constant(weights))
        (draw,) = sampler.prepare([case()])
        generator = np.random.default_rng(0)
        counts = Counter(draw.start(case(), (3, 3, 3), generator) for _ in range(800))

        assert set(counts) == {(3, 4, 5), (6, 6, 1)}
        assert abs(counts[3, 4, 5] - 600) < 50  # deviation 12

    def test_boolean_map_with_a_channel(self) -> None:
        mask = torch.zeros(1, *SHAPE, dtype=torch.bool)
        mask[0, 0, 0, 0] = mask[0, -1, -1, -1] = True
        (draw,) = WeightedPatchSampler(constant(mask)).prepare([case()])
        generator = np.random.default_rng(0)
        drawn = {draw.start(case(), (4, 4, 4), generator) for _ in range(50)}

        assert drawn == {(0, 0, 0), (5, 6, 7)}  # patches at the border are moved in

    @pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
    def test_map_of_wide_unsigned_numbers(self, dtype: torch.dtype) -> None:
        weights = torch.zeros(SHAPE, dtype=dtype)
        weights[4, 5, 6] = 40000

        found = starts(WeightedPatchSampler(constant(weights)), case(), (1, 1, 1), 3)

        assert found == [(4, 5, 6)] * 3

    def test_every_voxel_of_a_smooth_map_in_its_share(self) -> None:
        ramp = torch.arange(1.0, 5.0).reshape(1, 1, 4) / 10
        whole = case(image=torch.zeros(1, 1, 4))
        (draw,) = WeightedPatchSampler(constant(ramp)).prepare([whole])
        generator = np.random.default_rng(0)
        counts = Counter(draw.start(whole, (1, 1, 1), generator)[2] for _ in range(4000))

        assert all(abs(counts[w] - 400 * (w + 1)) < 120 for w in range(4))  # deviation 31

    def test_volume_smaller_than_the_patch_lies_in_its_middle(self) -> None:
        (draw,) = WeightedPatchSampler(constant(torch.ones(SHAPE))).prepare([case()])

        start = draw.start(case(), (13, 13, 13), np.random.default_rng(0))
        assert start == (-2, -1, -1)

    def test_map_of_zeros_is_named_or_drawn_from_anywhere(self) -> None:
        with pytest.raises(ValueError, match=r"without_weight='uniform'; got 0 everywhere in 'b'"):
            WeightedPatchSampler(constant(torch.zeros(SHAPE))).prepare([case(name="b")])
        anywhere = WeightedPatchSampler(constant(torch.zeros(SHAPE)), without_weight="uniform")
        (draw,) = anywhere.prepare([case()])
        generator = np.random.default_rng(0)

        assert len({draw.start(case(), (2, 2, 2), generator) for _ in range(50)}) > 30

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (torch.ones(3, 3, 3), r"of the shape of 'a', \(9, 10, 11\); got \(3, 3, 3\)"),
            (-torch.ones(SHAPE), "0 or more; got -1.0 in 'a'"),
            (torch.full(SHAPE, torch.nan), "finite; got NaN or infinity in 'a'"),
        ],
    )
    def test_bad_maps(self, weights: torch.Tensor, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            WeightedPatchSampler(constant(weights)).prepare([case()])

    @pytest.mark.usefixtures("unhooked")
    def test_map_that_is_no_tensor(self) -> None:
        with pytest.raises(TypeError, match="a function that returns a tensor; got ndarray"):
            WeightedPatchSampler(constant(np.ones(SHAPE))).prepare([case()])


class TestValidPatchSampler:
    def half_known(self) -> Case:
        label = torch.full((40, 8, 8), 2, dtype=torch.uint8)
        label[:10] = 1
        return case(label)

    def share(self, start: Sequence[int]) -> float:
        return sum(d < 10 for d in range(start[0], start[0] + 8)) / 8

    def test_patches_are_known_to_the_least_share(self) -> None:
        sampler = ValidPatchSampler(ignore_index=2, min_valid_ratio=0.5, max_attempts=200)
        drawn = starts(sampler, self.half_known(), (8, 8, 8), 100)

        assert min(self.share(start) for start in drawn) == 0.5
        assert {start[0] for start in drawn} == set(range(7))  # all places that are good enough

    def test_best_of_the_attempts_is_taken(self) -> None:
        sampler = ValidPatchSampler(ignore_index=2, min_valid_ratio=1.0, max_attempts=3)
        of = self.half_known()
        drawn = starts(sampler, of, (8, 8, 8), 100)
        generator, best = np.random.default_rng(0), []
        (plain,) = UniformPatchSampler().prepare([of])
        for _ in range(100):
            tried = []
            while len(tried) < 3 and (not tried or self.share(tried[-1]) < 1):
                tried.append(plain.start(of, (8, 8, 8), generator))
            best.append(max(tried, key=self.share))

        assert drawn == best

    def test_another_sampler_draws(self) -> None:
        label = torch.full((40, 8, 8), 2, dtype=torch.uint8)
        label[:20] = 0
        label[15, 4, 4] = 1
        foreground = ForegroundPatchSampler(probability=1.0, ignore_index=2)
        sampler = ValidPatchSampler(
            ignore_index=2, min_valid_ratio=1.0, max_attempts=100, sampler=foreground
        )
        drawn = {start[0] for start in starts(sampler, case(label), (8, 8, 8), 100)}

        assert drawn == {8, 9, 10, 11, 12}  # holds plane 15 and none beyond 19

    def test_voxels_beyond_the_volume_do_not_count(self) -> None:
        label = torch.ones(4, 4, 4, dtype=torch.uint8)
        label[0] = 2
        sampler = ValidPatchSampler(ignore_index=2, min_valid_ratio=0.75)

        assert starts(sampler, case(label), (8, 8, 8), 1) == [(-2, -2, -2)]

    def test_case_of_which_nothing_is_known_is_named(self) -> None:
        unknown = case(torch.full(SHAPE, 2, dtype=torch.uint8), name="scan 3")
        with pytest.raises(ValueError, match=r"other than 2 somewhere.*; got none in 'scan 3'"):
            ValidPatchSampler(ignore_index=2).prepare([self.half_known(), unknown])
        with pytest.raises(ValueError, match="label must be in every case; got none in 'a'"):
            ValidPatchSampler(ignore_index=2).prepare([case()])

    def test_in_a_patch_dataset(self) -> None:
        known = self.half_known()
        dataset = VolumeDataset([{"image": known.image, "label": known.label, "id": "a"}])
        sampler = ValidPatchSampler(ignore_index=2, max_attempts=100)
        patches = PatchDataset(dataset, patch_size=8, sampler=sampler, patches_per_case=30)

        assert all(
            (item["label"] == 1).float().mean() >= 0.5
            for item in map(patches.__getitem__, range(30))
        )


class TestGridPatchDataset:
    def dataset(self) -> VolumeDataset:
        cases = (
            case(torch.zeros(s, dtype=torch.uint8), name=n)
            for s, n in ((SHAPE, "a"), ((4, 5, 6), "b"))
        )
        return VolumeDataset([{"image": c.image, "label": c.label, "id": c.id} for c in cases])

    def test_patches_cover_every_volume_and_know_their_place(self) -> None:
        dataset = self.dataset()
        patches = GridPatchDataset(dataset, patch_size=(4, 5, 6), overlap=0.5)
        seen = {name: torch.zeros(dataset.case(i).image.shape) for i, name in enumerate("ab")}
        for item in map(patches.__getitem__, range(len(patches))):
            box = tuple(
                slice(a, a + n) for a, n in zip(item["start"].tolist(), (4, 5, 6), strict=True)
            )
            image = dataset.case("ab".index(item["id"])).image
            assert torch.equal(item["image"], image.data[(slice(None), *box)].float())
            corner = image.affine @ (*item["start"].tolist(), 1)
            assert_close(item["affine"][:, 3], corner)
            seen[item["id"]][(slice(None), *box)] += 1

        assert all(bool((count > 0).all()) for count in seen.values())
        assert patches[len(patches) - 1]["id"] == "b" == patches[-1]["id"]

    def test_number_of_patches(self) -> None:
        assert len(GridPatchDataset(self.dataset(), patch_size=(4, 5, 6))) == 3 * 2 * 2 + 1

    def test_small_volumes_are_padded_behind(self) -> None:
        with pytest.raises(ValueError, match=r"pad_value must be given, as 'b' \(4, 5, 6\)"):
            GridPatchDataset(self.dataset(), patch_size=6)
        patches = GridPatchDataset(self.dataset(), patch_size=6, pad_value=-1, pad_label=255)
        last = patches[-1]

        assert last["start"].tolist() == [0, 0, 0]
        assert (last["image"][0, 4:] == -1).all()
        assert (last["label"][0, :, 5:] == 255).all()

    def test_loader_gives_the_same_with_workers(self) -> None:
        patches = GridPatchDataset(self.dataset(), patch_size=(4, 5, 6))
        batches = [
            [batch["start"] for batch in DataLoader(patches, 4, num_workers=n)] for n in (0, 2)
        ]

        assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
        assert len(batches[0]) == 4

    def test_index_out_of_range(self) -> None:
        patches = GridPatchDataset(self.dataset(), patch_size=(4, 5, 6))
        with pytest.raises(IndexError, match="index must be below 13; got 13"):
            patches[13]
