"""Dice loss: what each option does, against loops in NumPy, closed forms and hand counts."""

import math

import numpy as np
import pytest
import torch

from medkit.losses import DiceLoss, dice_loss
from medkit.testing import assert_close
from unit.losses import oracle
from unit.losses.refusals import refuses
from unit.losses.scenes import Case, cases, scene

OPTIONS = {
    "class_weight": (None, [0.5, 0.1, 2.0]),
    "absent": ("ratio", "penalize", "skip"),
    "batch": (False, True),
    "smooth": (1e-5, 0.0, 1.0),
    "reduction": ("mean", "sum", "none"),
}


@pytest.mark.parametrize("case", cases(OPTIONS), ids=str)
def test_equals_loops_over_voxels(case: Case) -> None:
    drawn = scene(case)

    actual = dice_loss(
        drawn.input,
        drawn.target,
        mask=drawn.mask,
        ignore_index=drawn.ignore_index,
        **drawn.options,
    )

    expected = oracle.dice(drawn.input.numpy(), drawn.truth, drawn.weight, **drawn.options)
    assert_close(actual, expected)


def test_is_one_minus_twice_the_shared_part_over_both() -> None:
    p = torch.tensor([[[0.5, 1.0, 0.0, 0.25]]])
    t = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])

    loss = dice_loss(p, t, activation=None, smooth=0.0)

    assert_close(loss, 1 - 2 * 1.5 / (1.75 + 2))


def test_perfect_prediction_costs_nothing() -> None:
    labels = torch.randint(0, 4, (2, 6, 6, 6))
    logits = 200.0 * torch.nn.functional.one_hot(labels, 4).movedim(-1, 1)

    assert float(dice_loss(logits, labels)) == 0


def test_penalizing_an_absent_class_costs_its_mean_probability() -> None:
    p = torch.tensor([[[0.2, 0.6, 0.1, 0.1]]])

    loss = dice_loss(p, torch.zeros(1, 1, 4), activation=None, absent="penalize")

    assert_close(loss, 0.25)


def test_penalizing_an_absent_class_keeps_a_gradient() -> None:
    """Where the plain formula, ours and MONAI's, has next to none."""
    gradients = {}
    for absent in ("ratio", "penalize"):
        logits = torch.zeros(1, 1, 16, 16, 16, requires_grad=True)
        dice_loss(logits, torch.zeros_like(logits), activation="sigmoid", absent=absent).backward()
        gradients[absent] = float(logits.grad.sum())

    assert gradients["ratio"] < 1e-8
    assert gradients["penalize"] == pytest.approx(0.25)


def test_skipping_every_class_costs_nothing_and_moves_nothing() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    target = torch.zeros(2, 3, 4, 4)

    loss = dice_loss(logits, target, absent="skip")
    loss.backward()

    assert loss.item() == 0
    assert not logits.grad.any()


def test_ignored_class_stays_in_the_mean_unless_skipped() -> None:
    """With classes 0 and 1 and an unlabelled class 2, that class is absent from what counts."""
    labels = torch.tensor([[0, 0, 1, 1, 2, 2]])
    logits = torch.zeros(1, 3, 6)

    plain = dice_loss(logits, labels, ignore_index=2, reduction="none", smooth=0.0)
    skipped = dice_loss(logits, labels, ignore_index=2, absent="skip", smooth=0.0)

    third = 1 - 2 * (2 / 3) / (4 / 3 + 2)
    assert_close(plain, np.array([[third, third, 1.0]]))
    assert_close(skipped, third)


def test_batch_sums_voxels_before_the_ratio() -> None:
    p = torch.tensor([[[0.5, 0.5]], [[1.0, 0.0]]])
    t = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])

    loss = dice_loss(p, t, activation=None, batch=True, smooth=0.0, reduction="none")

    assert loss.shape == (1, 1)
    assert_close(loss, np.array([[1 - 2 * 0.5 / (2 + 1)]]))


def test_none_returns_samples_and_classes() -> None:
    logits, labels = torch.randn(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5))

    assert dice_loss(logits, labels, reduction="none").shape == (4, 3)
    assert dice_loss(logits, labels, include_background=False, reduction="none").shape == (4, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_a_million_voxels_is_that_of_float64(dtype: torch.dtype) -> None:
    logits = torch.randn(1, 2, 96, 96, 96).to(dtype)
    labels = (torch.rand(1, 96, 96, 96) < 0.1).long()
    half, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()

    loss, expected = dice_loss(half, labels), dice_loss(exact, labels)
    (loss * 2**16).backward()  # as a GradScaler does: a gradient of 1e-7 is no number in float16
    (expected * 2**16).backward()

    assert loss.dtype == torch.float32
    assert_close(loss, expected.float())
    assert half.grad.dtype == dtype
    assert_close(half.grad, exact.grad)


def test_gradient_of_a_nearly_disjoint_pair_is_exact() -> None:
    """A voxel of 1e-6 shared, of a million predicted: the gradient of the others is 2I / P^2."""
    p = torch.zeros(1, 1, 2**20)
    p[0, 0, 1:] = 1.0
    p[0, 0, 0] = 1e-6
    p.requires_grad_()
    target = torch.zeros(1, 1, 2**20)
    target[0, 0, 0] = 1.0

    dice_loss(p, target, activation=None, smooth=0.0).backward()

    assert_close(p.grad[0, 0, 1], 2e-6 / 2**40, rtol=1e-5)


def test_counts_more_voxels_than_float32_can() -> None:
    """2^24 + 1 ones added one by one in float32 stay at 2^24."""
    voxels = 2**24 + 4096
    logits = torch.zeros(1, 1, voxels, dtype=torch.float16)

    loss = dice_loss(logits, torch.ones(1, voxels, dtype=torch.uint8), activation="sigmoid")

    assert_close(loss, 1 - 2 * 0.5 / 1.5)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_have_finite_gradients(size: float) -> None:
    logits = torch.full((1, 3, 4, 4), size)
    logits[:, 1] *= -1
    logits.requires_grad_()

    loss = dice_loss(logits, torch.randint(0, 3, (1, 4, 4)))
    loss.backward()

    assert math.isfinite(loss.item())
    assert logits.grad.isfinite().all()


def test_class_stores_what_the_function_takes() -> None:
    options = {"activation": "sigmoid", "class_weight": (0.1, 0.7), "absent": "skip", "batch": True}
    logits, target = torch.randn(2, 2, 5), torch.rand(2, 2, 5)

    loss = DiceLoss(**options)

    assert torch.equal(loss(logits, target), dice_loss(logits, target, **options))
    assert "absent='skip'" in repr(loss)
    assert "class_weight=(0.1, 0.7)" in repr(loss)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("activation", "tanh"),
        ("absent", "ignore"),
        ("reduction", "avg"),
        ("smooth", -1.0),
        ("class_weight", (1.0, 2.0, 3.0)),
        ("class_weight", (1.0, -2.0)),
        ("class_weight", (0.0, 0.0)),
    ],
)
def test_wrong_options_are_named(option: str, value: object) -> None:
    logits, labels = torch.randn(1, 2, 4), torch.zeros(1, 4, dtype=torch.long)

    with refuses(option):
        dice_loss(logits, labels, **{option: value})
    with refuses(option):
        DiceLoss(**{option: value})(logits, labels)
