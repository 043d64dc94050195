"""Area under the curve: scikit-learn's numbers, ties and absent classes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medkit.metrics import Auroc, auroc
from medkit.testing import assert_close
from unit.losses.refusals import refuses


def samples(seed: int, count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Return probabilities with ties, and classes of which each occurs."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.cat([torch.arange(3), torch.randint(0, 3, (count - 3,), generator=generator)])
    logits = torch.randint(0, 4, (count, 3), generator=generator).double()
    logits[torch.arange(count), target] += 1
    return logits.softmax(1), target


@given(seed=st.integers(0, 1000))
@pytest.mark.parametrize("multi_class", ["ovr", "ovo"])
@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_areas_are_scikit_learn_s(multi_class, average, seed) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities, target = samples(seed)

    ours = auroc(probabilities, target, multi_class=multi_class, average=average)

    expected = metrics.roc_auc_score(
        target.numpy(), probabilities.numpy(), multi_class=multi_class, average=average
    )
    assert ours.mean == pytest.approx(expected, rel=1e-12)
    each = metrics.roc_auc_score(
        target.numpy(), probabilities.numpy(), multi_class="ovr", average=None
    )
    assert_close(ours.per_class, torch.from_numpy(each))


def test_area_is_the_share_of_pairs_in_order() -> None:
    probabilities, target = samples(0, count=25)
    for c in range(3):
        positive, negative = probabilities[target == c, c], probabilities[target != c, c]
        won = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative)

        assert auroc(probabilities, target).per_class[c].item() == pytest.approx(
            won / (len(positive) * len(negative))
        )


def test_a_class_without_samples_has_no_area() -> None:
    result = auroc(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]), torch.tensor([0, 1]))

    assert result.per_class.isnan().tolist() == [False, False, True]
    assert result.mean == 1.0
    assert result.support.tolist() == [1, 1, 0]
    assert result.status == ("ok", "ok", "no_positives")
    assert "left out" in result.policy
    only = auroc(torch.rand(3, 2), torch.zeros(3, dtype=torch.long), multi_class="ovo")
    assert math.isnan(only.mean)
    assert only.status == ("no_negatives", "no_positives")


@pytest.mark.parametrize("multi_class", ["ovr", "ovo"])
def test_no_split_and_no_order_changes_a_bit(multi_class) -> None:
    probabilities, target = samples(1)
    order = torch.randperm(len(target))
    parts = [Auroc(3, multi_class=multi_class) for _ in range(2)]
    parts[0].update(probabilities[order[:7]], target[order[:7]])
    parts[1].update(probabilities[order[7:]], target[order[7:]])
    parts[0].merge(parts[1])

    assert parts[0].compute().mean == auroc(probabilities, target, multi_class=multi_class).mean
    parts[0].reset()
    with refuses("Auroc"):
        parts[0].compute()


def test_bad_input_is_refused() -> None:
    two, one = torch.rand(2, 2), torch.zeros(2, dtype=torch.long)
    with refuses("target"):
        auroc(two, one + 2)
    with refuses("input"):
        auroc(two * torch.nan, one)
    with refuses("multi_class"):
        auroc(two, one, multi_class="all")
    with refuses("input"):
        Auroc(3).update(two, one)
    with refuses("other"):
        Auroc(2).merge(Auroc(3))
    with pytest.raises((TypeError, ValueError), match="other"):
        Auroc(2).merge("area")


def test_one_risk_for_two_classes_is_refused() -> None:
    with refuses("input"):
        auroc(torch.tensor([0.1, 0.8]), torch.tensor([0, 1]))
