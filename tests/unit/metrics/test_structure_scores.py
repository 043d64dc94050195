"""clDice, variation of information, competition score: numbers of scikit-image and SciPy."""

import itertools
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage

from medkit.metrics import (
    BettiZeroError,
    ClDiceScore,
    EulerNumberError,
    SurfaceDetectionScore,
    VariationOfInformation,
    average_surface_distance,
    betti_zero_error,
    cldice_score,
    dice_score,
    euler_number_error,
    hausdorff_distance,
    surface_detection_score,
    surface_dice,
    variation_of_information,
)
from unit.losses.refusals import refuses


def sheets(seed: int, shape: tuple[int, ...] = (14, 16, 12)) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks of thin structures that differ."""
    generator = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(
        generator.standard_normal((2, *shape)), (0, *[1.5] * len(shape))
    )
    fields[1] += fields[0]
    return tuple(abs(field) < 0.04 for field in fields)


def batch(*masks: np.ndarray) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(mask)[None, None] for mask in masks)


def entropies(p: np.ndarray, t: np.ndarray) -> float:
    """The definition, pair of parts by pair of parts."""
    everywhere = np.ones((3,) * p.ndim)
    a, b = (ndimage.label(each, everywhere)[0][p | t] for each in (p, t))
    total = 0.0
    for i, j in itertools.product(np.unique(a), np.unique(b)):
        joint = np.mean((a == i) & (b == j))
        if joint:
            total -= joint * (
                math.log2(joint / np.mean(a == i)) + math.log2(joint / np.mean(b == j))
            )
    return total


@pytest.mark.parametrize("shape", [(14, 16, 12), (30, 40)])
@pytest.mark.parametrize("seed", [0, 1])
def test_variation_is_scikit_image_s(shape, seed) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    measure = pytest.importorskip("skimage.measure")
    p, t = sheets(seed, shape)
    a, b = (measure.label(each, connectivity=each.ndim)[p | t] for each in (p, t))

    ours = variation_of_information(*batch(p, t)).values.item()

    assert ours == pytest.approx(sum(metrics.variation_of_information(a, b)), abs=1e-12)
    assert ours == pytest.approx(entropies(p, t), abs=1e-12)
    assert ours > 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(14, 16, 12), (30, 40)])
def test_parts_are_those_that_scikit_image_counts(shape, seed) -> None:
    measure = pytest.importorskip("skimage.measure")
    p, t = sheets(seed, shape)
    counts = [measure.label(each, connectivity=each.ndim).max() for each in (p, t)]

    ours = betti_zero_error(*batch(p, t))

    assert ours.values.item() == abs(counts[0] - counts[1])
    assert ours.perfect == 0.0


def test_no_image_has_more_parts_than_the_worst_value() -> None:
    nothing = torch.zeros(1, 1, 5, 4, 3, dtype=torch.bool)
    grid = nothing.clone()
    grid[..., ::2, ::2, ::2] = True

    missed = betti_zero_error(nothing, grid)

    assert missed.values.item() == 3 * 2 * 2
    one = nothing.clone()
    one[..., 0, 0, 0] = True
    assert betti_zero_error(one, grid).values.item() == 3 * 2 * 2 - 1


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(9, 7, 8), (20, 15), (1, 5, 6), (2, 2, 2)])
def test_euler_numbers_are_scikit_image_s(shape, share) -> None:
    measure = pytest.importorskip("skimage.measure")
    generator = np.random.default_rng(0)
    p, t = (generator.random(shape) < chance for chance in (share, 0.5))
    numbers = [measure.euler_number(each, connectivity=each.ndim) for each in (p, t)]

    assert euler_number_error(*batch(p, t)).values.item() == abs(numbers[0] - numbers[1])


def test_euler_numbers_of_solids_are_known() -> None:
    ball = np.zeros((3, 9, 9, 9), dtype=bool)
    ball[:, 1:8, 1:8, 1:8] = True
    ball[1, 3:6, 3:6, 3:6] = False  # a cavity
    ball[2, :, 3:6, 3:6] = False  # a tunnel
    solid, shell, ring = (batch(each)[0] for each in ball)

    assert euler_number_error(shell, solid).values.item() == 1  # 2 and 1
    assert euler_number_error(ring, solid).values.item() == 1  # 0 and 1
    assert euler_number_error(shell, ring).values.item() == 2


@pytest.mark.parametrize("shape", [(12, 12, 12), (20, 20)])
def test_no_euler_numbers_differ_by_more_than_the_worst_value(shape) -> None:
    """Cavities in every second voxel, and voxels that touch their neighbours by corners alone."""
    places = np.indices(shape)
    parity = places % 2
    cavities = places.sum(0) % 2 == 0 if len(shape) == 3 else (parity == 0).all(0)
    tunnels = (parity == parity[0]).all(0)
    nothing = np.zeros(shape, dtype=bool)

    worst = euler_number_error(*batch(nothing, tunnels)).values.item()

    largest = euler_number_error(*batch(cavities, tunnels)).values.item()
    assert worst / 2 < largest < worst


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(14, 16, 12), (30, 40)])
def test_cldice_is_that_of_scikit_image_s_skeletons(shape, seed) -> None:
    morphology = pytest.importorskip("skimage.morphology")
    p, t = sheets(seed, shape)
    line_p, line_t = (morphology.skeletonize(np.pad(e, 1)) > 0 for e in (p, t))
    precision = (line_p & np.pad(t, 1)).sum() / line_p.sum()
    sensitivity = (line_t & np.pad(p, 1)).sum() / line_t.sum()

    ours = cldice_score(*batch(p, t)).values.item()

    assert ours == pytest.approx(2 * precision * sensitivity / (precision + sensitivity))
    assert 0 < ours < 1


def test_a_gap_costs_more_than_a_thick_wall() -> None:
    truth = torch.zeros(1, 1, 9, 60, dtype=torch.bool)
    truth[..., 4, :] = True
    thick, gap = truth.clone(), truth.clone()
    thick[..., 3:6, :] = True
    gap[..., 20:40] = False

    assert cldice_score(thick, truth).mean() > 0.98
    assert cldice_score(gap, truth).mean() == pytest.approx(2 * (2 / 3) / (1 + 2 / 3))


@pytest.mark.parametrize(
    ("function", "accumulator", "worst"),
    [
        (cldice_score, ClDiceScore, 0.0),
        (variation_of_information, VariationOfInformation, 8.0),
        (betti_zero_error, BettiZeroError, 64.0),
        (euler_number_error, EulerNumberError, 0.75 * 17 * 17),
    ],
)
def test_statuses_and_accumulation(function, accumulator, worst) -> None:
    target = torch.zeros(4, 16, 16, dtype=torch.long)
    target[0, 3:5, 2:12], target[1, 4:6], target[3, 7, 2:9] = 1, 1, 1
    prediction = target.clone()
    prediction[0, :, 5] = 0
    prediction[1], prediction[2, 2:4, 2:8] = 0, 1
    options = {"include_background": False}

    scores = function(prediction, target, num_classes=2, **options)
    parts = [accumulator(2, **options) for _ in range(2)]
    parts[0].update(prediction[:1], target[:1])
    parts[1].update(prediction[1:], target[1:])
    parts[0].merge(pickle.loads(pickle.dumps(parts[1])))

    assert scores.status[:, 0].tolist() == [0, 2, 3, 0]
    assert scores.values[1:3, 0].tolist() == [worst, worst]
    assert scores.values[3, 0].item() == scores.perfect
    assert torch.equal(parts[0].compute().values, scores.values)
    assert parts[0].compute().perfect == scores.perfect


def test_ignored_voxels_are_no_structure() -> None:
    p, t = batch(*sheets(3))
    target = t[:, 0].long()
    target[:, 5:8] = 2
    known = target != 2

    ours = variation_of_information(
        p[:, 0].long(), target, num_classes=2, ignore_index=2, include_background=False
    )

    expected = variation_of_information(p & known.unsqueeze(1), t & known.unsqueeze(1))
    assert torch.equal(ours.values, expected.values)


def test_competition_score_is_made_of_its_terms() -> None:
    p, t = sheets(1)
    target = torch.from_numpy(t.astype(np.int64))[None]
    target[:, :3] = 2
    known = target[0].numpy() != 2
    prediction = torch.from_numpy(p.astype(np.uint8))[None]

    ours = surface_detection_score(prediction, target, topology=lambda *_: 0.5)

    dice = surface_dice(*batch(p & known, t & known), tolerance=2.0).values.item()
    variation = 1 / (1 + 0.3 * entropies(p & known, t & known))
    assert ours.surface_dice.item() == dice
    assert ours.variation.item() == pytest.approx(variation)
    assert ours.score.item() == pytest.approx(0.15 + 0.35 * dice + 0.35 * variation)
    assert "absent" not in ours.policy


def test_competition_score_says_that_topology_is_absent() -> None:
    empty = torch.zeros(2, 6, 6, 6, dtype=torch.long)
    one = empty.clone()
    one[1, 3] = 1

    ours = surface_detection_score(one, empty)

    assert ours.score.tolist() == [1.0, 0.0]
    assert ours.status.tolist() == [1, 3]
    assert ours.mean() == 0.5
    assert ours.topology.isnan().all()
    assert "not the score of the competition" in ours.policy
    with refuses("topology"):
        surface_detection_score(one, empty, topology=lambda *_: 2.0)
    with pytest.raises((ValueError, TypeError), match=r"prediction|target"):
        surface_detection_score(one[:1], empty)


def test_competition_score_of_batches_is_that_of_all_cases() -> None:
    pairs = [batch(*sheets(seed)) for seed in range(4)]
    prediction, target = (torch.cat(each)[:, 0].long() for each in zip(*pairs, strict=True))
    prediction[2] = 0
    parts = [SurfaceDetectionScore(tolerance=1.0, topology=one_part) for _ in range(2)]
    parts[0].update(prediction[:1], target[:1])
    parts[1].update(prediction[1:], target[1:])
    parts[0].merge(pickle.loads(pickle.dumps(parts[1])))

    ours = parts[0].compute()

    whole = surface_detection_score(prediction, target, tolerance=1.0, topology=one_part)
    assert all(torch.equal(a, b) for a, b in zip(ours[:-1], whole[:-1], strict=True))
    assert ours.status.tolist() == [0, 0, 2, 0]
    assert ours.score[2].item() == pytest.approx(0.3)  # of the hook alone
    assert ours.mean() == pytest.approx(whole.score.mean().item())
    parts[0].reset()
    with refuses("SurfaceDetectionScore"):
        parts[0].compute()
    with refuses("other"):
        parts[0].merge(SurfaceDetectionScore())
    with pytest.raises((TypeError, ValueError), match="other"):
        parts[0].merge("score")


def one_part(prediction: np.ndarray, target: np.ndarray) -> float:
    """A topology term that can be sent to another process."""
    assert prediction.dtype == target.dtype == bool
    return 1.0


SCORES = (
    average_surface_distance,
    betti_zero_error,
    cldice_score,
    dice_score,
    euler_number_error,
    hausdorff_distance,
    partial(surface_dice, tolerance=1.0),
    variation_of_information,
)


@pytest.mark.parametrize("score", SCORES)
def test_no_case_has_no_score(score) -> None:
    masks = torch.zeros(0, 2, 4, 5, dtype=torch.bool)
    maps = torch.zeros(0, 4, 5, dtype=torch.int64)
    for scores in (score(masks, masks), score(maps, maps, num_classes=2)):
        assert tuple(scores.values.shape) == (0, 2)
        assert math.isnan(scores.mean())


@pytest.mark.parametrize("score", SCORES)
def test_what_is_no_segmentation_is_refused_by_its_type(score) -> None:
    masks = torch.zeros(1, 2, 4, 5, 6, dtype=torch.bool)
    with pytest.raises(TypeError, match="prediction must be a class map of integers or boolean"):
        score(masks.float(), masks)
    with pytest.raises(TypeError, match="both be class maps or both be boolean masks"):
        score(masks, masks.long())
