"""Cross entropy: what each option does, against loops in NumPy, torch, and hand counts."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medkit.losses import CrossEntropyLoss, cross_entropy_loss
from medkit.testing import assert_close
from unit.losses import oracle
from unit.losses.refusals import refuses
from unit.losses.scenes import Case, cases, scene

OPTIONS = {
    "class_weight": (None, [0.5, 0.1, 2.0]),
    "label_smoothing": (0.0, 0.1),
    "top_k": (None, 0.35, 1.0),
    "reduction": ("mean", "sum", "none"),
}


@pytest.mark.parametrize("case", cases(OPTIONS), ids=str)
def test_equals_loops_over_voxels(case: Case) -> None:
    drawn = scene(case)

    actual = cross_entropy_loss(
        drawn.input,
        drawn.target,
        mask=drawn.mask,
        ignore_index=drawn.ignore_index,
        **drawn.options,
    )

    expected = oracle.cross_entropy(drawn.input.numpy(), drawn.truth, drawn.weight, **drawn.options)
    assert_close(actual, expected)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, (0.5, 1.5, 1.0, 1.0)])
def test_class_maps_give_the_number_of_torch(
    reduction: str, smoothing: float, weight: tuple[float, ...] | None
) -> None:
    """With weights that average one, which is what ours are divided by."""
    logits = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 5, 6))
    labels[0, 0] = -100
    tensor = None if weight is None else torch.tensor(weight, dtype=torch.float64)

    ours = cross_entropy_loss(
        logits,
        labels,
        class_weight=weight,
        ignore_index=-100,
        label_smoothing=smoothing,
        reduction=reduction,
    )

    theirs = F.cross_entropy(
        logits, labels, weight=tensor, label_smoothing=smoothing, reduction=reduction
    )
    assert_close(ours, theirs)


def test_soft_targets_give_the_number_of_torch() -> None:
    logits, target = torch.randn(2, 3, 4, 5).double(), torch.rand(2, 3, 4, 5).double().softmax(1)

    assert_close(cross_entropy_loss(logits, target), F.cross_entropy(logits, target))


def test_weights_of_soft_targets_stay_a_mean() -> None:
    """One-hot targets give what their class map gives; torch divides by the voxels instead."""
    logits, labels = torch.randn(1, 3, 50).double(), torch.randint(0, 3, (1, 50))
    one_hot = F.one_hot(labels, 3).movedim(-1, 1).double()
    weight = torch.tensor([0.1, 2.0, 10.0], dtype=torch.float64)

    ours = cross_entropy_loss(logits, one_hot, class_weight=weight)

    assert_close(ours, F.cross_entropy(logits, labels, weight=weight))
    assert abs(F.cross_entropy(logits, one_hot, weight=weight) / ours - 1) > 0.5


def test_sigmoid_gives_the_binary_number_of_torch() -> None:
    logits, target = torch.randn(2, 3, 4, 5).double(), torch.rand(2, 3, 4, 5).double()

    ours = cross_entropy_loss(logits, target, activation="sigmoid")

    assert_close(ours, F.binary_cross_entropy_with_logits(logits, target))


def test_ignoring_does_not_multiply_by_the_number_of_channels() -> None:
    """As it does in nnU-Net's DC_and_BCE_loss, and for the focal loss in MONAI."""
    logits = torch.randn(1, 6, 40)
    labels = torch.randint(0, 6, (1, 40))

    plain = cross_entropy_loss(logits, labels, activation="sigmoid")

    assert_close(cross_entropy_loss(logits, labels, activation="sigmoid", ignore_index=255), plain)


def test_top_k_takes_its_share_of_the_voxels_that_count() -> None:
    """Of eight voxels four count, so half of them are two."""
    losses = torch.tensor([4.0, 3.0, 2.0, 1.0])
    logits = torch.zeros(1, 1, 8)
    logits[0, 0, ::2] = torch.log(torch.expm1(losses))  # softplus of this is the loss
    labels = torch.tensor([[0, 255] * 4])

    loss = cross_entropy_loss(logits, labels, activation="sigmoid", ignore_index=255, top_k=0.5)

    assert_close(loss, (4 + 3) / 2)


def test_top_k_shares_the_last_places_among_ties() -> None:
    logits = torch.zeros(1, 2, 10, requires_grad=True)

    loss = cross_entropy_loss(logits, torch.zeros(1, 10, dtype=torch.long), top_k=0.3)
    loss.backward()

    assert_close(loss.detach(), math.log(2))
    assert_close(logits.grad[0, 0], torch.full((10,), -0.05))


