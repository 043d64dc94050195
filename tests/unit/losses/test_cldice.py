"""clDice against medicai's numbers, MONAI, and loops over voxels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medkit.losses import ClDiceLoss, WeightedSum, cldice_loss
from medkit.ops import soft_skeletonize
from medkit.testing import assert_close
from unit.losses import oracle
from unit.losses.scenes import Case, cases, scene
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


OPTIONS = {
    "class_weight": (None, [1.0, 2.0, 0.5]),
    "absent": ("ratio", "penalize", "skip"),
    "batch": (False, True),
    "smooth": (1.0, 0.5, 0.0),
    "reduction": ("mean", "sum", "none"),
    "iterations": (2, 0),
}


@pytest.mark.parametrize("case", cases(OPTIONS), ids=str)
def test_equals_loops_over_voxels(case: Case) -> None:
    drawn = scene(case, (3, 4, 4))

    actual = cldice_loss(
        drawn.input,
        drawn.target,
        mask=drawn.mask,
        ignore_index=drawn.ignore_index,
        **drawn.options,
    )

    expected = _by_loops(drawn.input.numpy(), drawn.truth, drawn.weight, **drawn.options)
    assert_close(actual, expected)


def _by_loops(input, truth, weight, *, activation, smooth, iterations, **options):
    p = oracle.activated(input, activation)
    sums = np.zeros((*p.shape[:2], 4))
    for b, c in np.ndindex(p.shape[:2]):
        inside, t, q = weight[b] > 0, truth[b, c], p[b, c]
        s_q = skeleton_oracle.skeleton(q, iterations, None, inside)[0]
        s_t = skeleton_oracle.skeleton(t, iterations, None, inside)[0]
        sums[b, c] = [(weight[b] * v).sum() for v in (s_q * t, s_q, s_t * q, s_t)]

    def value(members: list[int], c: int) -> float:
        on_target, of_predicted, on_prediction, of_target = sums[members, c].sum(0) + smooth
        precision = on_target / of_predicted if of_predicted else 1.0
        recall = on_prediction / of_target if of_target else 1.0
        both = precision + recall
        return 1 - 2 * precision * recall / both if both else 1.0

    return oracle.over_classes(value, p, truth, weight, **options)


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
