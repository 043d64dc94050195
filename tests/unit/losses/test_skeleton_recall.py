"""Skeleton recall against loops over voxels, and the paper's recipe by scikit-image."""

import numpy as np
import pytest
import torch

from medkit.losses import SkeletonRecallLoss, skeleton_recall_loss
from medkit.ops import soft_skeletonize
from medkit.testing import assert_close
from unit.losses import oracle
from unit.losses.scenes import Case, cases, scene
from unit.ops import skeleton_oracle

NEIGHBOURS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))


def _thicker(skeleton: np.ndarray, inside: np.ndarray) -> np.ndarray:
    result = skeleton.copy()
    for v in np.argwhere(skeleton):
        for step in NEIGHBOURS:
            u = tuple(v + step)
            if all(0 <= i < n for i, n in zip(u, skeleton.shape, strict=True)):
                result[u] = max(result[u], skeleton[tuple(v)])
    return result * inside


OPTIONS = {
    "class_weight": (None, [1.0, 2.0, 0.5]),
    "absent": ("ratio", "penalize", "skip"),
    "batch": (False, True),
    "smooth": (1.0, 0.5, 0.0),
    "reduction": ("mean", "sum", "none"),
    "iterations": (1, 0),
    "tube_radius": (0, 1, 2),
}


@pytest.mark.parametrize("case", cases(OPTIONS), ids=str)
def test_equals_loops_over_voxels(case: Case) -> None:
    drawn = scene(case, (3, 4, 4))

    actual = skeleton_recall_loss(
        drawn.input,
        drawn.target,
        mask=drawn.mask,
        ignore_index=drawn.ignore_index,
        **drawn.options,
    )

    expected = _by_loops(drawn.input.numpy(), drawn.truth, drawn.weight, **drawn.options)
    assert_close(actual, expected)


def _by_loops(input, truth, weight, *, activation, smooth, iterations, tube_radius, **options):
    p = oracle.activated(input, activation)
    sums = np.zeros((*p.shape[:2], 2))
    for b, c in np.ndindex(p.shape[:2]):
        inside = weight[b] > 0
        tube = skeleton_oracle.skeleton(truth[b, c], iterations, None, inside)[0]
        for _ in range(tube_radius):
            tube = _thicker(tube, inside)
        tube = np.minimum(tube, truth[b, c])
        sums[b, c] = (weight[b] * tube * p[b, c]).sum(), (weight[b] * tube).sum()

    def value(members: list[int], c: int) -> float:
        found, whole = sums[members, c].sum(0) + smooth
        return 1 - found / whole if whole else 0.0

    return oracle.over_classes(value, p, truth, weight, **options)


def test_tubes_of_a_thinned_label_are_those_of_scikit_image() -> None:
    morphology = pytest.importorskip("skimage.morphology")
    label = np.zeros((12, 14, 16), bool)
    label[4:9, 5:10, 2:14] = True
    label[5:8, 6:8, :] = True
    thin = morphology.skeletonize(label)
    tube = morphology.dilation(morphology.dilation(thin)) & label
    p = np.random.default_rng(0).random(label.shape)
    expected = 1 - ((p * tube).sum() + 1) / (tube.sum() + 1)

    found = skeleton_recall_loss(
        torch.from_numpy(p)[None, None],
        torch.from_numpy(label)[None, None].long(),
        target_skeleton=torch.from_numpy(thin)[None, None],
        activation=None,
    )

    assert_close(found, expected)


def test_boolean_and_floating_point_skeletons_give_one_value() -> None:
    logits, labels = torch.randn(2, 3, 7, 6, 8), torch.randint(0, 3, (2, 7, 6, 8))
    mask = torch.rand(2, 7, 6, 8) < 0.8
    target = torch.stack([labels == c for c in range(3)], 1)
    skeleton = soft_skeletonize(target, mask=mask)

    expected = skeleton_recall_loss(logits, labels, mask=mask)

    for given in (skeleton, skeleton.float()):
        assert_close(
            SkeletonRecallLoss()(logits, labels, mask=mask, target_skeleton=given), expected
        )
    assert_close(skeleton_recall_loss(logits, target.float(), mask=mask), expected)


def test_soft_targets_keep_the_tube_below_the_target() -> None:
    target = torch.rand(1, 1, 8, 8)

    best = skeleton_recall_loss(torch.ones_like(target), target, activation=None, smooth=0.0)
    itself = skeleton_recall_loss(target, target, activation=None, smooth=0.0)

    assert_close(best, 0.0)
    assert 0 < itself < 1


def test_a_gap_in_a_vessel_costs_its_share_of_the_tube() -> None:
    target = torch.zeros(1, 1, 5, 5, 10, dtype=torch.int64)
    target[..., 2, 2, :] = 1
    prediction = target.float()
    prediction[..., 2, 2, 3:5] = 0

    assert_close(skeleton_recall_loss(prediction, target, activation=None, smooth=0.0), 0.2)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="tube_radius must be at least 0"):
        SkeletonRecallLoss(tube_radius=-1)
    with pytest.raises(ValueError, match="smooth must be zero or positive"):
        SkeletonRecallLoss(smooth=-1.0)
