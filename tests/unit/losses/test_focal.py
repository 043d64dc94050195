"""Focal loss: what each option does, against loops in NumPy, MONAI, kornia and torchvision."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import _torchvision_shim
from medkit.losses import DiceLoss, FocalLoss, WeightedSum, cross_entropy_loss, focal_loss
from medkit.testing import assert_close
from unit.losses import oracle
from unit.losses.refusals import refuses
from unit.losses.scenes import Case, cases, scene

OPTIONS = {
    "class_weight": (None, [0.5, 0.1, 2.0]),
    "gamma": (2.0, 0.0, 0.5, 1.0, 3.5),
    "alpha": (None, 0.25, [0.3, 0.9, 0.6]),
    "reduction": ("mean", "sum", "none"),
}


@pytest.mark.parametrize("case", cases(OPTIONS), ids=str)
def test_equals_loops_over_voxels(case: Case) -> None:
    drawn = scene(case)

    actual = focal_loss(
        drawn.input,
        drawn.target,
        mask=drawn.mask,
        ignore_index=drawn.ignore_index,
        **drawn.options,
    )

    expected = oracle.focal(drawn.input.numpy(), drawn.truth, drawn.weight, **drawn.options)
    assert_close(actual, expected)


def scenes(channels: int) -> tuple[Tensor, Tensor]:
    return torch.randn(2, channels, 5, 6, 7), torch.randint(0, max(2, channels), (2, 1, 5, 6, 7))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("channels", [1, 4])
def test_sigmoid_equals_monai(gamma: float, alpha: float | None, channels: int) -> None:
    """It computes in float32 whatever comes in."""
    monai = pytest.importorskip("monai.losses")
    logits, labels = scenes(channels)
    theirs = monai.FocalLoss(to_onehot_y=channels > 1, gamma=gamma, alpha=alpha)
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()

    ours = focal_loss(x, labels, activation="sigmoid", gamma=gamma, alpha=alpha)
    expected = theirs(y, labels)
    ours.backward()
    expected.backward()

    assert_close(ours, expected, rtol=2e-6)
    assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("alpha", [None, 0.25, [0.1, 0.2, 0.3, 0.4]])
def test_softmax_is_that_of_monai_times_the_channels(alpha: float | list[float] | None) -> None:
    monai = pytest.importorskip("monai.losses")
    logits, labels = scenes(4)
    theirs = monai.FocalLoss(to_onehot_y=True, use_softmax=True, alpha=alpha)
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()

    ours = focal_loss(x, labels, alpha=alpha)
    expected = 4 * theirs(y, labels)
    ours.backward()
    expected.backward()

    assert_close(ours, expected, rtol=2e-6)
    assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_softmax_is_that_of_kornia_times_the_channels(alpha: float | None) -> None:
    losses = pytest.importorskip("kornia.losses")
    logits, labels = torch.randn(2, 3, 6, 7).double(), torch.randint(0, 3, (2, 6, 7))

    ours = focal_loss(logits, labels, alpha=alpha)

    theirs = losses.focal_loss(logits, labels, alpha=alpha, gamma=2.0, reduction="mean")
    assert_close(ours, 3 * theirs)


def test_sigmoid_equals_torchvision() -> None:
    _torchvision_shim.install()
    sigmoid_focal_loss = pytest.importorskip("torchvision.ops").sigmoid_focal_loss
    logits, target = torch.randn(2, 3, 6, 7).double(), (torch.rand(2, 3, 6, 7) < 0.3).double()

    ours = focal_loss(logits, target, activation="sigmoid", alpha=0.25)

    assert_close(ours, sigmoid_focal_loss(logits, target, reduction="mean"))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_without_exponent_it_is_the_cross_entropy(
    activation: str, include_background: bool, reduction: str
) -> None:
    logits, labels = torch.randn(2, 3, 4, 5).double(), torch.randint(0, 3, (2, 4, 5))
    options = {
        "activation": activation,
        "include_background": include_background,
        "class_weight": (1.0, 2.0, 3.0),
        "reduction": reduction,
    }

    plain = cross_entropy_loss(logits, labels, **options)

    assert_close(focal_loss(logits, labels, gamma=0.0, **options), plain)


def test_alpha_weighs_a_structure_against_the_rest() -> None:
    logits, target = torch.zeros(1, 1, 2), torch.tensor([[1, 0]])

    terms = focal_loss(logits, target, activation="sigmoid", alpha=0.2, reduction="none")

    easy = 0.25 * math.log(2)
    assert_close(terms, torch.tensor([[0.2 * easy, 0.8 * easy]]))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_certainty_costs_nothing_and_has_a_finite_gradient(
    activation: str | None, gamma: float
) -> None:
    """The slope of a root is infinite at zero."""
    labels = torch.randint(0, 3, (2, 6, 6))
    one_hot = F.one_hot(labels, 3).movedim(-1, 1).float()
    for target in (labels, one_hot):
        x = (one_hot if activation is None else 400 * one_hot - 200).clone().requires_grad_()

        loss = focal_loss(x, target, activation=activation, gamma=gamma)
        loss.backward()

        assert loss.item() == pytest.approx(0, abs=1e-20)
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("target", ["map", "channels"])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_first_and_second_gradients_are_exact(activation: str, target: str, gamma: float) -> None:
    logits = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    values = torch.randint(0, 3, (1, 4)) if target == "map" else torch.rand(1, 3, 4).double()

    def loss(x: Tensor) -> Tensor:
        return focal_loss(x, values, activation=activation, gamma=gamma, alpha=0.3)

    assert torch.autograd.gradcheck(loss, logits)
    assert torch.autograd.gradgradcheck(loss, logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_half_precision_of_a_million_voxels_is_that_of_float64(
    dtype: torch.dtype, activation: str
) -> None:
    logits = torch.randn(1, 2, 96, 96, 96).to(dtype)
    labels = (torch.rand(1, 96, 96, 96) < 0.1).long()
    half, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()

    loss = focal_loss(half, labels, activation=activation)
    expected = focal_loss(exact, labels, activation=activation)
    (loss * 2**16).backward()  # as a GradScaler does: a gradient of 1e-7 is no number in float16
    (expected * 2**16).backward()

    assert_close(loss, expected.float())
    assert_close(half.grad, exact.grad)


def test_shares_the_pass_of_a_dice_loss_in_a_sum() -> None:
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    for activation in ("softmax", "sigmoid"):
        dice = DiceLoss(activation=activation)
        focal = FocalLoss(activation=activation, alpha=(0.1, 0.6, 0.7), class_weight=(1, 2, 3))

        terms = WeightedSum({"dice": (1.0, dice), "focal": (1.0, focal)}).terms(logits, labels)

        assert torch.equal(terms["focal"], focal(logits, labels))
        assert torch.equal(terms["dice"], dice(logits, labels))


def saved_bytes(loss: FocalLoss, logits: Tensor, target: Tensor) -> int:
    """Return the bytes kept for the backward pass beside logits and target."""
    given = {each.untyped_storage().data_ptr() for each in (logits, target)}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(logits, target)
    return sum(kept.values())


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("channels", [2, 8])
def test_keeps_two_numbers_per_voxel_at_most(activation: str, channels: int) -> None:
    """MONAI keeps eight per voxel and channel."""
    logits = torch.randn(1, channels, 20, 20, 20, requires_grad=True)
    labels = torch.randint(0, channels, (1, 20, 20, 20))

    kept = saved_bytes(FocalLoss(activation=activation, alpha=0.25), logits, labels)

    assert kept <= 8 * 20**3 + 1024


def test_class_stores_what_the_function_takes() -> None:
    options = {"class_weight": (1.0, 3.0), "gamma": 1.5, "alpha": (0.2, 0.7)}
    logits, labels = torch.randn(2, 2, 9), torch.randint(0, 2, (2, 9))

    loss = FocalLoss(**options)

    assert torch.equal(loss(logits, labels), focal_loss(logits, labels, **options))
    assert "gamma=1.5" in repr(loss)
    assert "alpha=(0.2" in repr(loss)
    assert not loss.state_dict()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("gamma", -1.0),
        ("alpha", 1.5),
        ("alpha", (0.1, 0.2, 0.3)),
        ("alpha", (0.1, 1.2)),
        ("reduction", "avg"),
    ],
)
def test_wrong_options_are_named(option: str, value: object) -> None:
    logits, labels = torch.randn(1, 2, 4), torch.zeros(1, 4, dtype=torch.long)

    with refuses(option):
        focal_loss(logits, labels, **{option: value})
    with refuses(option):
        FocalLoss(**{option: value})(logits, labels)
