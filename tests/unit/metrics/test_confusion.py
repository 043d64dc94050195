"""Confusion-matrix scores: scikit-learn's and torchmetrics' numbers in their definitions."""

import math
import pickle
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import _torchvision_shim
from medkit.metrics import ConfusionMatrix, confusion_matrix, confusion_scores
from medkit.testing import assert_close
from unit.losses.refusals import refuses

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


def classes(samples: int = 200, num_classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.randint(0, num_classes, (samples,))
    guess = torch.randint(0, num_classes, (samples,))
    return torch.where(torch.rand(samples) < 0.5, target, guess), target


@given(pairs=LABELS)
def test_scores_are_scikit_learn_s(pairs) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    prediction, target = (torch.tensor(each) for each in zip(*pairs, strict=True))
    p, t = prediction.numpy(), target.numpy()

    ours = confusion_scores(confusion_matrix(prediction, target, num_classes=4))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that are never predicted
        assert ours.accuracy == pytest.approx(metrics.accuracy_score(t, p))
        assert ours.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(t, p))
        assert ours.mcc == pytest.approx(metrics.matthews_corrcoef(t, p))
        assert ours.macro_f1 == pytest.approx(
            metrics.f1_score(t, p, average="macro", zero_division=0)
        )
        assert ours.weighted_f1 == pytest.approx(
            metrics.f1_score(t, p, average="weighted", zero_division=0)
        )
        assert ours.accuracy == pytest.approx(metrics.f1_score(t, p, average="micro"))
        if not math.isnan(ours.kappa):
            assert ours.kappa == pytest.approx(metrics.cohen_kappa_score(t, p))
        each = metrics.precision_recall_fscore_support(t, p, labels=[0, 1, 2, 3], zero_division=0)
    absent = [c not in p and c not in t for c in range(4)]
    for mine, theirs in zip((ours.precision, ours.recall, ours.f1), each, strict=False):
        assert mine.isnan().tolist() == absent
        assert_close(mine.nan_to_num(0.0), torch.from_numpy(theirs))
    assert ours.support.tolist() == each[3].tolist()


def test_kappa_is_not_defined_for_one_class_throughout() -> None:
    one = torch.ones(5, dtype=torch.long)

    scores = confusion_scores(confusion_matrix(one, one, num_classes=3))

    assert math.isnan(scores.kappa)
    assert scores.mcc == 0.0
    assert scores.accuracy == scores.macro_f1 == 1.0


def test_scores_are_torchmetrics_s() -> None:
    _torchvision_shim.install()
    theirs = pytest.importorskip("torchmetrics.functional.classification")
    prediction, target = classes()
    options = {"num_classes": 5, "ignore_index": 255}
    target[::7] = 255

    matrix = confusion_matrix(prediction, target, **options)
    ours = confusion_scores(matrix)

    assert torch.equal(matrix, theirs.multiclass_confusion_matrix(prediction, target, **options))
    for mine, function, more in (
        (ours.accuracy, theirs.multiclass_accuracy, {"average": "micro"}),
        (ours.balanced_accuracy, theirs.multiclass_recall, {"average": "macro"}),
        (ours.macro_f1, theirs.multiclass_f1_score, {"average": "macro"}),
        (ours.weighted_f1, theirs.multiclass_f1_score, {"average": "weighted"}),
        (ours.mcc, theirs.multiclass_matthews_corrcoef, {}),
        (ours.kappa, theirs.multiclass_cohen_kappa, {}),
    ):
        # torchmetrics computes in float32
        assert mine == pytest.approx(function(prediction, target, **options, **more).item(), 1e-5)


def test_every_class_says_what_became_of_it() -> None:
    scores = confusion_scores(
        confusion_matrix(torch.tensor([0, 0, 2]), torch.tensor([0, 1, 0]), num_classes=4)
    )

    assert scores.status.tolist() == [0, 2, 3, 1]
    assert scores.f1[1] == scores.f1[2] == 0
    assert scores.f1[3].isnan()


def test_large_counts_do_not_round() -> None:
    """Products of these counts need more than 64 bits."""
    many = 10**14
    scores = confusion_scores(torch.tensor([[many, 0], [0, many]]))

    assert scores.mcc == scores.kappa == 1.0


def test_no_split_changes_a_bit() -> None:
    prediction, target = classes()
    whole, first, second = (ConfusionMatrix(5) for _ in range(3))
    whole.update(prediction, target)
    first.update(prediction[:30], target[:30])
    second.update(prediction[30:31], target[30:31])
    second.update(prediction[31:], target[31:])

    first.merge(pickle.loads(pickle.dumps(second)))
    first.merge(ConfusionMatrix(5))

    assert torch.equal(first.total, whole.total)
    assert first.compute().mcc == whole.compute().mcc
    first.reset()
    with refuses("ConfusionMatrix"):
        first.compute()


@pytest.mark.parametrize(
    ("argument", "prediction", "target"),
    [
        ("prediction", torch.tensor([0.2]), torch.tensor([0])),
        ("prediction", torch.tensor([7]), torch.tensor([0])),
        ("target", torch.tensor([0]), torch.tensor([-1])),
        ("prediction", torch.tensor([0, 1]), torch.tensor([0])),
    ],
)
def test_bad_input_is_refused(argument, prediction, target) -> None:
    with pytest.raises((ValueError, TypeError), match=argument):
        confusion_matrix(prediction, target, num_classes=2)


def test_others_are_not_merged() -> None:
    with refuses("other"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))
    with pytest.raises(TypeError, match="other"):
        ConfusionMatrix(2).merge("matrix")
    with refuses("matrix"):
        confusion_scores(torch.zeros(2, 3, dtype=torch.long))


def test_what_is_no_count_is_refused() -> None:
    with pytest.raises(ValueError, match="matrix must be of zero or more; got -1"):
        confusion_scores(torch.tensor([[5, -1], [0, 0]]))
    with refuses("matrix"):
        confusion_scores(torch.eye(2))
