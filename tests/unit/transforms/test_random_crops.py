"""Crops led by the label, and crops of drawn sizes."""

from collections import Counter

import numpy as np
import pytest
import torch

import medkit.transforms as mt


def sample(label: torch.Tensor) -> dict[str, torch.Tensor]:
    """An image whose voxels are their own numbers, with a label."""
    numbers = torch.arange(label.numel(), dtype=torch.float32)
    return {"image": numbers.reshape(1, *label.shape), "label": label[None]}


def middles(crop, label: torch.Tensor, count: int = 600) -> Counter[tuple[int, ...]]:
    generator = np.random.default_rng(0)
    found: Counter[tuple[int, ...]] = Counter()
    for _ in range(count):
        image = crop.apply(sample(label), generator=generator).sample["image"][0]
        voxel = int(image[tuple(n // 2 for n in image.shape)])
        found[tuple(int(i) for i in np.unravel_index(voxel, tuple(label.shape)))] += 1
    return found


def spotted() -> torch.Tensor:
    label = torch.zeros(10, 12, dtype=torch.uint8)
    label[4, 5], label[6, 7], label[5, 5] = 1, 2, 255
    return label


class TestRandomForegroundCrop:
    def test_share_of_crops_about_the_foreground(self) -> None:
        crop = mt.RandomForegroundCrop(size=3, probability=0.25, ignore_index=255)
        found = middles(crop, spotted())
        foreground = found[4, 5] + found[6, 7]

        assert abs(foreground - 150) < 45  # deviation 11; background voxels there come too
        assert (5, 5) not in found

    def test_each_voxel_of_the_foreground_is_equally_likely(self) -> None:
        crop = mt.RandomForegroundCrop(size=3, probability=1.0)
        found = middles(crop, spotted())

        assert set(found) == {(4, 5), (6, 7), (5, 5)}
        assert all(abs(count - 200) < 60 for count in found.values())  # deviation 12

    def test_classes(self) -> None:
        crop = mt.RandomForegroundCrop(size=3, probability=1.0, classes=(2,))

        assert set(middles(crop, spotted(), 20)) == {(6, 7)}

    def test_background_is_what_is_neither_foreground_nor_ignored(self) -> None:
        label = torch.tensor([[0, 1, 255, 0, 1]], dtype=torch.uint8)
        crop = mt.RandomForegroundCrop(size=1, probability=0.0, ignore_index=255)

        assert set(middles(crop, label, 50)) == {(0, 0), (0, 3)}

    @pytest.mark.parametrize("value", [0, 1])
    def test_what_a_sample_lacks_is_replaced_by_the_other(self, value: int) -> None:
        label = torch.full((6, 6), value, dtype=torch.uint8)
        for probability in (0.0, 1.0):
            crop = mt.RandomForegroundCrop(size=1, probability=probability)

            assert len(middles(crop, label, 200)) > 30

    def test_all_ignored_is_cut_anywhere(self) -> None:
        label = torch.full((6, 6), 9, dtype=torch.uint8)
        crop = mt.RandomForegroundCrop(size=1, ignore_index=9)

        assert len(middles(crop, label, 200)) > 30

    def test_crops_at_the_border_are_moved_in(self) -> None:
        label = torch.zeros(6, 6, dtype=torch.uint8)
        label[0, 5] = 1
        crop = mt.RandomForegroundCrop(size=4, probability=1.0)
        result = crop(sample(label))

        assert result["image"].shape == (1, 4, 4)
        assert result["image"][0, 0].tolist() == [2, 3, 4, 5]
        assert result["label"].sum() == 1

    def test_agrees_with_the_crop_of_monai(self) -> None:
        from monai.transforms import RandCropByPosNegLabel

        label = spotted().where(spotted() < 9, 0)
        theirs = RandCropByPosNegLabel((3, 3), pos=3, neg=1, num_samples=600)
        theirs.set_random_state(0)
        crops = theirs(sample(label)["image"], label=label[None])
        found = Counter(int(crop[0, 1, 1]) for crop in crops)
        ours = middles(mt.RandomForegroundCrop(size=3, probability=0.75), label)
        for voxel in ((4, 5), (6, 7)):
            assert abs(found[voxel[0] * 12 + voxel[1]] - ours[voxel]) < 70  # both near 225


class TestDrawnSize:
    def test_every_size_is_equally_likely(self) -> None:
        crop = mt.RandomSpatialCrop(size=(6, 4), least_size=(3, 4))
        generator = np.random.default_rng(0)
        shapes = Counter(
            tuple(crop.apply(sample(spotted()), generator=generator).sample["image"].shape[1:])
            for _ in range(800)
        )

        assert set(shapes) == {(3, 4), (4, 4), (5, 4), (6, 4)}
        assert all(abs(count - 200) < 60 for count in shapes.values())  # deviation 12

    def test_least_above_the_size_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"least_size must be at most size, \(3, 3\); got"):
            mt.RandomSpatialCrop(size=3, least_size=4)(sample(spotted()))
