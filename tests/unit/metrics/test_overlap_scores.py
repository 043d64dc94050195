"""Dice and IoU: values, statuses, accumulation, and what they refuse."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch

from medkit.metrics import (
    DiceScore,
    IoUScore,
    PrecisionScore,
    RecallScore,
    dice_score,
    iou_score,
    precision_score,
    recall_score,
)
from medkit.testing import assert_close
from unit.losses.refusals import refuses

KINDS = pytest.mark.parametrize(
    ("score", "accumulator"),
    [
        (dice_score, DiceScore),
        (iou_score, IoUScore),
        (precision_score, PrecisionScore),
        (recall_score, RecallScore),
    ],
)


def ratio(score: object, intersection: int, predicted: int, target: int) -> float:
    """Return the textbook value."""
    if score is dice_score:
        return 2 * intersection / (predicted + target)
    if score in (precision_score, recall_score):
        return intersection / max(predicted if score is precision_score else target, 1)
    return intersection / (predicted + target - intersection)


def batch(cases: int = 5, num_classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions right in about half of the voxels; class 3 is rare."""
    target = torch.randint(0, num_classes - 1, (cases, 6, 7))
    target[0, 0, 0] = num_classes - 1
    guess = torch.randint(0, num_classes, (cases, 6, 7))
    return torch.where(torch.rand(target.shape) < 0.5, target, guess), target


@KINDS
def test_values_are_the_textbook_ratio(score, accumulator) -> None:
    prediction, target = batch()

    scores = score(prediction, target, num_classes=4)

    for b in range(5):
        for c in range(4):
            p, t = prediction[b] == c, target[b] == c
            if p.any() or t.any():
                value = ratio(score, int((p & t).sum()), int(p.sum()), int(t.sum()))
                assert scores.values[b, c].item() == value
    assert scores.values.dtype == torch.float64
    assert scores.classes == (0, 1, 2, 3)


@KINDS
def test_every_value_says_what_became_of_the_structure(score, accumulator) -> None:
    target = torch.tensor([[[1, 1, 2, 2]]])
    prediction = torch.tensor([[[1, 0, 0, 3]]])

    scores = score(prediction, target, num_classes=5, include_background=False)

    assert scores.classes == (1, 2, 3, 4)
    statuses = ("ok", "missed", "spurious", "both_empty")
    for column, status in enumerate(statuses):
        for other in statuses:
            assert bool(scores.is_status(other)[0, column]) == (other == status)
    assert scores.values[0, 0] > 0
    assert scores.values[0, 1] == 0
    assert scores.values[0, 2] == 0
    assert scores.values[0, 3].isnan()


@KINDS
def test_boolean_masks_are_scored_one_by_one(score, accumulator) -> None:
    prediction, target = torch.rand(2, 3, 5, 5) < 0.5, torch.rand(2, 3, 5, 5) < 0.5

    scores = score(prediction, target)

    for c in range(3):
        alone = score(
            prediction[:, c].long(), target[:, c].long(), num_classes=2, include_background=False
        )
        assert torch.equal(scores.values[:, c], alone.values[:, 0])


@KINDS
def test_a_missed_case_counts_in_the_mean(score, accumulator) -> None:
    """The mean of a perfect and a missed case is a half; leaving the missed one out gives one."""
    target = torch.tensor([[0, 1, 1], [0, 0, 1]])
    prediction = torch.tensor([[0, 1, 1], [0, 0, 0]])

    scores = score(prediction, target, num_classes=2, include_background=False)

    assert scores.mean() == 0.5


@KINDS
def test_an_invented_structure_counts_in_the_mean(score, accumulator) -> None:
    target = torch.tensor([[0, 1, 1], [0, 0, 0]])
    prediction = torch.tensor([[0, 1, 1], [0, 0, 1]])

    scores = score(prediction, target, num_classes=2, include_background=False)

    assert scores.mean() == 0.5


