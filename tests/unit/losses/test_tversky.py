"""Tversky loss: what each option does, against loops in NumPy, MONAI and closed forms."""

import pytest
import torch

from medkit.losses import DiceLoss, TverskyLoss, WeightedSum, dice_loss, jaccard_loss, tversky_loss
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
    "alpha": (0.5, 0.3, 0.0),
    "beta": (0.5, 0.7),
    "gamma": (1.0, 2.0, 0.75),
}


@pytest.mark.parametrize("case", cases(OPTIONS), ids=str)
def test_equals_loops_over_voxels(case: Case) -> None:
    drawn = scene(case)

    actual = tversky_loss(
        drawn.input,
        drawn.target,
        mask=drawn.mask,
        ignore_index=drawn.ignore_index,
        **drawn.options,
    )

    expected = oracle.tversky(drawn.input.numpy(), drawn.truth, drawn.weight, **drawn.options)
    assert_close(actual, expected)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_each_class_may_have_its_own_exponent(activation: str) -> None:
    logits = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 3, 4))
    gamma = [1.0, 0.75, 2.0]

    loss = tversky_loss(logits, labels, activation=activation, gamma=gamma, reduction="none")

    arrays = logits.numpy(), oracle.truth_of(labels.numpy(), 3), torch.ones(2, 3, 4).numpy()
    expected = oracle.tversky(*arrays, activation=activation, gamma=gamma, reduction="none")
    assert_close(loss, expected)


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_monai(batch: bool, activation: str, include_background: bool) -> None:
    monai = pytest.importorskip("monai.losses")
    logits = torch.randn(2, 4, 7, 6, 5, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 1, 7, 6, 5))
    options = {"batch": batch, "include_background": include_background, "alpha": 0.2, "beta": 0.9}
    theirs = monai.TverskyLoss(to_onehot_y=True, **options, **{activation: True})
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()

    ours = tversky_loss(x, labels, activation=activation, **options)
    expected = theirs(y, labels)
    ours.backward()
    expected.backward()

    assert_close(ours, expected)
    assert_close(x.grad, y.grad)


def test_equals_kornia() -> None:
    """Two dimensions; it leaves absent classes out."""
    losses = pytest.importorskip("kornia.losses")
    logits, labels = torch.randn(2, 3, 6, 7).double(), torch.randint(0, 2, (2, 6, 7))
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()

    ours = tversky_loss(x, labels, alpha=0.3, beta=0.8, smooth=1e-8, absent="skip")
    theirs = losses.tversky_loss(y, labels, 0.3, 0.8, eps=1e-8)
    ours.backward()
    theirs.backward()

    assert_close(ours, theirs)
    assert_close(x.grad, y.grad)


def test_halves_are_dice_and_ones_are_jaccard() -> None:
    logits, labels = torch.randn(2, 3, 4, 5).double(), torch.randint(0, 3, (2, 4, 5))

    halves = tversky_loss(logits, labels, smooth=0.5)
    ones = tversky_loss(logits, labels, smooth=0.5, alpha=1.0, beta=1.0)

    assert_close(halves, dice_loss(logits, labels, smooth=1.0))
    assert_close(ones, jaccard_loss(logits, labels, smooth=0.5))


def test_alpha_weighs_false_positives_and_beta_false_negatives() -> None:
    truth = torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    found = torch.tensor([[[1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0]]])

    loss = tversky_loss(found, truth, activation=None, alpha=0.3, beta=0.7, smooth=0.0)

    assert_close(loss, 1 - 3 / (3 + 0.3 * 2 + 0.7 * 1))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_a_perfect_prediction_has_a_finite_gradient(gamma: float) -> None:
    """The root of zero has an infinite slope; rounding may bring one minus the ratio below zero."""
    labels = torch.randint(0, 3, (2, 6, 6))
    logits = 200.0 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
    logits.requires_grad_()

    loss = tversky_loss(logits, labels, gamma=gamma)
    loss.backward()

    assert loss.item() == 0
    assert logits.grad.isfinite().all()


def test_shares_the_pass_of_a_dice_loss_in_a_sum() -> None:
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    tversky = TverskyLoss(alpha=0.2, gamma=(1.0, 2.0, 3.0))
    both = WeightedSum({"dice": (1.0, DiceLoss()), "tversky": (1.0, tversky)})

    terms = both.terms(logits, labels)

    assert torch.equal(terms["tversky"], tversky(logits, labels))
    assert "gamma=(1.0, 2.0, 3.0)" in repr(tversky)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("alpha", -0.1),
        ("beta", -1.0),
        ("gamma", 0.0),
        ("gamma", (1.0, 2.0, 3.0)),
        ("gamma", (1.0, 0.0)),
    ],
)
def test_wrong_options_are_named(option: str, value: object) -> None:
    logits, labels = torch.randn(1, 2, 4), torch.zeros(1, 4, dtype=torch.long)

    with refuses(option):
        tversky_loss(logits, labels, **{option: value})
    with refuses(option):
        TverskyLoss(**{option: value})(logits, labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_a_million_voxels_is_that_of_float64(dtype: torch.dtype) -> None:
    logits = torch.randn(1, 2, 96, 96, 96).to(dtype)
    labels = (torch.rand(1, 96, 96, 96) < 0.1).long()
    half, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()

    loss, expected = tversky_loss(half, labels, gamma=0.75), tversky_loss(exact, labels, gamma=0.75)
    (loss * 2**16).backward()  # as a GradScaler does: a gradient of 1e-7 is no number in float16
    (expected * 2**16).backward()

    assert_close(loss, expected.float())
    assert_close(half.grad, exact.grad)