@pytest.mark.parametrize(("share", "voxels"), [(0.07, 7), (0.29, 29), (0.999, 99), (1e-4, 1)])
def test_top_k_counts_exactly(share: float, voxels: int) -> None:
    """0.07 * 100 is 7.000000000000001 and 0.29 * 100 is 28.999999999999996 in floating point."""
    logits = torch.randn(1, 2, 100)

    terms = cross_entropy_loss(
        logits, torch.zeros(1, 100, dtype=torch.long), top_k=share, reduction="none"
    )

    assert int((terms > 0).sum()) == voxels


def test_without_background_only_foreground_voxels_count() -> None:
    logits, labels = torch.randn(1, 3, 30), torch.randint(0, 3, (1, 30))

    loss = cross_entropy_loss(logits, labels, include_background=False)

    foreground = labels[0] > 0
    expected = F.cross_entropy(logits[0, :, foreground].T, labels[0][foreground])
    assert_close(loss, expected)


def test_no_voxel_left_costs_nothing_and_moves_nothing() -> None:
    for options in ({"ignore_index": 1}, {"include_background": False, "ignore_index": 1}):
        logits = torch.randn(2, 3, 4, requires_grad=True)

        loss = cross_entropy_loss(logits, torch.ones(2, 4, dtype=torch.long), **options)
        loss.backward()

        assert loss.item() == 0
        assert not logits.grad.any()


def test_none_returns_voxels() -> None:
    logits, labels = torch.randn(2, 3, 4, 5, 6), torch.randint(0, 3, (2, 1, 4, 5, 6))

    assert cross_entropy_loss(logits, labels, reduction="none").shape == (2, 4, 5, 6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_confident_mistake_costs_its_logit(activation: str) -> None:
    """Where the probability rounds to zero, in float32 from logits of about 100."""
    logits = torch.tensor([[[0.0], [1e4]]], requires_grad=True)

    loss = cross_entropy_loss(logits, torch.tensor([[0]]), activation=activation, reduction="sum")
    loss.backward()

    assert_close(loss.detach(), 1e4 if activation == "softmax" else (1e4 + math.log(2)) / 2)
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_sum_over_a_million_voxels_fits(dtype: torch.dtype) -> None:
    """1.2 million; float16 ends at 65504."""
    logits = torch.randn(1, 2, 96, 96, 96).to(dtype)
    labels = torch.randint(0, 2, (1, 96, 96, 96))

    loss = cross_entropy_loss(logits, labels, reduction="sum")

    assert_close(loss, F.cross_entropy(logits.double(), labels, reduction="sum").float())


def test_class_stores_what_the_function_takes() -> None:
    options = {"class_weight": torch.tensor([1.0, 3.0]), "label_smoothing": 0.1, "top_k": 0.5}
    logits, labels = torch.randn(2, 2, 9), torch.randint(0, 2, (2, 9))

    loss = CrossEntropyLoss(**options)

    assert torch.equal(loss(logits, labels), cross_entropy_loss(logits, labels, **options))
    assert "top_k=0.5" in repr(loss)
    assert not loss.state_dict()


@pytest.mark.parametrize(
    ("option", "value"),
    [("label_smoothing", 1.5), ("top_k", 0.0), ("top_k", 1.5), ("reduction", "avg")],
)
def test_wrong_options_are_named(option: str, value: object) -> None:
    logits, labels = torch.randn(1, 2, 4), torch.zeros(1, 4, dtype=torch.long)

    with refuses(option):
        cross_entropy_loss(logits, labels, **{option: value})
    with refuses(option):
        CrossEntropyLoss(**{option: value})


def test_no_voxel_at_all_costs_nothing() -> None:
    logits = torch.zeros(2, 3, 0, 4)
    labels = torch.zeros(2, 0, 4, dtype=torch.long)

    assert cross_entropy_loss(logits, labels, top_k=0.5).item() == 0
    assert np.isfinite(cross_entropy_loss(logits, labels).item())


@pytest.mark.parametrize("voxels_of_a_structure", [0, 1])
def test_smoothing_gives_a_dropped_background_no_part(voxels_of_a_structure: int) -> None:
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target.view(-1)[:voxels_of_a_structure] = 2

    value = cross_entropy_loss(logits, target, include_background=False, label_smoothing=0.1)
    value.backward()

    alone = cross_entropy_loss(
        logits.detach(), target, ignore_index=0, class_weight=[0.0, 1.0, 1.0], label_smoothing=0.1
    )
    assert_close(value, alone)
    assert float(value.detach()) < 10
    assert not logits.grad[:, :, target[0] == 0].any()
