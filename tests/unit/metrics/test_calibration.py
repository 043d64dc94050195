"""Calibration: torchmetrics' and scikit-learn's numbers, loops over samples, exact sums."""

import math

import numpy as np
import pytest
import torch

import _torchvision_shim
from medkit.metrics import Calibration, calibration
from medkit.testing import assert_close
from unit.losses.refusals import refuses


def samples(count: int = 500, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probabilities = (2 * torch.randn(count, 3, generator=generator)).softmax(1)
    target = torch.randint(0, 3, (count,), generator=generator)
    likely = torch.rand(count, generator=generator) < 0.6
    return probabilities, torch.where(likely, probabilities.argmax(1), target)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_errors_are_torchmetrics_s(num_bins) -> None:
    _torchvision_shim.install()
    theirs = pytest.importorskip("torchmetrics.functional.classification")
    probabilities, target = samples()

    ours = calibration(probabilities, target, num_bins=num_bins)

    for mine, norm in ((ours.ece, "l1"), (ours.max_error, "max")):
        expected = theirs.multiclass_calibration_error(
            probabilities, target, num_classes=3, n_bins=num_bins, norm=norm
        )
        # torchmetrics adds up in float32
        assert mine == pytest.approx(expected.item(), abs=1e-6)


def test_curve_and_brier_score_are_scikit_learn_s() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    curves = pytest.importorskip("sklearn.calibration")
    probabilities, target = samples()

    ours = calibration(probabilities, target)

    confidence, decision = (each.numpy() for each in probabilities.double().max(1))
    right, mean = curves.calibration_curve(decision == target.numpy(), confidence, n_bins=15)
    filled = ours.counts > 0
    assert_close(ours.accuracy[filled], torch.from_numpy(right))
    # probabilities count to 2^-30
    assert_close(ours.confidence[filled], torch.from_numpy(mean), atol=1e-9, rtol=0)
    exact = probabilities.double().numpy()
    expected = metrics.brier_score_loss(
        target.numpy(), exact / exact.sum(1, keepdims=True), labels=[0, 1, 2], scale_by_half=False
    )
    assert ours.brier == pytest.approx(expected, abs=1e-6)


def test_every_number_equals_plain_loops() -> None:
    probabilities, target = samples(seed=3)
    p, t = probabilities.double().numpy(), target.numpy()
    confidence, right = p.max(1), p.argmax(1) == t

    ours = calibration(probabilities, target)

    even = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            even += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
    order = np.argsort(confidence)
    adaptive = sum(
        len(part) * abs(right[part].mean() - confidence[part].mean())
        for part in np.array_split(order, 15)
    )
    brier = sum((p[i, c] - (t[i] == c)) ** 2 for i in range(len(t)) for c in range(3))
    assert ours.ece == pytest.approx(even / len(t), abs=1e-9)
    assert ours.brier == pytest.approx(brier / len(t), abs=1e-9)
    # one sample on the limit of a bin may belong to either side
    assert ours.adaptive_ece == pytest.approx(adaptive / len(t), abs=15 / len(t))


def test_adaptive_bins_hold_equally_many() -> None:
    """Thirty samples in pairs that cancel: right at 0.9 + e, wrong at 0.6 - e, two to a bin."""
    confidence = torch.linspace(0.55, 0.95, 30, dtype=torch.float64)
    probabilities = torch.stack([confidence, 1 - confidence], 1)
    target = torch.arange(30) % 2
    pairs = confidence.view(15, 2).mean(1)

    ours = calibration(probabilities, target)

    assert ours.adaptive_ece == pytest.approx((pairs - 0.5).abs().mean().item(), abs=1e-8)


def test_limits_belong_to_the_bin_below() -> None:
    p = torch.tensor([0.6, 0.8, 1.0], dtype=torch.float64)

    result = calibration(torch.stack([p, 1 - p], 1), torch.tensor([0, 0, 0]), num_bins=5)

    assert result.counts.tolist() == [0, 0, 1, 1, 1]
    assert result.accuracy.isnan().tolist() == [True, True, False, False, False]


def test_no_split_changes_a_bit() -> None:
    probabilities, target = samples()
    whole, *parts = (Calibration() for _ in range(3))
    whole.update(probabilities, target)
    for piece in torch.randperm(500).split(37):
        parts[len(piece) % 2].update(probabilities[piece], target[piece])
    parts[0].merge(parts[1])

    a, b = whole.compute(), parts[0].compute()
    assert (a.ece, a.adaptive_ece, a.brier, a.max_error) == (
        b.ece, b.adaptive_ece, b.brier, b.max_error
    )  # fmt: skip
    assert torch.equal(whole.total, parts[0].total)


def test_voxels_are_samples_and_some_do_not_count() -> None:
    probabilities, target = samples(60)
    volume = probabilities.view(3, 4, 5, 3).movedim(-1, 1)
    ignored = target.view(3, 4, 5).clone()
    ignored[1] = 255

    ours = calibration(volume, ignored, ignore_index=255)

    kept = (ignored != 255).flatten()
    assert ours.ece == calibration(probabilities[kept], target[kept]).ece
    assert ours.counts.sum() == 40


def test_nothing_counted_is_not_perfect() -> None:
    result = calibration(torch.rand(2, 2), torch.full((2,), 255), ignore_index=255)

    assert math.isnan(result.ece)
    assert math.isnan(result.adaptive_ece)
    assert math.isnan(result.brier)
    assert result.status == "empty"
    assert calibration(*samples()).status == "ok"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_counted_as_it_stands(dtype) -> None:
    probabilities, target = samples()
    half = probabilities.to(dtype)

    assert calibration(half, target).ece == calibration(half.double(), target).ece


def test_bad_input_is_refused() -> None:
    with refuses("probabilities"):
        calibration(torch.tensor([[1.5, -0.5]]), torch.tensor([0]))
    with refuses("target"):
        calibration(torch.tensor([[0.5, 0.5]]), torch.tensor([2]))
    with refuses("target"):
        calibration(torch.rand(2, 2), torch.zeros(3, dtype=torch.long))
    with refuses("other"):
        Calibration().merge(Calibration(num_bins=10))
