"""The order is a function of seed and epoch, whoever asks and however often."""

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkit.train import ResumableBatchSampler, SampleIndex, eval_indices, sample_rng


def _batches(sampler: ResumableBatchSampler, epoch: int, start: int = 0) -> list[list[int]]:
    sampler.set_epoch(epoch)
    sampler.start_at(start)
    return [[int(index) for index in batch] for batch in sampler]


@given(
    count=st.integers(1, 40), size=st.integers(1, 9), epoch=st.integers(0, 5),
    seed=st.integers(0, 3), data=st.data(),
)  # fmt: skip
def test_any_start_gives_the_rest_of_the_same_permutation(
    count: int, size: int, epoch: int, seed: int, data: st.DataObject
) -> None:
    whole = _batches(ResumableBatchSampler(count, size, seed=seed), epoch)
    start = data.draw(st.integers(0, len(whole)))

    fresh = ResumableBatchSampler(count, size, seed=seed)

    assert _batches(fresh, epoch, start) == whole[start:]
    assert _batches(fresh, epoch) == whole  # a start holds for one pass
    assert sorted(itertools.chain(*whole)) == list(range(count))
    assert len(fresh) == len(whole)


@given(world=st.integers(1, 4), full=st.integers(1, 4), rest=st.integers(0, 3), drop=st.booleans())
def test_processes_share_each_global_batch(world: int, full: int, rest: int, drop: bool) -> None:
    size = 4
    count = size * full + (0 if rest and rest < world and not drop else rest)
    alone = _batches(ResumableBatchSampler(count, size, seed=1, drop_last=drop), 2)

    shares = [
        _batches(
            ResumableBatchSampler(count, size, seed=1, drop_last=drop, rank=r, world_size=world), 2
        )
        for r in range(world)
    ]

    for number, batch in enumerate(alone):
        assert sorted(itertools.chain(*(share[number] for share in shares))) == sorted(batch)
        sizes = [len(share[number]) for share in shares]
        assert max(sizes) - min(sizes) <= 1
    assert all(len(share) == len(alone) for share in shares)


def test_epochs_and_seeds_differ_and_unshuffled_ones_do_not() -> None:
    sampler = ResumableBatchSampler(50, 50, seed=0)

    assert _batches(sampler, 0) != _batches(sampler, 1)
    assert _batches(sampler, 0) != _batches(ResumableBatchSampler(50, 50, seed=1), 0)
    plain = ResumableBatchSampler(5, 2, seed=0, shuffle=False)
    assert _batches(plain, 0) == _batches(plain, 9) == [[0, 1], [2, 3], [4]]


def test_indices_carry_their_epoch_and_survive_the_way_to_a_worker() -> None:
    sampler = ResumableBatchSampler(4, 4, seed=0)
    sampler.set_epoch(3)

    (batch,) = list(sampler)
    copies = pickle.loads(pickle.dumps(batch))

    assert copies == batch
    for index in copies:
        assert isinstance(index, SampleIndex)
        assert (index.epoch, index.draw) == (3, int(index))


def test_drawing_with_repeats_gives_every_draw_its_own_key() -> None:
    def order(epoch: int, generator: np.random.Generator) -> np.ndarray:
        assert epoch == 0
        return generator.integers(3, size=8)

    sampler = ResumableBatchSampler(8, 3, seed=0, order=order)
    draws = [index.draw for batch in sampler for index in batch]  # type: ignore[attr-defined]

    assert draws == list(range(8))
    assert _batches(sampler, 0) == _batches(ResumableBatchSampler(8, 3, seed=0, order=order), 0)


def test_orders_look_uniform() -> None:
    firsts = Counter(
        _batches(ResumableBatchSampler(4, 1, seed=0), epoch)[0][0] for epoch in range(2000)
    )

    # four places of 500 each, standard deviation 19
    assert all(abs(count - 500) < 100 for count in firsts.values())


@given(count=st.integers(0, 30), world=st.integers(1, 5))
def test_evaluation_meets_each_sample_once(count: int, world: int) -> None:
    shares = [list(eval_indices(count, rank=rank, world_size=world)) for rank in range(world)]

    assert sorted(itertools.chain(*shares)) == list(range(count))


def test_keys_are_independent_of_history() -> None:
    expected = np.random.default_rng([1, 2, 3]).integers(2**32, size=4)

    assert np.array_equal(sample_rng(1, 2, 3).integers(2**32, size=4), expected)
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    numbers = {int(sample_rng(*key).integers(2**62)) for key in keys}
    numbers.add(int(sample_rng(0, 0, 0, stream=1).integers(2**62)))
    assert len(numbers) == 5


@pytest.mark.usefixtures("unhooked")
def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"at least world_size \(4\) in every batch, or drop_last"):
        ResumableBatchSampler(9, 8, seed=0, rank=0, world_size=4)
    ResumableBatchSampler(9, 8, seed=0, rank=0, world_size=4, drop_last=True)
    with pytest.raises(ValueError, match=r"rank must be below world_size \(2\); got 2"):
        eval_indices(3, rank=2, world_size=2)
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        ResumableBatchSampler(3, 0, seed=0)
    sampler = ResumableBatchSampler(3, 1, seed=0, order=lambda *_: np.zeros(2, int))
    with pytest.raises(ValueError, match="order must be 3 indices"):
        list(sampler)
