"""Laws of Dice and IoU scores: a miss never pays, and no split of the cases changes a bit."""

import itertools
import math

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from medkit.metrics import DiceScore, IoUScore, dice_score, iou_score
from medkit.testing import assert_close

SCORES = st.sampled_from([(dice_score, DiceScore), (iou_score, IoUScore)])
EMPTY = st.sampled_from(["skip", "perfect"])
SEEDS = st.integers(0, 2**20)
CASES, CLASSES = 6, 4


def segmentations(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions and truths of small cases in which classes are often absent."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, CLASSES, (2, CASES, 9), generator=generator)
    rare = torch.rand(2, CASES, 9, generator=generator) < 0.6
    target = torch.where(rare[0], 0, drawn[0])
    prediction = torch.where(rare[1], target, drawn[1])
    return prediction, target


@given(kind=SCORES, seed=SEEDS, empty=EMPTY, case=st.integers(0, CASES - 1), c=st.integers(1, 3))
def test_missing_a_structure_never_improves_a_mean(kind, seed, empty, case, c) -> None:
    """Whatever was found of it is given up, here to the background, in one case."""
    prediction, target = segmentations(seed)
    assume(bool((target[case] == c).any()))
    missing = prediction.clone()
    missing[case][missing[case] == c] = 0

    options = {"num_classes": CLASSES, "include_background": False}
    before, after = kind[0](prediction, target, **options), kind[0](missing, target, **options)

    assert bool(after.is_status("missed")[case, c - 1])
    assert after.values[case, c - 1] == 0
    assert (
        after.summary(empty=empty).per_class[c - 1] <= before.summary(empty=empty).per_class[c - 1]
    )
    assert after.mean(empty=empty) <= before.mean(empty=empty)


@given(kind=SCORES, seed=SEEDS, case=st.integers(0, CASES - 1), c=st.integers(1, 3))
def test_inventing_a_structure_never_improves_a_mean(kind, seed, case, c) -> None:
    prediction, target = segmentations(seed)
    for segmentation in (prediction, target):
        segmentation[case][segmentation[case] == c] = 0
        segmentation[case, 0] = 0
    inventing = prediction.clone()
    inventing[case, 0] = c

    options = {"num_classes": CLASSES, "include_background": False}
    before, after = kind[0](prediction, target, **options), kind[0](inventing, target, **options)

    assert bool(after.is_status("spurious")[case, c - 1])
    for empty in ("skip", "perfect"):
        old, new = before.mean(empty=empty), after.mean(empty=empty)
        assert new <= old or math.isnan(old)


@given(
    kind=SCORES,
    seed=SEEDS,
    order=st.permutations(range(CASES)),
    cuts=st.sets(st.integers(1, CASES - 1)),
    ranks=st.integers(1, 3),
)
def test_no_batching_and_no_split_over_processes_changes_a_bit(
    kind, seed, order, cuts, ranks
) -> None:
    prediction, target = segmentations(seed)
    whole = kind[1](CLASSES)
    whole.update(prediction, target)
    parts = [kind[1](CLASSES) for _ in range(ranks)]
    bounds = [0, *sorted(cuts), CASES]
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        rows = list(order[start:stop])
        parts[number % ranks].update(prediction[rows], target[rows])
    for part in parts[1:]:
        parts[0].merge(part)

    one, other = whole.compute().summary(), parts[0].compute().summary()

    assert one.mean == other.mean
    assert torch.equal(one.per_class.nan_to_num(-1), other.per_class.nan_to_num(-1))
    assert all(torch.equal(one.counts[s], other.counts[s]) for s in one.counts)


@given(kind=SCORES, seed=SEEDS)
def test_scores_are_fractions_one_only_if_equal(kind, seed) -> None:
    prediction, target = segmentations(seed)

    scores = kind[0](prediction, target, num_classes=CLASSES)

    counted = ~scores.is_status("both_empty")
    values = scores.values[counted]
    assert bool(((values >= 0) & (values <= 1)).all())
    for b in range(CASES):
        for c in range(CLASSES):
            same = bool(((prediction[b] == c) == (target[b] == c)).all())
            assert (scores.values[b, c].item() == 1) == (same and bool(counted[b, c]))


@given(seed=SEEDS)
def test_dice_and_iou_tell_the_same(seed) -> None:
    prediction, target = segmentations(seed)

    dice = dice_score(prediction, target, num_classes=CLASSES)
    iou = iou_score(prediction, target, num_classes=CLASSES)

    assert torch.equal(dice.status, iou.status)
    assert_close(dice.values, 2 * iou.values / (1 + iou.values))


@given(kind=SCORES, seed=SEEDS)
def test_swapping_prediction_and_truth_swaps_missed_and_spurious(kind, seed) -> None:
    prediction, target = segmentations(seed)

    one = kind[0](prediction, target, num_classes=CLASSES)
    other = kind[0](target, prediction, num_classes=CLASSES)

    assert_close(one.values, other.values, rtol=0.0, atol=0.0)
    assert torch.equal(one.is_status("missed"), other.is_status("spurious"))
