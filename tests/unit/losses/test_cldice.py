"""clDice against medicai's numbers, MONAI, and loops over voxels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medkit.losses import ClDiceLoss, WeightedSum, cldice_loss
from medkit.ops import soft_skeletonize
from medkit.testing import assert_close
from unit.ops import skeleton_oracle

FOLDER = Path(__file__).parents[2] / "golden" / "medicai_losses"
ARRAYS = np.load(FOLDER / "medicai_losses.npz")
MEDICAI_SMOOTH = 1e-7


def _array(name: str) -> Tensor:
    return torch.from_numpy(ARRAYS[name]).movedim(-1, 1)


@pytest.mark.parametrize(("memory_efficient", "skeleton_gradient"), [(True, False), (False, True)])
def test_gradients_are_those_of_medicai(memory_efficient: bool, skeleton_gradient: bool) -> None:
    """Its values are in ``test_medicai``."""
    labels, prob = _array("labels"), _array("prob").clone().requires_grad_()
    valid = labels != 2
    loss = ClDiceLoss(activation=None, smooth=MEDICAI_SMOOTH, skeleton_gradient=skeleton_gradient)

    value = loss(prob[:, 1:2] * valid, ((labels == 1) & valid).float())

    expected = _array(f"cldice_grad_memeff{memory_efficient}")
    assert expected.any()
    assert_close(torch.autograd.grad(value, prob)[0], expected, atol=1e-7)


@pytest.mark.parametrize("shape", [(2, 1, 9, 8, 7), (2, 1, 16, 12)])
def test_value_and_gradient_equal_monai(shape: tuple[int, ...]) -> None:
    peer_loss = pytest.importorskip("monai.losses").SoftclDiceLoss(
        iter_=4, sigmoid=True, smooth=1e-12, reduction="sum"
    )
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    target = (torch.rand(shape) < 0.4).double()

    ours = cldice_loss(logits, target, activation="sigmoid", iterations=4, reduction="sum")
    theirs = peer_loss(logits, target)

    assert_close(ours, theirs.squeeze())
    assert_close(torch.autograd.grad(ours, logits)[0], torch.autograd.grad(theirs, logits)[0])


OPTIONS = (
    {},
    {"activation": "sigmoid", "absent": "penalize", "smooth": 0.5},
    {"include_background": False, "class_weight": [1.0, 2.0, 0.5], "batch": True},
    {"absent": "skip", "batch": True, "reduction": "sum"},
    {"absent": "penalize", "include_background": False, "reduction": "sum"},
    {"activation": "sigmoid", "absent": "skip", "class_weight": [3.0, 1.0, 1.0]},
)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_value_equals_loops(options: dict[str, object], masked: bool) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((2, 3, 5, 4, 6)), rng.integers(0, 3, (2, 5, 4, 6))
    labels[0][labels[0] == 2] = 0  # class 2 is absent from the first sample
    weight = rng.integers(0, 3, labels.shape) / 2.0 if masked else np.ones(labels.shape)

    found = cldice_loss(
        torch.from_numpy(logits),
        torch.from_numpy(labels),
        mask=torch.from_numpy(weight) if masked else None,
        iterations=2,
        **options,
    )

    assert_close(found, _by_loops(logits, labels, weight, **options))


def _by_loops(
    logits,
    labels,
    weight,
    *,
    activation="softmax",
    include_background=True,
    class_weight=(1.0, 1.0, 1.0),
    absent="ratio",
    batch=False,
    smooth=1.0,
    reduction="mean",
) -> float:
    e = np.exp(logits)
    p = e / e.sum(1, keepdims=True) if activation == "softmax" else e / (1 + e)
    sums = np.zeros((2, 3, 7))
    for b, c in np.ndindex(2, 3):
        inside, t, w = weight[b] > 0, (labels[b] == c).astype(float), weight[b]
        s_p = skeleton_oracle.skeleton(p[b, c], 2, None, inside)[0]
        s_t = skeleton_oracle.skeleton(t, 2, None, inside)[0]
        values = (s_p * t, s_p, s_t * p[b, c], s_t, t, p[b, c], np.ones(t.shape))
        sums[b, c] = [(v * w).sum() for v in values]
    sums = sums.sum(0, keepdims=True) if batch else sums
    total = weights = 0.0
    for row in sums:
        for c in range(0 if include_background else 1, 3):
            a, s_p, r, s_t, t, predicted, voxels = row[c]
            if t == 0 and absent == "skip":
                continue
            precision, recall = (a + smooth) / (s_p + smooth), (r + smooth) / (s_t + smooth)
            loss = 1 - 2 * precision * recall / (precision + recall)
            if t == 0 and absent == "penalize":
                loss = predicted / voxels
            total += class_weight[c] * loss
            weights += class_weight[c]
    taking_part = class_weight if include_background else class_weight[1:]
    return total / (weights if reduction == "mean" else np.mean(taking_part))


def test_a_given_target_skeleton_is_used_and_masked() -> None:
    logits, labels = torch.randn(1, 2, 8, 8, 8), torch.randint(0, 2, (1, 8, 8, 8))
    target = torch.stack([labels == 0, labels == 1], 1)
    mask = torch.rand(1, 8, 8, 8) < 0.8
    made = soft_skeletonize(target, mask=mask)

    expected = cldice_loss(logits, labels, mask=mask)

    for skeleton in (made, made.float(), made | ~mask[:, None]):
        found = ClDiceLoss()(logits, labels, mask=mask, target_skeleton=skeleton)
        assert_close(found, expected)
    other = cldice_loss(logits, labels, target_skeleton=target)
    assert not torch.isclose(other, cldice_loss(logits, labels))
    without = cldice_loss(logits, labels, target_skeleton=made, include_background=False)
    alone = cldice_loss(
        logits.softmax(1)[:, 1:],
        labels,
        activation=None,
        target_skeleton=made[:, 1:],
    )
    assert_close(without, alone)


def test_false_branches_train_only_with_the_gradient_of_the_skeleton() -> None:
    target = torch.zeros(1, 1, 9, 9)
    target[..., 4, :] = 1
    branch = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    branch[..., 5:, 4] = True

    def push(skeleton_gradient: bool) -> float:
        logits = (6 * (target + branch.float()) - 3).requires_grad_()
        loss = ClDiceLoss(activation="sigmoid", skeleton_gradient=skeleton_gradient)
        return float(torch.autograd.grad(loss(logits, target), logits)[0][branch].sum())

    assert push(skeleton_gradient=True) > 1e-3
    assert push(skeleton_gradient=False) == 0


def test_saved_bytes_are_an_eighth_of_those_of_monai() -> None:
    peer = pytest.importorskip("monai.losses").SoftclDiceLoss(iter_=10, sigmoid=True)
    logits, target = torch.randn(1, 1, 16, 16, 16), (torch.rand(1, 1, 16, 16, 16) < 0.3).float()

    def saved(loss) -> int:
        storages: dict[int, Tensor] = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss(logits.requires_grad_(), target)
        return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())

    assert saved(ClDiceLoss(activation="sigmoid")) * 8 < saved(peer)


def test_it_adds_up_with_other_losses() -> None:
    logits, labels = torch.randn(1, 2, 6, 6), torch.randint(0, 2, (1, 6, 6))

    total = WeightedSum({"cldice": (2.0, ClDiceLoss())})(logits, labels)

    assert_close(total, 2 * cldice_loss(logits, labels))


def test_no_overlap_without_smoothing_costs_one() -> None:
    prediction, target = torch.zeros(1, 1, 5, 7), torch.zeros(1, 1, 5, 7)
    prediction[..., 0, :], target[..., 4, :] = 1, 1

    assert_close(cldice_loss(prediction, target, activation=None, smooth=0.0), 1.0)
    assert_close(cldice_loss(0 * prediction, 0 * target, activation=None, smooth=0.0), 0.0)


def test_bad_arguments_are_named() -> None:
    logits, labels = torch.randn(1, 2, 6, 6), torch.randint(0, 2, (1, 6, 6))

    with pytest.raises(ValueError, match="iterations must be at least 0"):
        ClDiceLoss(iterations=-1)
    with pytest.raises(ValueError, match="target_skeleton must be of the shape of input"):
        cldice_loss(logits, labels, target_skeleton=torch.zeros(1, 1, 6, 6))
    with pytest.raises(TypeError, match="target_skeleton must be boolean or floating point"):
        cldice_loss(logits, labels, target_skeleton=torch.zeros(1, 2, 6, 6, dtype=torch.int64))
    assert "iterations=3" in repr(ClDiceLoss(iterations=3, class_weight=[1.0, 2.0]))
