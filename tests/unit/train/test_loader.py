"""A loader that is told where it was gives exactly the rest."""

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

from medkit.train import ResumableLoader, Stepper, rng_state, seed_everything, set_rng_state


class _Noisy(Dataset[tuple[int, float]]):
    """Augments with every global generator."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, random.random() + float(np.random.rand()) + float(torch.rand(()))  # noqa: NPY002


def _shuffled(workers: int = 0) -> DataLoader[tuple[int, float]]:
    return DataLoader(_Noisy(), batch_size=2, shuffle=True, num_workers=workers)


def _with_generator() -> DataLoader[tuple[int, float]]:
    generator = torch.Generator().manual_seed(5)
    return DataLoader(_Noisy(), batch_size=2, shuffle=True, generator=generator)


def _with_sampler() -> DataLoader[tuple[int, float]]:
    generator = torch.Generator().manual_seed(6)
    sampler = WeightedRandomSampler([1.0] * 11, 9, generator=generator)
    return DataLoader(_Noisy(), batch_size=2, sampler=sampler)


def _epochs(loader: ResumableLoader[list[torch.Tensor]], epochs: int) -> Iterator[str]:
    """Yield what a loop sees; it draws numbers of its own, as dropout does."""
    while loader.epoch < epochs:
        for batch in loader:
            yield f"{loader.epoch} {[x.tolist() for x in batch]} {torch.rand(2).tolist()}"


@pytest.mark.parametrize(
    "make",
    [_shuffled, lambda: _shuffled(2), _with_generator, _with_sampler],
    ids=["global", "workers", "generator", "sampler"],
)
@pytest.mark.parametrize("stop", [1, 4, 5, 6, 8])
def test_the_rest_is_the_same_after_a_restart(
    make: Callable[[], DataLoader[tuple[int, float]]], stop: int
) -> None:
    seed_everything(1)
    whole = list(_epochs(ResumableLoader(make()), 3))

    seed_everything(1)
    first = ResumableLoader(make())
    batches = _epochs(first, 3)
    seen = [next(batches) for _ in range(stop)]
    state, random_state = first.state_dict(), rng_state()

    seed_everything(99)
    second = ResumableLoader(make())
    second.load_state_dict(state)
    torch.rand(13)
    set_rng_state(random_state)

    assert seen + list(_epochs(second, 3)) == whole


def test_a_place_between_epochs_goes_on_with_the_next() -> None:
    seed_everything(1)
    first = ResumableLoader(_with_generator())
    list(first)
    state, random_state = first.state_dict(), rng_state()
    expected = [str(batch) for batch in first]

    second = ResumableLoader(_with_generator())
    second.load_state_dict(state)
    set_rng_state(random_state)

    assert (second.epoch, second.done, len(second)) == (1, 0, 6)
    assert [str(batch) for batch in second] == expected


@pytest.mark.parametrize("part", ["dataset", "sampler", "batch_sampler"])
def test_every_part_is_told_the_epoch(part: str) -> None:
    epochs = []

    class Part:
        def set_epoch(self, epoch: int) -> None:
            epochs.append(epoch)

    class Loader(list[int]):
        pass

    inner = Loader([1, 2])
    setattr(inner, part, Part())
    loader = ResumableLoader(inner)
    list(loader)
    list(loader)
    resumed = ResumableLoader(inner)
    resumed.load_state_dict({**loader.state_dict(), "epoch": 7})
    list(resumed)

    assert epochs == [0, 1, 7]


def test_a_stream_has_no_length() -> None:
    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(4))

    loader = ResumableLoader(DataLoader(Stream(), batch_size=2))

    with pytest.raises(TypeError, match="no dependable length"):
        len(loader)
    assert len(list(loader)) == 2


def test_a_loader_that_has_become_shorter_is_an_error() -> None:
    loader = ResumableLoader([1, 2, 3])
    loader.load_state_dict({"epoch": 0, "done": 5, "start": rng_state()})

    with pytest.raises(RuntimeError, match="gave 3 batches where 5 were done: the data or"):
        next(iter(loader))


def test_a_loader_whose_sampler_has_no_length_is_read_to_its_end() -> None:
    class Sampler:
        def __iter__(self) -> Iterator[list[int]]:
            return iter([[0, 1], [2], [3, 4]])

    loader = DataLoader(_Noisy(), batch_sampler=Sampler())  # type: ignore[arg-type]
    model = torch.nn.Linear(1, 1)
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.1), accumulate=2)

    sizes = [window.size for _, window in stepper.micro_batches(ResumableLoader(loader))]

    assert sizes == [2, 2, 1]


def test_a_generator_that_the_checkpoint_does_not_know_stays_as_it_is() -> None:
    first, second = ResumableLoader(_shuffled()), ResumableLoader(_with_generator())
    generator = second.loader.generator  # type: ignore[attr-defined]
    before = generator.get_state()

    second.load_state_dict(first.state_dict())

    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("lost", [ConnectionResetError(104, "reset"), EOFError()])
def test_a_pipe_that_breaks_is_a_worker_that_was_lost(lost: Exception) -> None:
    class Broken(list):
        def __iter__(self):
            yield from super().__iter__()
            raise lost

    loader = ResumableLoader(Broken([1, 2, 3]))
    with pytest.raises(RuntimeError, match="worker exited unexpectedly") as caught:
        list(iter(loader))

    assert caught.value.__cause__ is lost
    assert loader.done == 3
