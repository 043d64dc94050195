"""Random transforms of any library depend on seed, epoch and sample, and on nothing else."""

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from medkit.train import (
    ResumableBatchSampler,
    ResumableLoader,
    SeededDataset,
    make_loader,
    rng_state,
    set_rng_state,
)

COUNT, BATCH = 13, 3


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let albumentations not look for a newer version of itself."""
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")


class _Items:
    """Items that are their number."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(float(index), dtype=torch.float64)


def _noise(x: Tensor) -> Tensor:
    """Add to an item a draw of each global generator."""
    return x + random.random() + float(np.random.rand()) + torch.rand((), dtype=torch.float64)  # noqa: NPY002


def _loader(workers: int) -> ResumableLoader[Tensor]:
    data = SeededDataset(_Items(), seed=4, transform=_noise)
    sampler = ResumableBatchSampler(COUNT, BATCH, seed=5)
    return ResumableLoader(make_loader(data, sampler, num_workers=workers))


def _run(loader: ResumableLoader[Tensor], epochs: int) -> list[list[float]]:
    seen = []
    while loader.epoch < epochs:
        seen += [batch.tolist() for batch in loader]
    return seen


def _endless(loader: ResumableLoader[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from loader


@pytest.fixture(scope="module")
def whole() -> list[list[float]]:
    return _run(_loader(0), 3)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("workers", [2, 4])
def test_workers_change_nothing(whole: list[list[float]], workers: int) -> None:
    assert _run(_loader(workers), 3) == whole


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0)])
@pytest.mark.parametrize("stop", [1, 5, 7])
def test_the_rest_is_the_same_with_other_workers(
    whole: list[list[float]], before: int, after: int, stop: int
) -> None:
    first = _loader(before)
    seen = [batch.tolist() for batch in itertools.islice(_endless(first), stop)]

    second = _loader(after)
    second.load_state_dict(first.state_dict())

    assert seen + _run(second, 3) == whole


def test_resuming_leaves_the_global_random_numbers_alone() -> None:
    first = _loader(0)
    batches = iter(first)
    next(batches), next(batches)
    state, random_state = first.state_dict(), rng_state()
    expected = [(batch.tolist(), torch.rand(1).item()) for batch in batches]

    second = _loader(0)
    second.load_state_dict(state)
    torch.rand(5)
    set_rng_state(random_state)

    assert [(batch.tolist(), torch.rand(1).item()) for batch in second] == expected


def test_nothing_that_is_done_is_loaded_again() -> None:
    asked = []

    class Items(_Items):
        def __getitem__(self, index: int) -> Tensor:
            asked.append(int(index))
            return super().__getitem__(index)

    sampler = ResumableBatchSampler(COUNT, BATCH, seed=5, shuffle=False)
    loader = ResumableLoader(make_loader(Items(), sampler))
    state = loader.state_dict()
    loader.load_state_dict({**state, "done": 3})

    assert [batch.tolist() for batch in loader] == [[9, 10, 11], [12]]
    assert asked == [9, 10, 11, 12]


def test_a_sampler_with_other_options_is_refused() -> None:
    state = _loader(0).state_dict()
    other = make_loader(_Items(), ResumableBatchSampler(COUNT, 4, seed=5))

    with pytest.raises(ValueError, match="batch_size must be 3, as where the run stopped; got 4"):
        ResumableLoader(other).load_state_dict(state)


def test_an_item_leaves_the_global_generators_as_they_were() -> None:
    data = SeededDataset(_Items(), seed=4, transform=_noise)
    before = rng_state()

    data[3]

    assert all(torch.equal(value, before[name]) for name, value in rng_state().items())


def test_other_samplers_say_the_epoch_through_the_loader() -> None:
    data = SeededDataset(_Items(), seed=4, transform=_noise)
    loader = ResumableLoader(DataLoader(data, batch_size=COUNT))

    first, second = _run(loader, 2)

    assert first != second
    sampler = ResumableBatchSampler(COUNT, COUNT, seed=0, shuffle=False)
    assert _run(ResumableLoader(make_loader(data, sampler)), 2) == [first, second]


def _volume(index: int) -> dict[str, Tensor]:
    return {"image": torch.linspace(0, 1, 512).reshape(1, 8, 8, 8) + index}


class _Volumes:
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return _volume(int(index))


def _with_monai() -> Callable[[Any], Any]:
    monai = pytest.importorskip("monai.transforms")
    noise = monai.RandGaussianNoised("image", prob=1.0)
    shift = monai.RandShiftIntensityd("image", 0.5, prob=1.0)
    flip = monai.RandFlipd("image", prob=0.5, spatial_axis=0)
    return monai.Compose([flip, monai.OneOf([noise, shift])])  # type: ignore[no-any-return]