@KINDS
def test_both_empty_counts_as_the_policy_says(score, accumulator) -> None:
    target = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 0, 0]])
    prediction = torch.tensor([[0, 1, 1], [0, 0, 0], [0, 0, 0]])
    scores = score(prediction, target, num_classes=2, include_background=False)

    skipped, perfect = scores.summary(), scores.summary(empty="perfect")

    assert skipped.mean == 1 / 2
    assert perfect.mean == 2 / 3
    assert "left out" in skipped.policy
    assert "perfect" in perfect.policy
    assert {k: v.tolist() for k, v in skipped.counts.items()} == {
        "ok": [1],
        "both_empty": [1],
        "missed": [1],
        "spurious": [0],
    }


@KINDS
def test_a_class_without_a_value_leaves_the_others_alone(score, accumulator) -> None:
    target = torch.tensor([[0, 1, 1]])

    summary = score(target, target, num_classes=3).summary()

    assert summary.per_class[:2].tolist() == [1, 1]
    assert summary.per_class[2].isnan()
    assert summary.mean == 1


@KINDS
def test_nothing_to_score_has_no_mean(score, accumulator) -> None:
    nothing = torch.zeros(1, 3, dtype=torch.long)

    scores = score(nothing, nothing, num_classes=2, include_background=False)

    assert math.isnan(scores.mean())
    assert scores.mean(empty="perfect") == 1
    assert math.isnan(accumulator(3).compute().mean())
    assert accumulator(3).compute().values.shape == (0, 3)


@KINDS
def test_ignored_voxels_do_not_count(score, accumulator) -> None:
    prediction, target = batch()
    ignored = torch.rand(target.shape) < 0.3

    by_label = score(prediction, torch.where(ignored, 255, target), num_classes=4, ignore_index=255)
    by_mask = score(prediction, target, num_classes=4, mask=~ignored)

    assert torch.equal(by_label.status, by_mask.status)
    assert_close(by_label.values, by_mask.values, rtol=0.0, atol=0.0)
    for b in range(5):
        kept = ~ignored[b]
        alone = score(prediction[b][kept][None], target[b][kept][None], num_classes=4)
        assert_close(by_mask.values[b], alone.values[0])


@KINDS
def test_the_accumulator_gives_what_the_function_gives(score, accumulator) -> None:
    prediction, target = batch()
    mask = torch.rand(target.shape) < 0.8
    options = {"include_background": False, "ignore_index": 2}
    metric = accumulator(4, **options)
    for rows in (slice(0, 2), slice(2, 3), slice(3, 5)):
        metric.update(prediction[rows], target[rows], mask=mask[rows])

    scores = metric.compute()
    expected = score(prediction, target, num_classes=4, mask=mask, **options)

    assert metric.num_cases == 5
    assert scores.classes == expected.classes == (1, 2, 3)
    assert torch.equal(scores.status, expected.status)
    assert_close(scores.values, expected.values, rtol=0.0, atol=0.0)
    metric.reset()
    assert metric.num_cases == 0


@KINDS
def test_merging_adds_the_cases_of_another_process(score, accumulator) -> None:
    prediction, target = batch()
    whole, first, second = accumulator(4), accumulator(4), accumulator(4)
    whole.update(prediction, target)
    first.update(prediction[:2], target[:2])
    second.update(prediction[2:], target[2:])

    first.merge(pickle.loads(pickle.dumps(second)))

    assert_close(first.compute().values, whole.compute().values, rtol=0.0, atol=0.0)
    assert second.num_cases == 3
    first.merge(first)
    assert first.num_cases == 10


@KINDS
def test_only_its_like_can_be_merged(score, accumulator) -> None:
    metric = accumulator(4)

    with refuses("other"):
        metric.merge((IoUScore if accumulator is DiceScore else DiceScore)(4))
    with refuses("other"):
        metric.merge(accumulator(3))
    with refuses("other"):
        metric.merge(accumulator(4, ignore_index=255))


@KINDS
def test_updates_keep_nothing_of_the_size_of_an_image(score, accumulator) -> None:
    metric = accumulator(4)
    for _ in range(3):
        metric.update(torch.randint(0, 4, (2, 30, 30)), torch.randint(0, 4, (2, 30, 30)))

    assert metric.counts.shape == (6, 4, 3)
    assert len(pickle.dumps(metric)) < 6 * 4 * 3 * 8 + 2500


