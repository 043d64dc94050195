"""Batches of whole groups, and splits that share no group."""

import collections

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from medkit.data import CompleteGroupBatchSampler, group_split
from unit.losses.refusals import refuses

IDS = st.lists(st.integers(-5, 40), min_size=1, max_size=80)


@given(ids=IDS, max_size=st.integers(1, 30), seed=st.integers(0, 5), shuffle=st.booleans())
def test_every_group_is_whole_and_comes_once(ids, max_size, seed, shuffle) -> None:
    sampler = CompleteGroupBatchSampler(ids, max_size=max_size, seed=seed, shuffle=shuffle)
    batches = [batch.tolist() for batch in sampler]

    assert sorted(i for batch in batches for i in batch) == list(range(len(ids)))
    homes = collections.defaultdict(set)
    for number, batch in enumerate(batches):
        for i in batch:
            homes[ids[i]].add(number)
    assert all(len(home) == 1 for home in homes.values())
    for batch in batches:
        assert len(batch) <= max_size or len({ids[i] for i in batch}) == 1
    assert len(sampler) == len(batches)


@given(ids=IDS, max_size=st.integers(1, 30), world=st.integers(1, 4), epoch=st.integers(0, 3))
def test_processes_have_equally_many_batches_and_share_no_group(
    ids, max_size, world, epoch
) -> None:
    if len(set(ids)) < world:
        with pytest.raises(ValueError, match="at least one group for each of"):
            CompleteGroupBatchSampler(ids, max_size=max_size, rank=0, world_size=world)
        return
    seen: list[int] = []
    lengths = set()
    for rank in range(world):
        sampler = CompleteGroupBatchSampler(ids, max_size=max_size, rank=rank, world_size=world)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        lengths.add(len(batches))
        seen += [int(i) for batch in batches for i in batch]

    assert len(lengths) == 1
    assert len(seen) == len(set(seen))
    left_out = set(range(len(ids))) - set(seen)
    assert len({ids[i] for i in left_out}) < world


def test_batches_end_before_the_group_that_is_too_much() -> None:
    """The walk of the published program: 4 + 3 fit in 8, 5 does not; 20 stands alone."""
    ids = np.repeat([1, 2, 3, 4, 5], [4, 3, 5, 20, 2])
    sampler = CompleteGroupBatchSampler(torch.from_numpy(ids), max_size=8, shuffle=False)

    assert [sorted({int(ids[i]) for i in batch}) for batch in sampler] == [[1, 2], [3], [4], [5]]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    ids = np.random.default_rng(0).integers(0, 50, 400)

    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = CompleteGroupBatchSampler(ids, max_size=40, seed=seed)
        sampler.set_epoch(epoch)
        return [batch.tolist() for batch in sampler]

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def test_a_pass_can_begin_inside_the_epoch() -> None:
    ids = np.random.default_rng(0).integers(0, 50, 400)
    sampler = CompleteGroupBatchSampler(ids, max_size=40)
    whole = [batch.tolist() for batch in sampler]
    sampler.start_at(3)

    assert [batch.tolist() for batch in sampler] == whole[3:]
    assert [batch.tolist() for batch in sampler] == whole
    assert sampler.fingerprint()["num_groups"] == 50


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_hands_whole_batches_to_the_dataset(workers: int) -> None:
    ids = torch.arange(30) // 4
    dataset = TensorDataset(torch.arange(30.0), ids)
    sampler = CompleteGroupBatchSampler(ids, max_size=9)
    loader = DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=workers)

    batches = list(loader)

    assert len(batches) == len(sampler)
    assert all(torch.equal(values.long() // 4, groups) for values, groups in batches)


@pytest.mark.parametrize(
    ("argument", "ids", "options"),
    [
        ("group_ids", [], {"max_size": 3}),
        ("group_ids", torch.zeros(3), {"max_size": 3}),
        ("group_ids", torch.zeros(3, 1, dtype=torch.long), {"max_size": 3}),
        ("max_size", [1, 2], {"max_size": 0}),
        ("seed", [1, 2], {"max_size": 3, "seed": -1}),
        ("rank", [1, 2], {"max_size": 3, "rank": 2, "world_size": 2}),
    ],
)
def test_bad_groups_are_refused(argument: str, ids: object, options: dict[str, int]) -> None:
    with refuses(argument):
        CompleteGroupBatchSampler(ids, **options)


@given(
    patients=st.lists(st.integers(0, 12), min_size=12, max_size=60),
    ratios=st.lists(st.floats(0.1, 1.0), min_size=1, max_size=4),
    seed=st.integers(0, 9),
)
def test_no_patient_is_in_two_parts(patients, ratios, seed) -> None:
    if len(set(patients)) < len(ratios):
        with pytest.raises(ValueError, match="groups must be at least"):
            group_split(patients, ratios=ratios)
        return
    parts = group_split(patients, ratios=ratios, seed=seed)

    assert sorted(i for part in parts for i in part) == list(range(len(patients)))
    owners = [{patients[i] for i in part} for part in parts]
    assert sum(map(len, owners)) == len(set(patients))
    assert all(part for part in parts)
    assert parts == group_split(patients, ratios=ratios, seed=seed)


def test_parts_have_their_size_and_their_share_of_every_class() -> None:
    generator = np.random.default_rng(0)
    patients = generator.integers(0, 60, 700)
    labels = np.where(generator.random(700) < 0.1, "rare", np.where(patients % 2, "odd", "even"))
    parts = group_split(patients.tolist(), ratios=(0.8, 0.1, 0.1), labels=labels.tolist())

    for part, share in zip(parts, (0.8, 0.1, 0.1), strict=True):
        assert len(part) / 700 == pytest.approx(share, abs=0.02)
        for name in ("rare", "odd", "even"):
            here, everywhere = (labels[part] == name).sum(), (labels == name).sum()
            assert here / everywhere == pytest.approx(share, abs=0.05)


def test_folds_are_as_even_as_scikit_learn_s() -> None:
    """Worst share of a class over five folds, beside StratifiedGroupKFold."""
    selection = pytest.importorskip("sklearn.model_selection")
    generator = np.random.default_rng(1)
    patients = generator.integers(0, 45, 691)
    labels = (generator.random(45) * 3).astype(int)[patients]

    def worst(folds: list[np.ndarray]) -> float:
        shares = [[(labels[f] == c).mean() for c in range(3)] for f in folds]
        return float(np.abs(np.array(shares) - [(labels == c).mean() for c in range(3)]).max())

    theirs = selection.StratifiedGroupKFold(5, shuffle=True, random_state=0)
    of_theirs = [test for _, test in theirs.split(labels, labels, patients)]
    ours = group_split(patients.tolist(), ratios=[1] * 5, labels=labels.tolist())

    assert worst([np.array(fold) for fold in ours]) <= 1.5 * worst(of_theirs) + 0.01


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_patients_in_tensors_and_arrays_are_split_alike(kind) -> None:
    patients, classes = [7, 7, 3, 3, 9, 9, 9, 1], [0, 0, 1, 1, 0, 0, 0, 1]

    found = group_split(kind(patients), ratios=(0.5, 0.5), labels=kind(classes))

    assert found == group_split(patients, ratios=(0.5, 0.5), labels=classes)


def test_bad_splits_are_refused() -> None:
    with refuses("ratios"):
        group_split(["a", "b"], ratios=(1.0, 0.0))
    with refuses("labels"):
        group_split(["a", "b"], ratios=(1.0, 1.0), labels=["x"])
