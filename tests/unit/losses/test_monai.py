"""Dice and cross entropy beside MONAI's: equal where MONAI is right, pinned where it is not."""

import pytest
import torch
import torch.nn.functional as F

from medkit.losses import CrossEntropyLoss, DiceLoss, WeightedSum, cross_entropy_loss, dice_loss
from medkit.testing import assert_close

monai_losses = pytest.importorskip("monai.losses")


def volumes(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 4, 7, 6, 5, dtype=dtype), torch.randint(0, 4, (2, 1, 7, 6, 5))


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_dice_equals_monai(
    batch: bool, include_background: bool, activation: str, reduction: str
) -> None:
    logits, labels = volumes()
    theirs = monai_losses.DiceLoss(
        include_background=include_background,
        to_onehot_y=True,
        batch=batch,
        reduction=reduction,
        **{activation: True},
    )
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()

    ours = dice_loss(
        x,
        labels,
        activation=activation,
        include_background=include_background,
        batch=batch,
        reduction=reduction,
    )
    expected = theirs(y, labels)
    ours.backward()
    expected.backward()

    assert_close(ours, expected)
    assert_close(x.grad, y.grad)


def test_dice_of_masks_equals_monai() -> None:
    """Its MaskedDiceLoss masks probabilities; its MaskedLoss masks logits and is off by a third."""
    logits, labels = volumes()
    one_hot = F.one_hot(labels[:, 0], 4).movedim(-1, 1)
    mask = (torch.rand(2, 1, 7, 6, 5) < 0.3).double()

    ours = dice_loss(logits, one_hot, mask=mask, activation="sigmoid")

    assert_close(ours, monai_losses.MaskedDiceLoss(sigmoid=True)(logits, one_hot, mask))
    wrong = monai_losses.MaskedLoss(monai_losses.DiceLoss, sigmoid=True)(logits, one_hot, mask)
    assert abs(wrong / ours - 1) > 0.05


def test_the_sum_of_dice_and_cross_entropy_equals_monai() -> None:
    logits, labels = volumes()
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours = WeightedSum({"dice": (0.7, DiceLoss()), "ce": (1.3, CrossEntropyLoss())})(x, labels)
    theirs = monai_losses.DiceCELoss(
        softmax=True, to_onehot_y=True, lambda_dice=0.7, lambda_ce=1.3
    )(y, labels)
    ours.backward()
    theirs.backward()

    assert_close(ours, theirs)
    assert_close(x.grad, y.grad)


def test_background_leaves_both_terms_where_monai_drops_it_from_one() -> None:
    logits, labels = volumes()
    theirs = monai_losses.DiceCELoss(softmax=True, to_onehot_y=True, include_background=False)

    shared = dice_loss(logits, labels, include_background=False)

    assert_close(theirs(logits, labels), shared + cross_entropy_loss(logits, labels))


def test_weights_are_for_all_channels_where_monai_asks_for_those_left() -> None:
    logits, labels = volumes()
    theirs = monai_losses.DiceLoss(
        softmax=True, to_onehot_y=True, include_background=False, weight=torch.tensor([1.0, 2, 3])
    )

    ours = dice_loss(logits, labels, include_background=False, class_weight=(9.0, 1.0, 2.0, 3.0))

    assert_close(2 * ours, theirs(logits, labels))  # weights that average two double its loss


def test_float16_counts_where_monai_overflows() -> None:
    """A loss of 1 and a gradient of exactly 0, without a warning."""
    logits = torch.randn(1, 2, 96, 96, 96).half()
    target = (torch.rand(1, 2, 96, 96, 96) < 0.5).float()
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()

    ours = dice_loss(x, target, activation="sigmoid") * 2**16
    theirs = monai_losses.DiceLoss(sigmoid=True)(y, target) * 2**16
    ours.backward()
    theirs.backward()

    exact = dice_loss(logits.double(), target.double(), activation="sigmoid")
    assert_close(ours / 2**16, exact.float())
    assert x.grad.abs().sum() > 0
    assert theirs.item() / 2**16 == 1
    assert not y.grad.any()


def test_an_absent_class_can_have_a_gradient_where_monai_has_none() -> None:
    logits = torch.zeros(1, 1, 32, 32, 32)
    target = torch.zeros_like(logits)
    gradients = []
    for loss in (
        monai_losses.DiceLoss(sigmoid=True),
        DiceLoss(activation="sigmoid"),
        DiceLoss(activation="sigmoid", absent="penalize"),
    ):
        x = logits.clone().requires_grad_()
        loss(x, target).backward()
        gradients.append(float(x.grad.abs().sum()))

    assert gradients[0] == pytest.approx(gradients[1])
    assert gradients[0] < 1e-9
    assert gradients[2] == pytest.approx(0.25)
