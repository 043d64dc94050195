"""WeightedSum: terms, total, shared passes over the voxels, and what may be summed."""

import pytest
import torch
from torch import Tensor, nn

from medkit import ops
from medkit.losses import (
    CrossEntropyLoss,
    DiceLoss,
    UncertaintyWeighting,
    WeightedSum,
    cross_entropy_loss,
    dice_loss,
)
from medkit.losses import _voxel_loss as voxel_loss
from medkit.testing import assert_close
from unit.losses.refusals import refuses

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, 3, 6, 5, 4, generator=GENERATOR)
LABELS = torch.randint(0, 3, (2, 6, 5, 4), generator=GENERATOR)
MASK = torch.rand(2, 6, 5, 4, generator=GENERATOR) < 0.6


def test_terms_are_unweighted_and_total_weighs_them() -> None:
    loss = WeightedSum({"dice": (0.5, DiceLoss()), "ce": (2.0, CrossEntropyLoss())})

    terms = loss.terms(LOGITS, LABELS)

    assert list(terms) == ["dice", "ce"]
    assert_close(terms["dice"], dice_loss(LOGITS, LABELS))
    assert_close(terms["ce"], cross_entropy_loss(LOGITS, LABELS))
    assert_close(loss.total(terms), 0.5 * terms["dice"] + 2.0 * terms["ce"])
    assert torch.equal(loss(LOGITS, LABELS), loss.total(terms))


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize(
    "losses",
    [
        {"dice": DiceLoss(), "ce": CrossEntropyLoss()},
        {
            "ce": CrossEntropyLoss(class_weight=(1.0, 2.0, 3.0), label_smoothing=0.1),
            "dice": DiceLoss(),
        },
        {"dice": DiceLoss(absent="skip"), "other": DiceLoss(batch=True, include_background=False)},
        {"a": CrossEntropyLoss(top_k=0.2), "b": CrossEntropyLoss(class_weight=(3.0, 2.0, 1.0))},
        {"dice": DiceLoss(activation="sigmoid"), "ce": CrossEntropyLoss(activation="sigmoid")},
        {"dice": DiceLoss(ignore_index=2), "ce": CrossEntropyLoss()},
    ],
)
def test_sharing_a_pass_changes_no_term_and_no_gradient(
    losses: dict[str, nn.Module], mask: Tensor | None
) -> None:
    together, apart = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()

    terms = WeightedSum({n: (1.0, loss) for n, loss in losses.items()}).terms(
        together, LABELS, mask=mask
    )
    alone = {name: loss(apart, LABELS, mask=mask) for name, loss in losses.items()}
    sum(terms.values()).backward()
    sum(alone.values()).backward()

    for name, value in alone.items():
        assert_close(terms[name], value, message=name)
    assert_close(together.grad, apart.grad)


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        (({}, {}), 1),
        (({"absent": "skip"}, {"class_weight": (1.0, 2.0, 3.0), "label_smoothing": 0.1}), 1),
        (({"ignore_index": 255}, {}), 2),
        (({"activation": "sigmoid"}, {}), 2),
    ],
)
def test_losses_that_see_the_voxels_alike_pass_over_them_once(
    options: tuple[dict, dict], passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Tensor] = []

    def counting(*args: Tensor, **kwargs: object) -> ops.VoxelScan:
        calls.append(args[0])
        return ops.voxel_scan(*args, **kwargs)

    monkeypatch.setattr(voxel_loss, "voxel_scan", counting)
    dice, entropy = DiceLoss(**options[0]), CrossEntropyLoss(**options[1])

    WeightedSum({"dice": (1.0, dice), "ce": (1.0, entropy)})(LOGITS, LABELS)

    assert len(calls) == passes


def test_functions_and_modules_of_any_kind_may_be_summed() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(3.0))

        def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
            return self.scale * input.mean()

    loss = WeightedSum({"own": (2.0, Scaled()), "dice": (1.0, dice_loss)})

    loss(LOGITS, LABELS).backward()

    assert [name for name, _ in loss.named_parameters()] == ["losses.own.scale"]
    assert_close(loss.get_parameter("losses.own.scale").grad, 2 * LOGITS.mean())
    assert_close(loss(LOGITS, LABELS), 6 * LOGITS.mean() + dice_loss(LOGITS, LABELS))


def test_mask_reaches_every_loss() -> None:
    seen: list[Tensor] = []

    def masked(input: Tensor, target: Tensor, *, mask: Tensor) -> Tensor:
        seen.append(mask)
        return input.mean()

    loss = WeightedSum({"own": (1.0, masked), "dice": (1.0, DiceLoss())})

    terms = loss.terms(LOGITS, LABELS, mask=MASK)

    assert seen[0] is MASK
    assert_close(terms["dice"], dice_loss(LOGITS, LABELS, mask=MASK))


def test_a_sum_may_hold_a_sum() -> None:
    inner = WeightedSum({"dice": (1.0, DiceLoss())})

    outer = WeightedSum({"inner": (2.0, inner)})

    assert_close(outer(LOGITS, LABELS, mask=MASK), 2 * dice_loss(LOGITS, LABELS, mask=MASK))


def test_class_weights_move_with_the_sum() -> None:
    loss = WeightedSum({"dice": (1.0, DiceLoss(class_weight=(1.0, 2.0, 3.0)))})

    assert [name for name, _ in loss.named_buffers()] == ["losses.dice.class_weight"]
    assert not loss.state_dict()


def test_what_cannot_be_summed_is_refused() -> None:
    with refuses("losses"):
        WeightedSum({})
    with refuses(r"losses\['dice'\]|losses"):
        WeightedSum({"dice": (1.0, "dice")})
    with refuses("losses"):
        WeightedSum([(1.0, DiceLoss())])
    with refuses("losses"):
        UncertaintyWeighting([DiceLoss()])
    with refuses("losses"):
        WeightedSum({"dice.a": (1.0, DiceLoss())})
    with refuses(r"the weight of losses\['dice'\]"):
        WeightedSum({"dice": (float("nan"), DiceLoss())})


def test_totals_of_other_terms_are_refused() -> None:
    loss = WeightedSum({"dice": (1.0, DiceLoss(reduction="none")), "ce": (1.0, CrossEntropyLoss())})

    with refuses(r"terms\['dice'\]"):
        loss(LOGITS, LABELS)
    with refuses("terms"):
        loss.total({"dice": torch.tensor(1.0)})
    with refuses("terms"):
        loss.total({"dice": torch.tensor(1.0), "ce": torch.tensor(1.0), "x": torch.tensor(1.0)})


def test_repr_shows_weights_and_losses() -> None:
    text = repr(WeightedSum({"dice": (0.5, DiceLoss()), "own": (1.0, dice_loss)}))

    assert "'dice': 0.5" in text
    assert "DiceLoss(activation='softmax'" in text
    assert "own=<function dice_loss" in text


def test_a_loss_without_its_weight_is_named() -> None:
    with pytest.raises(TypeError, match="losses"):
        WeightedSum({"dice": DiceLoss()})
