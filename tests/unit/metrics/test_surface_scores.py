"""Surface distances: MONAI's numbers in its definitions, plain loops in the others."""

import itertools
import math
import pickle

import numpy as np
import pytest
import torch

from medkit.metrics import (
    AverageSurfaceDistance,
    HausdorffDistance,
    Scores,
    SurfaceDice,
    average_surface_distance,
    hausdorff_distance,
    surface_dice,
)
from medkit.metrics._surface_elements import cube_codes, element_sizes
from medkit.testing import assert_close
from unit.losses.refusals import refuses

Array = np.ndarray


def blobs(shape: tuple[int, ...], seed: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Two class maps of smooth shapes that differ."""
    generator = np.random.default_rng(seed)
    scipy = pytest.importorskip("scipy.ndimage")
    fields = scipy.gaussian_filter(
        generator.standard_normal((2, classes, *shape)), (0, 0, *[2] * len(shape))
    )
    fields[1] += 0.7 * fields[0]
    fields[:, 0] += 0.02
    maps = torch.from_numpy(fields.argmax(1))
    return maps[:1], maps[1:]


def masks(labels: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.stack([labels == c for c in range(classes)], dim=1)


OF_MONAI = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
SHAPES = [((14, 16, 15), (1.0, 1.0, 1.0)), ((12, 18, 11), (3.0, 0.7, 1.3)), ((25, 30), (0.5, 2.0))]


@OF_MONAI
@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
@pytest.mark.parametrize("percent", [100.0, 95.0, 50.0])
def test_directed_hausdorff_distance_is_monai_s(shape, spacing, percent) -> None:
    monai = pytest.importorskip("monai.metrics")
    prediction, target = blobs(shape, seed=0)
    theirs = monai.compute_hausdorff_distance(
        masks(prediction, 3).float(),
        masks(target, 3).float(),
        include_background=True,
        percentile=percent,
        spacing=list(spacing),
    )

    ours = hausdorff_distance(
        prediction, target, num_classes=3, percent=percent, spacing=spacing
    ).values

    # MONAI finds the place of a percentile in float32
    assert_close(ours, theirs.double(), rtol=1e-5, atol=1e-6)


@OF_MONAI
@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
def test_pooled_average_distance_is_monai_s(shape, spacing) -> None:
    monai = pytest.importorskip("monai.metrics")
    prediction, target = blobs(shape, seed=1)
    theirs = monai.compute_average_surface_distance(
        masks(prediction, 3).float(),
        masks(target, 3).float(),
        include_background=True,
        symmetric=True,
        spacing=list(spacing),
    )

    ours = average_surface_distance(prediction, target, num_classes=3, spacing=spacing).values

    assert_close(ours, theirs.double(), rtol=1e-6, atol=1e-6)


@OF_MONAI
@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
@pytest.mark.parametrize("surface", ["voxel", "surfel"])
def test_surface_dice_is_monai_s(shape, spacing, surface) -> None:
    monai = pytest.importorskip("monai.metrics")
    prediction, target = blobs(shape, seed=2)
    tolerances = [0.8, 1.5, 3.1]
    theirs = monai.compute_surface_dice(
        masks(prediction, 3).float(),
        masks(target, 3).float(),
        tolerances,
        include_background=True,
        spacing=list(spacing),
        use_subvoxels=surface == "surfel",
    )

    ours = surface_dice(
        prediction, target, num_classes=3, tolerance=tolerances, spacing=spacing, surface=surface
    ).values

    assert_close(ours, theirs.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.3, 0.7), (0.2, 5.0, 1.0), (2.0, 0.3)])
def test_areas_are_those_of_deepmind_s_table(spacing) -> None:
    utils = pytest.importorskip("monai.metrics.utils")
    theirs, _ = utils.get_code_to_measure_table(spacing)

    assert_close(element_sizes(spacing), np.asarray(theirs, dtype=float), rtol=1e-6, atol=1e-6)


def test_area_of_a_box_is_known() -> None:
    """A box of 4 x 5 x 6 voxels: faces through the middles, edges and corners cut off."""
    box = np.ones((4, 5, 6), dtype=bool)
    areas = element_sizes((1.0, 1.0, 1.0))[cube_codes(box)]
    faces = 2 * (3 * 4 + 3 * 5 + 4 * 5)
    edges = 4 * (3 + 4 + 5) * math.sqrt(0.5)
    corners = 8 * math.sqrt(3) / 8

    assert areas.sum() == pytest.approx(faces + edges + corners)


def surfels(mask: Array, spacing: tuple[float, ...]) -> tuple[Array, Array]:
    """Places and sizes of the surfels of a mask, cube by cube."""
    padded = np.pad(mask, 1)
    table = element_sizes(spacing)
    places, sizes = [], []
    for place in np.ndindex(*(n + 1 for n in mask.shape)):
        corners = [
            bool(padded[tuple(p + c for p, c in zip(place, corner, strict=True))])
            for corner in itertools.product((0, 1), repeat=mask.ndim)
        ]
        if any(corners) and not all(corners):
            code = int("".join(str(int(c)) for c in corners), 2)
            places.append([p * s for p, s in zip(place, spacing, strict=True)])
            sizes.append(table[code])
    return np.array(places), np.array(sizes)


def edge_voxels(mask: Array, spacing: tuple[float, ...]) -> tuple[Array, Array]:
    """Places of the voxels with a neighbour outside of the mask or of the image."""
    places = []
    for place in np.argwhere(mask):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            other = place.copy()
            other[axis] += step
            inside = all(0 <= o < n for o, n in zip(other, mask.shape, strict=True))
            if not inside or not mask[tuple(other)]:
                places.append([p * s for p, s in zip(place, spacing, strict=True)])
                break
    return np.array(places), np.ones(len(places))


def both_ways(p: Array, t: Array, spacing: tuple[float, ...], surface: str) -> list[Array]:
    """Distances and sizes by comparing every pair of elements."""
    elements = surfels if surface == "surfel" else edge_voxels
    (a, size_a), (b, size_b) = elements(p, spacing), elements(t, spacing)
    table = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return [table.min(1), table.min(0), size_a, size_b]


def weighted_percentile(values: Array, sizes: Array, percent: float) -> float:
    """The first distance that at least a share of the area does not exceed."""
    for value in sorted(set(values)):
        if sizes[values <= value].sum() / sizes.sum() >= percent / 100 - 1e-12:
            return value
    return max(values)


@pytest.mark.parametrize(("shape", "spacing"), [((6, 7, 5), (2.0, 0.7, 1.0)), ((9, 8), (1.0, 0.4))])
@pytest.mark.parametrize("surface", ["voxel", "surfel"])
def test_every_definition_equals_plain_loops(shape, spacing, surface) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        p, t = torch.rand(2, 1, 1, *shape, generator=generator) < 0.3
        a, b, size_a, size_b = both_ways(p[0, 0].numpy(), t[0, 0].numpy(), spacing, surface)
        options = {"spacing": spacing, "surface": surface}
        pooled, sizes = np.concatenate([a, b]), np.concatenate([size_a, size_b])
        for percent in (100.0, 90.0, 33.0):
            ways = [
                float(np.percentile(v, percent))
                if surface == "voxel"
                else weighted_percentile(v, w, percent)
                for v, w in ((a, size_a), (b, size_b), (pooled, sizes))
            ]
            for combine, expected in (("max", max(ways[:2])), ("pooled", ways[2])):
                ours = hausdorff_distance(p, t, percent=percent, combine=combine, **options)
                assert ours.values.item() == pytest.approx(expected)
        means = np.average(a, weights=size_a), np.average(b, weights=size_b)
        averages = {
            "pooled": np.average(pooled, weights=sizes),
            "mean": sum(means) / 2,
            "to_target": means[0],
            "to_prediction": means[1],
        }
        for direction, expected in averages.items():
            ours = average_surface_distance(p, t, direction=direction, **options)
            assert ours.values.item() == pytest.approx(expected)
        for limit in (0.0, 1.0, float(a.max())):
            agreed = size_a[a <= limit].sum() + size_b[b <= limit].sum()
            ours = surface_dice(p, t, tolerance=limit, **options)
            assert ours.values.item() == pytest.approx(agreed / sizes.sum())


FUNCTIONS = [
    (hausdorff_distance, HausdorffDistance, {"percent": 95.0, "combine": "pooled"}),
    (average_surface_distance, AverageSurfaceDistance, {"direction": "mean", "surface": "surfel"}),
    (surface_dice, SurfaceDice, {"tolerance": 1.0}),
]
KINDS = pytest.mark.parametrize(("function", "accumulator", "options"), FUNCTIONS)


@KINDS
def test_missed_and_invented_structures_have_the_worst_value(
    function, accumulator, options
) -> None:
    target = torch.zeros(3, 4, 6, dtype=torch.long)
    target[0, 1, 1], target[1, 2, 2] = 1, 1
    prediction = torch.zeros_like(target)
    prediction[1, 2, 2], prediction[2, 0, 0] = 1, 1

    scores = function(
        prediction, target, num_classes=3, include_background=False, spacing=0.5, **options
    )

    worst = 0.0 if function is surface_dice else 0.5 * math.hypot(4, 6)
    assert scores.classes == (1, 2)
    assert scores.values[:, 0].tolist() == [worst, scores.perfect, worst]
    assert scores.values[:, 1].isnan().all()
    assert scores.is_status("missed").tolist() == [[True, False], [False, False], [False, False]]
    assert scores.is_status("spurious").tolist() == [[False, False], [False, False], [True, False]]
    assert scores.mean() == pytest.approx((2 * worst + scores.perfect) / 3)
    assert scores.summary(empty="perfect").per_class[1] == scores.perfect


@KINDS
def test_spacing_is_a_unit(function, accumulator, options) -> None:
    prediction, target = blobs((10, 9, 12), seed=3)
    one = function(prediction, target, num_classes=3, spacing=(1.0, 2.0, 0.5), **options)
    if "tolerance" in options:
        options = {"tolerance": 3 * options["tolerance"]}
    three = function(prediction, target, num_classes=3, spacing=(3.0, 6.0, 1.5), **options)

    factor = 1 if function is surface_dice else 3
    assert_close(three.values, factor * one.values)


@KINDS
def test_order_of_axes_changes_nothing(function, accumulator, options) -> None:
    prediction, target = blobs((10, 9, 12), seed=4)
    one = function(prediction, target, num_classes=3, spacing=(1.0, 2.0, 0.5), **options)
    turned = (each.permute(0, 3, 1, 2) for each in (prediction, target))
    other = function(*turned, num_classes=3, spacing=(0.5, 1.0, 2.0), **options)

    assert_close(other.values, one.values)


@KINDS
def test_masks_maps_and_channel_axes_say_the_same(function, accumulator, options) -> None:
    prediction, target = blobs((20, 18), seed=5)
    expected = function(prediction, target, num_classes=3, **options).values

    by_masks = function(masks(prediction, 3), masks(target, 3), **options).values
    with_axis = function(prediction[:, None], target[:, None], num_classes=3, **options).values
    mixed = function(prediction[:, None], target, num_classes=3, **options).values

    assert torch.equal(by_masks, expected)
    assert torch.equal(with_axis, expected)
    assert torch.equal(mixed, expected)


@KINDS
def test_voxels_that_do_not_count_belong_to_no_structure(function, accumulator, options) -> None:
    prediction, target = blobs((20, 18), seed=6)
    counted = torch.rand(target.shape) < 0.9
    ignoring = torch.where(counted, target, 255)
    plain = function(
        masks(prediction, 3) & counted[:, None], masks(target, 3) & counted[:, None], **options
    )

    by_label = function(prediction, ignoring, num_classes=3, ignore_index=255, **options)
    by_mask = function(prediction, target, num_classes=3, mask=counted, **options)

    assert torch.equal(by_label.values, plain.values)
    assert torch.equal(by_mask.values, plain.values)


@KINDS
def test_accumulator_is_the_function_over_all_cases(function, accumulator, options) -> None:
    cases = [blobs((20, 18), seed=seed) for seed in range(4)]
    prediction, target = (torch.cat(each) for each in zip(*cases, strict=True))
    whole = function(prediction, target, num_classes=3, spacing=0.5, **options)
    first, second = (accumulator(3, spacing=0.5, **options) for _ in range(2))
    for metric, part in ((first, slice(0, 3)), (second, slice(3, 4))):
        for p, t in zip(prediction[part], target[part], strict=True):
            metric.update(p[None], t[None])
    first.merge(pickle.loads(pickle.dumps(second)))

    scores = first.compute()

    assert isinstance(scores, Scores)
    assert torch.equal(scores.values, whole.values)
    assert torch.equal(scores.status, whole.status)
    assert (scores.classes, scores.perfect) == (whole.classes, whole.perfect)
    assert first.num_cases == 4
    assert "4 cases" in repr(first)
    first.reset()
    with pytest.raises(ValueError, match="must be updated before compute"):
        first.compute()


def test_spacing_of_a_case_goes_before_that_of_the_accumulator() -> None:
    prediction, target = blobs((20, 18), seed=7)
    metric = HausdorffDistance(3, spacing=1.0)
    metric.update(prediction, target)
    metric.update(prediction, target, spacing=2.0)

    values = metric.compute().values

    assert_close(values[1], 2 * values[0])


def test_accumulators_of_other_options_do_not_merge() -> None:
    with pytest.raises(ValueError, match="other must be made with"):
        HausdorffDistance(3, percent=95).merge(HausdorffDistance(3))
    with pytest.raises(TypeError, match="other must be a HausdorffDistance"):
        HausdorffDistance(3).merge(AverageSurfaceDistance(3))


def test_a_miss_never_improves_the_mean() -> None:
    """MONAI drops a missed case from the mean of its 95th percentile, which then gets better."""
    target = torch.zeros(2, 1, 1, 20, 20, dtype=torch.bool)
    target[:, ..., 3:9, 3:9] = True
    found = target.roll(3, dims=-1)
    missed = found.clone()
    missed[1] = False

    assert hausdorff_distance(missed[0], target[0]).mean() == 3
    both = [torch.cat([found[0], each[1]]) for each in (found, missed)]
    truth = torch.cat([target[0], target[1]])
    before, after = (hausdorff_distance(each, truth, percent=95).mean() for each in both)

    assert after > before


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("percent", {"percent": 0.0}),
        ("percent", {"percent": 0.95}),
        ("percent", {"percent": 1.0}),
        ("percent", {"percent": 101.0}),
        ("surface", {"surface": "mesh"}),
        ("combine", {"combine": "mean"}),
        ("spacing", {"spacing": 0.0}),
        ("spacing", {"spacing": (1.0, 2.0, 3.0)}),
    ],
)
def test_bad_options_are_refused(argument: str, options: dict[str, object]) -> None:
    truth = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    with refuses(argument):
        hausdorff_distance(truth, truth, **options)


@pytest.mark.parametrize("percent", [0.95, 1.0, 101.0])
def test_a_fraction_is_no_percentile(percent: float) -> None:
    with pytest.raises(ValueError, match=r"^percent must be .*95 means the 95th percentile; got"):
        HausdorffDistance(2, percent=percent)


def test_other_bad_arguments_are_refused() -> None:
    truth = torch.ones(1, 2, 4, 4, dtype=torch.bool)
    with refuses("direction"):
        average_surface_distance(truth, truth, direction="there")
    with refuses("tolerance"):
        surface_dice(truth, truth, tolerance=-1.0)
    with refuses("tolerance"):
        surface_dice(truth, truth, tolerance=(1.0,))
    with refuses("target"):
        hausdorff_distance(truth[..., 0], truth[..., 0])
    with refuses("combine"):
        HausdorffDistance(2, combine="mean")
    with refuses("direction"):
        AverageSurfaceDistance(2, direction="there")
    with refuses("surface"):
        SurfaceDice(2, tolerance=1.0, surface="mesh")


def test_a_tolerance_is_checked_first_and_equal_however_it_is_written() -> None:
    with pytest.raises(ValueError, match="tolerance must be zero or positive; got -1"):
        SurfaceDice(tolerance=-1)
    SurfaceDice(tolerance=[1, 2]).merge(SurfaceDice(tolerance=(1.0, 2.0)))
    assert SurfaceDice(tolerance=np.float64(1)).tolerance == 1.0
