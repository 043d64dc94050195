"""Laws of the losses on voxels over drawn shapes, options and inputs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medkit.losses import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    WeightedSum,
    boundary_loss,
    cldice_loss,
    cross_entropy_loss,
    dice_loss,
    focal_loss,
    generalized_dice_loss,
    jaccard_loss,
    skeleton_recall_loss,
    tversky_loss,
)
from medkit.testing import assert_close

SHARED = {
    "activation": st.sampled_from(["softmax", "sigmoid"]),
    "include_background": st.booleans(),
    "weighted": st.booleans(),
}
OVERLAP = {
    **SHARED,
    "absent": st.sampled_from(["ratio", "penalize", "skip"]),
    "batch": st.booleans(),
    "smooth": st.sampled_from([0.0, 1e-5, 1.0]),
}
DICE = st.fixed_dictionaries(OVERLAP)
TVERSKY = st.fixed_dictionaries(
    {**OVERLAP, "alpha": st.floats(0, 2), "beta": st.floats(0, 2), "gamma": st.floats(0.5, 3)}
)
GENERALIZED = st.fixed_dictionaries(
    {**OVERLAP, "weight_type": st.sampled_from(["square", "simple", "uniform"])}
)
ENTROPY = st.fixed_dictionaries(
    {
        **SHARED,
        "label_smoothing": st.sampled_from([0.0, 0.1]),
        "top_k": st.sampled_from([None, 0.4]),
    }
)
FOCAL = st.fixed_dictionaries({**SHARED, "gamma": st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5])})
CLDICE = st.fixed_dictionaries(
    {**OVERLAP, "iterations": st.integers(0, 3), "skeleton_gradient": st.booleans()}
)
RECALL = st.fixed_dictionaries(
    {**OVERLAP, "iterations": st.integers(0, 3), "tube_radius": st.integers(0, 2)}
)
BOUNDARY = st.fixed_dictionaries(
    {**SHARED, "absent": OVERLAP["absent"], "spacing": st.sampled_from([None, 0.4])}
)


def drawn_with(*losses: tuple, shape: st.SearchStrategy) -> st.SearchStrategy:
    """Return one of the losses, its options, and a shape that it takes."""
    return st.one_of(*(st.tuples(st.just(loss), options, shape) for loss, options in losses))


SHAPES = st.tuples(
    st.integers(1, 3), st.integers(2, 4), st.lists(st.integers(1, 5), min_size=0, max_size=3)
)
IMAGES = st.tuples(
    st.integers(1, 3), st.integers(2, 4), st.lists(st.integers(1, 5), min_size=2, max_size=3)
)
WITHOUT_PLACE = drawn_with(
    (dice_loss, DICE),
    (jaccard_loss, DICE),
    (tversky_loss, TVERSKY),
    (generalized_dice_loss, GENERALIZED),
    (cross_entropy_loss, ENTROPY),
    (focal_loss, FOCAL),
    shape=SHAPES,
)
"""Losses for which it does not matter where a voxel lies."""

WITH_PLACE = drawn_with(
    (cldice_loss, CLDICE), (skeleton_recall_loss, RECALL), (boundary_loss, BOUNDARY), shape=IMAGES
)
LOSSES = st.one_of(WITHOUT_PLACE, WITH_PLACE)
SEEDS = st.integers(0, 2**20)


class Scene:
    """Drawn logits, labels and mask of one shape, float64."""

    def __init__(self, shape: tuple[int, int, list[int]], seed: int, *, size: float = 3.0) -> None:
        batch, self.channels, spatial = shape
        generator = torch.Generator().manual_seed(seed)
        self.logits = size * torch.randn(
            batch, self.channels, *spatial, dtype=torch.float64, generator=generator
        )
        self.labels = torch.randint(0, self.channels, (batch, *spatial), generator=generator)
        self.mask = torch.rand(batch, *spatial, generator=generator) < 0.7
        self.weight = (torch.rand(self.channels, generator=generator) + 0.1).double()

    def options(self, drawn: dict) -> dict:
        options = dict(drawn)
        if options.pop("weighted"):
            options["class_weight"] = self.weight
        return options


def unpacked(drawn: tuple, seed: int, **size: float) -> tuple[Callable, dict, Scene]:
    loss, options, shape = drawn
    scene = Scene(shape, seed, **size)
    return loss, scene.options(options), scene


def with_gradient(loss, logits: Tensor, target: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target, **options)
    value.sum().backward()
    return value.detach(), leaf.grad


@given(drawn=LOSSES, seed=SEEDS)
def test_a_map_is_its_one_hot(drawn, seed) -> None:
    loss, options, scene = unpacked(drawn, seed)
    one_hot = F.one_hot(scene.labels, scene.channels).movedim(-1, 1)

    for a, b in zip(
        with_gradient(loss, scene.logits, scene.labels, **options),
        with_gradient(loss, scene.logits, one_hot, **options),
        strict=True,
    ):
        assert_close(a, b)


@given(drawn=LOSSES, seed=SEEDS, label=st.sampled_from([255, -1, -100]))
def test_ignoring_is_masking(drawn, seed, label) -> None:
    loss, options, scene = unpacked(drawn, seed)
    marked = torch.where(scene.mask, scene.labels, label)

    for a, b in zip(
        with_gradient(loss, scene.logits, marked, ignore_index=label, **options),
        with_gradient(loss, scene.logits, scene.labels, mask=scene.mask, **options),
        strict=True,
    ):
        assert_close(a, b)


@given(drawn=LOSSES, seed=SEEDS)
def test_what_is_masked_has_no_say(drawn, seed) -> None:
    loss, options, scene = unpacked(drawn, seed)
    other = Scene(drawn[2], seed + 1, size=1e4)
    logits = torch.where(scene.mask.unsqueeze(1), scene.logits, other.logits)
    labels = torch.where(scene.mask, scene.labels, other.labels)

    value, gradient = with_gradient(loss, logits, labels, mask=scene.mask, **options)
    expected = with_gradient(loss, scene.logits, scene.labels, mask=scene.mask, **options)

    assert torch.equal(value, expected[0])
    assert torch.equal(gradient, expected[1])


@given(drawn=LOSSES, seed=SEEDS, number=st.integers(2, 4))
def test_a_mask_of_a_whole_number_counts_a_voxel_so_often(drawn, seed, number) -> None:
    """Any constant weight leaves a mean as it is; without smoothing, whose unit is a voxel."""
    loss, options, scene = unpacked(drawn, seed)
    if "smooth" in options:
        options["smooth"] = 0.0
    weights = scene.mask.double()

    once = loss(scene.logits, scene.labels, mask=weights, **options)

    assert_close(loss(scene.logits, scene.labels, mask=number * weights, **options), once)


@given(drawn=WITHOUT_PLACE, seed=SEEDS, order=st.randoms(use_true_random=False))
def test_order_of_voxels_samples_and_classes_does_not_matter(drawn, seed, order) -> None:
    loss, drawn_options, (samples, channels, _) = drawn
    scene = Scene((samples, channels, [7]), seed)
    options = {**scene.options(drawn_options), "include_background": True}
    expected = loss(scene.logits, scene.labels, **options)
    voxels, rows, classes = (
        torch.tensor(order.sample(range(n), n)) for n in (7, samples, channels)
    )
    renamed = torch.argsort(classes)[scene.labels]
    if "class_weight" in options:
        options["class_weight"] = scene.weight[classes]

    shuffled = loss(
        scene.logits[rows][:, classes][:, :, voxels], renamed[rows][:, voxels], **options
    )

    assert_close(shuffled, expected)


@given(drawn=WITH_PLACE, seed=SEEDS, order=st.randoms(use_true_random=False))
def test_axes_may_be_exchanged_and_reversed(drawn, seed, order) -> None:
    loss, options, scene = unpacked(drawn, seed)
    spatial = scene.labels.ndim - 1
    axes = [2 + axis for axis in order.sample(range(spatial), spatial)]
    flips = [axis for axis in range(2, 2 + spatial) if order.random() < 0.5]

    def turned(x: Tensor) -> Tensor:
        return x.permute(0, 1, *axes).flip(flips)

    moved = loss(turned(scene.logits), turned(scene.labels.unsqueeze(1)), **options)

    assert_close(moved, loss(scene.logits, scene.labels, **options))


@given(drawn=LOSSES, seed=SEEDS, factor=st.floats(1e-3, 1e3))
def test_only_ratios_of_class_weights_matter(drawn, seed, factor) -> None:
    loss, _, scene = unpacked(drawn, seed)
    options = {n: v for n, v in drawn[1].items() if n != "weighted"}

    for reduction in ("mean", "sum", "none"):
        one, scaled = (
            loss(scene.logits, scene.labels, class_weight=w, reduction=reduction, **options)
            for w in (scene.weight, factor * scene.weight)
        )
        assert_close(scaled, one)


@given(drawn=LOSSES, seed=SEEDS)
def test_reductions_agree(drawn, seed) -> None:
    loss, options, scene = unpacked(drawn, seed)

    each = loss(scene.logits, scene.labels, reduction="none", **options)

    assert_close(each.sum(), loss(scene.logits, scene.labels, reduction="sum", **options))


@given(drawn=LOSSES, seed=SEEDS, size=st.sampled_from([1e-3, 1.0, 1e2, 1e4]))
def test_value_and_gradient_are_finite_and_the_value_is_not_negative(drawn, seed, size) -> None:
    loss, options, scene = unpacked(drawn, seed, size=size)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        value, gradient = with_gradient(
            loss, scene.logits.to(dtype), scene.labels, mask=scene.mask, **options
        )

        assert value.isfinite().all()
        assert value >= -1e-6
        assert gradient.isfinite().all()
        assert gradient.dtype == dtype


@given(shape=SHAPES, seed=SEEDS, dice=DICE, entropy=ENTROPY, focal=FOCAL)
def test_a_sum_is_the_sum_of_its_terms(shape, seed, dice, entropy, focal) -> None:
    scene = Scene(shape, seed)
    options = [scene.options(drawn) for drawn in (dice, entropy, focal)]
    functions, weights = (dice_loss, cross_entropy_loss, focal_loss), (0.3, 2.0, 0.7)
    loss = WeightedSum(
        {
            "dice": (weights[0], DiceLoss(**options[0])),
            "ce": (weights[1], CrossEntropyLoss(**options[1])),
            "focal": (weights[2], FocalLoss(**options[2])),
        }
    )

    total, gradient = with_gradient(loss, scene.logits, scene.labels, mask=scene.mask)

    single = [
        with_gradient(function, scene.logits, scene.labels, mask=scene.mask, **chosen)
        for function, chosen in zip(functions, options, strict=True)
    ]
    assert_close(total, sum(w * value for w, (value, _) in zip(weights, single, strict=True)))
    assert_close(gradient, sum(w * slope for w, (_, slope) in zip(weights, single, strict=True)))


@given(shape=SHAPES, seed=SEEDS, options=FOCAL, gamma=st.floats(0, 5))
def test_a_larger_exponent_costs_less(shape, seed, options, gamma) -> None:
    scene = Scene(shape, seed)
    chosen = {**scene.options(options), "reduction": "none"}
    larger = {**chosen, "gamma": chosen["gamma"] + gamma}

    less = focal_loss(scene.logits, scene.labels, **larger)

    assert (less <= focal_loss(scene.logits, scene.labels, **chosen) + 1e-12).all()