@KINDS
def test_what_cannot_be_scored_is_refused(score, accumulator) -> None:
    labels = torch.zeros(1, 2, 4, dtype=torch.long)
    metric = accumulator()

    with refuses("prediction"):
        score(torch.rand(1, 2, 4), labels, num_classes=2)
    with refuses("target"):
        score(labels, torch.rand(1, 2, 4), num_classes=2)
    with refuses("num_classes"):
        accumulator(0)
    with refuses("empty"):
        score(labels, labels, num_classes=2).mean(empty="zero")
    with refuses("status"):
        score(labels, labels, num_classes=2).is_status("lost")
    metric.update(labels.bool(), labels.bool())
    with refuses("prediction"):
        metric.update(labels[:, :1].bool(), labels[:, :1].bool())


@KINDS
def test_repr_says_what_it_has_seen(score, accumulator) -> None:
    metric = accumulator(2, include_background=False)
    metric.update(torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, 4, dtype=torch.long))

    assert "num_classes=2, include_background=False" in repr(metric)
    assert repr(copy.deepcopy(metric)).endswith("3 cases")


@pytest.mark.parametrize("include_background", [True, False])
def test_values_equal_monai_where_the_truth_is_not_empty(include_background: bool) -> None:
    metrics = pytest.importorskip("monai.metrics")
    prediction, target = batch(cases=6)
    hot = [torch.nn.functional.one_hot(m, 4).movedim(-1, 1) for m in (prediction, target)]
    theirs = {
        dice_score: metrics.DiceMetric(include_background=include_background),
        iou_score: metrics.MeanIoU(include_background=include_background),
    }

    for score, metric in theirs.items():
        ours = score(prediction, target, num_classes=4, include_background=include_background)
        expected = metric(*hot)

        present = ours.is_status("ok") | ours.is_status("missed")
        assert present.any()
        assert_close(ours.values[present].float(), expected[present])
        assert expected[~present].isnan().all()


def test_monai_forgives_an_invented_structure() -> None:
    """A perfect case and one that invents: MONAI drops the second and reports 1."""
    metrics = pytest.importorskip("monai.metrics")
    target = torch.tensor([[[0, 1, 1]], [[0, 0, 0]]])
    prediction = torch.tensor([[[0, 1, 1]], [[0, 0, 1]]])

    theirs = metrics.DiceMetric(include_background=False)
    hot = [torch.nn.functional.one_hot(m, 2).movedim(-1, 1) for m in (prediction, target)]
    theirs(*hot)
    ours = dice_score(prediction, target, num_classes=2, include_background=False)

    assert theirs.aggregate().item() == 1
    assert ours.mean() == 0.5


def test_pooled_counts_give_the_metric_of_medicai() -> None:
    """Its score of hard predictions pools the voxels of all cases; the counts are at hand."""
    import json
    from pathlib import Path

    golden = Path(__file__).parents[2] / "golden" / "medicai_losses"
    expected = json.loads((golden / "medicai_losses.json").read_text())
    arrays = np.load(golden / "medicai_losses.npz")
    labels = torch.from_numpy(arrays["labels"][..., 0]).long()
    predicted = torch.from_numpy(arrays["logits"]).argmax(-1)

    def pooled(metric: DiceScore) -> torch.Tensor:
        intersection, prediction, target = metric.counts.sum(0).double().unbind(-1)
        return (2 * intersection / (prediction + target))[target > 0]

    every, ignoring, binary = DiceScore(3), DiceScore(3, ignore_index=2), DiceScore()
    every.update(predicted, labels)
    ignoring.update(predicted, labels)
    binary.update(
        torch.from_numpy(arrays["bin_logit"]).movedim(-1, 1) > 0,
        torch.from_numpy(arrays["bin_label"]).movedim(-1, 1) > 0,
    )

    assert_close(pooled(every).mean(), expected["metric/cat_logits"], rtol=2e-6)
    assert_close(pooled(ignoring).mean(), expected["metric/sparse_all_ign2_logits"], rtol=2e-6)
    assert_close(pooled(ignoring)[1], expected["metric/sparse_t1_ign2_logits"], rtol=2e-6)
    assert_close(pooled(binary).mean(), expected["metric/bin_logits"], rtol=2e-6)
