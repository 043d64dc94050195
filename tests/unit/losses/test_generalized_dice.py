"""Generalized Dice loss: what each option does, against loops in NumPy, MONAI and closed forms."""

import pytest
import torch

from medkit.losses import GeneralizedDiceLoss, dice_loss, generalized_dice_loss
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
    "weight_type": ("square", "simple", "uniform"),
}


@pytest.mark.parametrize("case", cases(OPTIONS), ids=str)
def test_equals_loops_over_voxels(case: Case) -> None:
    drawn = scene(case)

    actual = generalized_dice_loss(
        drawn.input,
        drawn.target,
        mask=drawn.mask,
        ignore_index=drawn.ignore_index,
        **drawn.options,
    )

    expected = oracle.generalized_dice(
        drawn.input.numpy(), drawn.truth, drawn.weight, **drawn.options
    )
    assert_close(actual, expected)


@pytest.mark.parametrize("weight_type", ["square", "simple", "uniform"])
@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_monai_without_smoothing(
    batch: bool, activation: str, include_background: bool, weight_type: str
) -> None:
    """Its smoothing is the defect: see ``test_a_large_organ_is_judged_like_a_small_one``."""
    monai = pytest.importorskip("monai.losses")
    logits = torch.randn(2, 4, 7, 6, 5, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 1, 7, 6, 5))
    labels[1, 0, 0] = 3  # absent from the first sample: there it weighs like the smallest
    options = {"batch": batch, "include_background": include_background}
    theirs = monai.GeneralizedDiceLoss(
        to_onehot_y=True,
        w_type=weight_type,
        smooth_nr=0.0,
        smooth_dr=0.0,
        **options,
        **{activation: True},
    )
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()

    ours = generalized_dice_loss(
        x, labels, activation=activation, weight_type=weight_type, smooth=0.0, **options
    )
    expected = theirs(y, labels)
    ours.backward()
    expected.backward()

    assert_close(ours, expected, rtol=1e-6)  # MONAI rounds the weights to float32
    assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-9)


def test_is_twice_the_weighted_shared_part_over_both() -> None:
    p = torch.tensor([[[0.5, 0.5, 0.0, 0.0, 0.0], [0.5, 0.5, 1.0, 1.0, 1.0]]])
    labels = torch.tensor([[0, 1, 1, 1, 1]])

    loss = generalized_dice_loss(p, labels, activation=None, smooth=0.0)

    weights = 1.0, 1 / 16
    above = 2 * (weights[0] * 0.5 + weights[1] * 3.5)
    assert_close(loss, 1 - above / (weights[0] * 2 + weights[1] * 8))


@pytest.mark.parametrize(("edge", "expected"), [(16, 0.9962), (64, 0.9286), (100, 0.9095)])
def test_a_large_organ_is_judged_like_a_small_one(edge: int, expected: float) -> None:
    """A cube in 128^3, probability 0.05 everywhere. MONAI: 0.9947, 0.323 and 0.090."""
    labels = torch.zeros(1, 128, 128, 128, dtype=torch.uint8)
    labels[:, :edge, :edge, :edge] = 1
    p = torch.full((1, 2, 128, 128, 128), 0.05)

    loss = generalized_dice_loss(p, labels, activation=None, include_background=False)

    assert_close(loss, 1 - 0.1 * edge**3 / (0.05 * 128**3 + edge**3), rtol=1e-5)
    assert float(loss) == pytest.approx(expected, abs=1e-4)


def test_a_single_class_has_the_dice_loss() -> None:
    logits, target = torch.randn(3, 1, 4, 5).double(), (torch.rand(3, 1, 4, 5) < 0.4).double()
    options = {"activation": "sigmoid", "smooth": 1.0}

    generalized = generalized_dice_loss(logits, target, **options)

    assert_close(generalized, dice_loss(logits, target, **options))


def test_an_absent_class_weighs_like_the_smallest_or_costs_its_mean_probability() -> None:
    p = torch.tensor([[[0.8, 0.8, 0.2, 0.2], [0.1, 0.1, 0.7, 0.7], [0.1, 0.1, 0.1, 0.1]]])
    labels = torch.tensor([[0, 0, 0, 1]])
    options = {"activation": None, "smooth": 0.0}
    weights = 1 / 9, 1.0
    above = 2 * (weights[0] * 1.8 + weights[1] * 0.7)
    below = weights[0] * (2.0 + 3) + weights[1] * (1.6 + 1)
    present = 1 - above / below

    skipped, penalized, ratio = (
        generalized_dice_loss(p, labels, absent=absent, **options)
        for absent in ("skip", "penalize", "ratio")
    )

    assert_close(skipped, present)
    assert_close(penalized, (2 * present + 0.1) / 3)
    assert_close(ratio, 1 - above / (below + 0.4))


def test_none_returns_samples() -> None:
    logits, labels = torch.randn(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5))

    assert generalized_dice_loss(logits, labels, reduction="none").shape == (4,)
    assert generalized_dice_loss(logits, labels, reduction="none", batch=True).shape == (1,)


def test_a_sample_with_nothing_to_find_may_be_skipped() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    target = torch.zeros(2, 3, 4, 4)
    target[0, 1, 0] = 1

    loss = generalized_dice_loss(logits, target, absent="skip")
    loss.backward()

    assert_close(loss, generalized_dice_loss(logits[:1], target[:1], absent="skip"))
    assert not logits.grad[1].any()


def test_tiny_soft_labels_do_not_overflow() -> None:
    target = torch.zeros(1, 2, 8)
    target[0, 0] = 1.0
    target[0, 1, 0] = 1e-30
    logits = torch.randn(1, 2, 8, requires_grad=True)

    loss = generalized_dice_loss(logits, target)
    loss.backward()

    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("option", "value"), [("weight_type", "cubic"), ("absent", "none"), ("smooth", -1.0)]
)
def test_wrong_options_are_named(option: str, value: object) -> None:
    logits, labels = torch.randn(1, 2, 4), torch.zeros(1, 4, dtype=torch.long)

    with refuses(option):
        generalized_dice_loss(logits, labels, **{option: value})
    with refuses(option):
        GeneralizedDiceLoss(**{option: value})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_a_million_voxels_is_that_of_float64(dtype: torch.dtype) -> None:
    logits = torch.randn(1, 2, 96, 96, 96).to(dtype)
    labels = (torch.rand(1, 96, 96, 96) < 0.1).long()
    half, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()

    loss, expected = generalized_dice_loss(half, labels), generalized_dice_loss(exact, labels)
    (loss * 2**16).backward()  # as a GradScaler does: a gradient of 1e-7 is no number in float16
    (expected * 2**16).backward()

    assert_close(loss, expected.float())
    assert_close(half.grad, exact.grad)
