"""Jaccard loss: what each option does, against loops in NumPy, MONAI and closed forms."""

import pytest
import torch

from medkit.losses import dice_loss, jaccard_loss
from medkit.testing import assert_close
from unit.losses import oracle
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

    actual = jaccard_loss(
        drawn.input,
        drawn.target,
        mask=drawn.mask,
        ignore_index=drawn.ignore_index,
        **drawn.options,
    )

    expected = oracle.jaccard(drawn.input.numpy(), drawn.truth, drawn.weight, **drawn.options)
    assert_close(actual, expected)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_monai(batch: bool, activation: str) -> None:
    """MONAI smooths half as much: its ratio is twice that of the sums below."""
    monai = pytest.importorskip("monai.losses")
    logits = torch.randn(2, 4, 7, 6, 5, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 1, 7, 6, 5))
    theirs = monai.DiceLoss(jaccard=True, to_onehot_y=True, batch=batch, **{activation: True})
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()

    ours = jaccard_loss(x, labels, batch=batch, activation=activation, smooth=0.5e-5)
    expected = theirs(y, labels)
    ours.backward()
    expected.backward()

    assert_close(ours, expected)
    assert_close(x.grad, y.grad)


def test_is_one_minus_the_shared_part_over_the_union() -> None:
    p = torch.tensor([[[0.5, 1.0, 0.0, 0.25]]])
    t = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])

    loss = jaccard_loss(p, t, activation=None, smooth=0.0)

    assert_close(loss, 1 - 1.5 / (1.75 + 2 - 1.5))


def test_is_a_function_of_the_dice_loss_of_a_structure() -> None:
    logits, target = torch.randn(3, 1, 4, 5).double(), (torch.rand(3, 1, 4, 5) < 0.4).double()
    options = {"activation": "sigmoid", "smooth": 0.0, "reduction": "none"}

    dice = dice_loss(logits, target, **options)

    assert_close(jaccard_loss(logits, target, **options), 2 * dice / (1 + dice))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_a_million_voxels_is_that_of_float64(dtype: torch.dtype) -> None:
    logits = torch.randn(1, 2, 96, 96, 96).to(dtype)
    labels = (torch.rand(1, 96, 96, 96) < 0.1).long()
    half, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()

    loss, expected = jaccard_loss(half, labels), jaccard_loss(exact, labels)
    (loss * 2**16).backward()  # as a GradScaler does: a gradient of 1e-7 is no number in float16
    (expected * 2**16).backward()

    assert_close(loss, expected.float())
    assert_close(half.grad, exact.grad)
