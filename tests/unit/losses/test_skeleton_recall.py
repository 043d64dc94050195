"""Skeleton recall against loops over voxels, and the paper's recipe by scikit-image."""

import numpy as np
import pytest
import torch

from medkit.losses import SkeletonRecallLoss, skeleton_recall_loss
from medkit.ops import soft_skeletonize
from medkit.testing import assert_close
from unit.ops import skeleton_oracle

NEIGHBOURS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))


def _thicker(skeleton: np.ndarray, inside: np.ndarray) -> np.ndarray:
    result = skeleton.copy()
    for v in np.argwhere(skeleton):
        for step in NEIGHBOURS:
            u = tuple(v + step)
            if all(0 <= i < n for i, n in zip(u, skeleton.shape, strict=True)):
                result[u] = 1
    return result * inside


OPTIONS = (
    {},
    {"tube_radius": 0, "activation": "sigmoid", "absent": "penalize"},
    {"tube_radius": 1, "include_background": False, "class_weight": [1.0, 2.0, 0.5]},
    {"batch": True, "absent": "skip", "smooth": 0.0},
)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_value_equals_loops(options: dict[str, object], masked: bool) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((2, 3, 5, 4, 6)), rng.integers(0, 3, (2, 5, 4, 6))
    labels[0][labels[0] == 2] = 0  # class 2 is absent from the first sample
    weight = rng.integers(0, 3, labels.shape) / 2.0 if masked else np.ones(labels.shape)

    found = skeleton_recall_loss(
        torch.from_numpy(logits),
        torch.from_numpy(labels),
        mask=torch.from_numpy(weight) if masked else None,
        iterations=1,
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
    tube_radius=2,
) -> float:
    e = np.exp(logits)
    p = e / e.sum(1, keepdims=True) if activation == "softmax" else e / (1 + e)
    sums = np.zeros((2, 3, 5))
    for b, c in np.ndindex(2, 3):
        inside, t, w = weight[b] > 0, (labels[b] == c).astype(float), weight[b]
        tube = skeleton_oracle.skeleton(t, 1, None, inside)[0]
        for _ in range(tube_radius):
            tube = _thicker(tube, inside)
        tube *= t
        values = (tube * p[b, c], tube, t, p[b, c], np.ones(t.shape))
        sums[b, c] = [(v * w).sum() for v in values]
    sums = sums.sum(0, keepdims=True) if batch else sums
    total = weights = 0.0
    for row in sums:
        for c in range(0 if include_background else 1, 3):
            found, tube, t, predicted, voxels = row[c]
            if t == 0 and absent == "skip":
                continue
            loss = 1 - (found + smooth) / (tube + smooth)
            if t == 0 and absent == "penalize":
                loss = predicted / voxels
            total += class_weight[c] * loss
            weights += class_weight[c]
    return total / weights


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