def _with_torchio() -> Callable[[Any], Any]:
    torchio = pytest.importorskip("torchio")
    inner = torchio.Compose([torchio.RandomFlip(axes=0), torchio.RandomNoise(std=(0.1, 0.5))])
    return lambda item: {"image": inner(item["image"])}


def _with_batchgenerators() -> Callable[[Any], Any]:
    package = "batchgeneratorsv2.transforms"
    noise = pytest.importorskip(f"{package}.intensity.gaussian_noise", exc_type=ImportError)
    brightness = pytest.importorskip(f"{package}.intensity.brightness", exc_type=ImportError)
    random_transform = pytest.importorskip(f"{package}.utils.random", exc_type=ImportError)
    compose = pytest.importorskip(f"{package}.utils.compose", exc_type=ImportError)
    inner = compose.ComposeTransforms(
        [
            random_transform.RandomTransform(noise.GaussianNoiseTransform((0.1, 0.5)), 0.7),
            brightness.MultiplicativeBrightnessTransform((0.5, 2.0), synchronize_channels=True),
        ]
    )
    return lambda item: {"image": inner(image=item["image"].clone())["image"]}


class _WithAlbumentations:
    """A 2D library: it takes a slice as an array, and its generator is its own."""

    def __init__(self) -> None:
        package = pytest.importorskip("albumentations", exc_type=ImportError)
        noise, scale = package.GaussNoise(p=1.0), package.RandomScale((0.5, 2.0), p=1.0)
        back = package.Resize(8, 8)
        self.compose = package.Compose([package.OneOf([noise, scale], p=1.0), back])

    def set_random_seed(self, seed: int) -> None:
        self.compose.set_random_seed(seed)

    def __call__(self, item: dict[str, Tensor]) -> dict[str, Tensor]:
        tenth = item["image"][0].float().numpy() / 10  # it keeps images in [0, 1]
        return {"image": 10 * torch.from_numpy(self.compose(image=tenth)["image"])[None]}


class _OwnState:
    """Seeds as albumentations does: ``set_random_seed`` on an object with its own generator."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng()

    def set_random_seed(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def __call__(self, item: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"image": item["image"] + self.generator.random()}


LIBRARIES = [_with_monai, _with_torchio, _with_batchgenerators, _WithAlbumentations]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", LIBRARIES)
@pytest.mark.parametrize("workers", [2, 4])
def test_workers_change_nothing_of_what_other_libraries_draw(
    make: Callable[[], Any], workers: int
) -> None:
    """Two epochs, in the second of which every sample is drawn anew."""

    def samples(workers: int) -> list[Tensor]:
        data = SeededDataset(_Volumes(), seed=1, transform=make())
        sampler = ResumableBatchSampler(6, 2, seed=3)
        loader = ResumableLoader(make_loader(data, sampler, num_workers=workers))
        return [torch.as_tensor(batch["image"]) for _ in range(2) for batch in loader]

    alone, shared = samples(0), samples(workers)

    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
    assert len({round(float(batch.double().sum()), 6) for batch in alone}) == 6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [*LIBRARIES, _OwnState])
def test_transforms_of_other_libraries_follow_the_key(make: Callable[[], Any]) -> None:
    def epoch(data: SeededDataset[Any], order: list[int]) -> dict[int, Tensor]:
        return {i: torch.as_tensor(data[i]["image"]).clone() for i in order}

    first = epoch(SeededDataset(_Volumes(), seed=1, transform=make()), [0, 1, 2, 3, 4, 5])
    second = SeededDataset(_Volumes(), seed=1, transform=make())
    again = epoch(second, [4, 4, 1, 0])
    second.set_epoch(1)
    later = epoch(second, [0, 1, 4])

    assert all(torch.equal(again[i], first[i]) for i in again)
    assert not all(torch.equal(later[i], first[i]) for i in later)
    changes = {i: first[i] - _volume(i)["image"] for i in first}
    assert len({round(float(change.double().sum()), 6) for change in changes.values()}) > 3


def test_state_inside_the_dataset_is_seeded_when_named() -> None:
    inner = _OwnState()

    class Augmented(_Volumes):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return inner(_volume(int(index)))

    data = SeededDataset(Augmented(), seed=0, own_state=[inner])

    assert torch.equal(data[2]["image"], data[2]["image"])
    assert not torch.equal(data[2]["image"] - 2, data[3]["image"] - 3)


@pytest.mark.usefixtures("unhooked")
def test_what_cannot_be_seeded_is_refused() -> None:
    with pytest.raises(ValueError, match="own_state must be made of objects with set_random"):
        SeededDataset(_Items(), seed=0, own_state=[3])
    with pytest.raises(ValueError, match="prefetch must be at least 1; got 0"):
        make_loader(_Items(), ResumableBatchSampler(3, 1, seed=0), num_workers=1, prefetch=0)
