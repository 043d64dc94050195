"""The same samples come from the same keys, wherever they are made."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import medkit.transforms as mt
from medkit.train import ResumableBatchSampler, SeededDataset, make_loader, sample_rng

AUGMENT = mt.Compose(
    [
        mt.RandomSpatialCrop(size=10),
        mt.RandomFlip(),
        mt.RandomAffine(probability=0.7),
        mt.RandomElastic(spacing=6, displacement=0.5, probability=0.5),
        mt.OneOf([mt.RandomGamma(probability=1.0), mt.RandomGaussianNoise(probability=1.0)]),
        mt.RandomApply(mt.RandomCutOut(size=3, probability=1.0)),
    ]
)


class _Cases(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, object]:
        image = torch.rand(1, 14, 15, 16, generator=torch.Generator().manual_seed(index))
        return {"image": image, "label": (image > 0.5).long()}


class _Keyed(_Cases):
    def __getitem__(self, index: int) -> dict[str, object]:
        return AUGMENT(super().__getitem__(index), generator=sample_rng(1, 2, index))


def _epoch(dataset: Dataset, workers: int) -> list[torch.Tensor]:
    loader = DataLoader(dataset, batch_size=2, num_workers=workers)
    return [batch["image"] for batch in loader]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # few cores
@pytest.mark.parametrize("workers", [2, 4])
def test_samples_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    alone, shared = (torch.cat(_epoch(_Keyed(), n)) for n in (0, workers))

    assert torch.equal(alone, shared)


def test_seeded_dataset_keys_transforms_and_resumes() -> None:
    dataset = SeededDataset(_Cases(), seed=3, transform=AUGMENT)

    def batches(workers: int) -> list[torch.Tensor]:
        sampler = ResumableBatchSampler(6, 2, seed=3)
        return [batch["image"] for batch in make_loader(dataset, sampler, num_workers=workers)]

    first, again = batches(0), batches(2)

    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_other_epochs_and_samples_are_drawn_anew() -> None:
    sample = _Cases()[0]
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]

    images = [AUGMENT(sample, generator=sample_rng(*key))["image"] for key in keys]

    assert not any(torch.equal(images[0], other) for other in images[1:])


def test_a_change_of_one_transform_leaves_the_draws_of_the_others() -> None:
    image = torch.zeros(1, 8, 8)
    one = mt.RandomShiftIntensity(offset=1, probability=1.0)
    other = mt.RandomCutOut(size=2, num_cuts=5, probability=1.0)

    first, second = (
        mt.Compose([before, one])({"image": image}, generator=np.random.default_rng(0))["image"]
        for before in (mt.ShiftIntensity(offset=0), other)
    )

    assert float(first.max()) == float(second.max())


def test_without_a_generator_torch_seeds_the_draws() -> None:
    sample = _Cases()[0]

    torch.manual_seed(5)
    first = AUGMENT(sample)["image"]
    torch.manual_seed(5)
    second = AUGMENT(sample)["image"]

    assert torch.equal(first, second)


def test_batches_are_changed_sample_by_sample() -> None:
    cases = [{**_Cases()[i], "id": str(i)} for i in range(3)]
    batch = torch.utils.data.default_collate(cases)
    keys = [sample_rng(0, 0, i) for i in range(3)]

    result = mt.apply_to_batch(AUGMENT, batch, generators=keys)

    for i, case in enumerate(cases):
        expected = AUGMENT(case, generator=sample_rng(0, 0, i))
        assert torch.equal(result["image"][i], expected["image"])
        assert torch.equal(result["label"][i], expected["label"])
    assert result["id"] == ["0", "1", "2"]


def test_samples_of_a_batch_that_become_unequal_are_named() -> None:
    crop = mt.RandomSpatialCrop(size=9, least_size=2)

    with pytest.raises(ValueError, match="shape of 'image' after the transform must be one for"):
        mt.apply_to_batch(crop, {"image": torch.zeros(8, 1, 9, 9)})


def test_weights_choose() -> None:
    choose = mt.OneOf([mt.Flip(axes=0), mt.Rotate90()], weights=[1, 0])

    results = [choose({"image": torch.tensor([[1, 2]])})["image"].tolist() for _ in range(20)]

    assert results == [[[2, 1]]] * 20
