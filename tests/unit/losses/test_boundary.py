"""Boundary loss against loops over pairs of voxels, MONAI and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medkit.losses import BoundaryLoss, boundary_loss
from medkit.ops import distance_transform, one_hot
from medkit.testing import assert_close
from unit.losses import oracle
from unit.losses.refusals import refuses
from unit.losses.scenes import Case, cases, scene

OPTIONS = {
    "class_weight": (None, [0.5, 0.1, 2.0]),
    "absent": ("ratio", "penalize", "skip"),
    "reduction": ("mean", "sum", "none"),
    "spacing": (None, 0.5, (3.0, 0.7, 1.1)),
}


@pytest.mark.parametrize("case", cases(OPTIONS), ids=str)
def test_equals_loops_over_pairs_of_voxels(case: Case) -> None:
    drawn = scene(case)

    actual = boundary_loss(
        drawn.input,
        drawn.target,
        mask=drawn.mask,
        ignore_index=drawn.ignore_index,
        **drawn.options,
    )

    expected = _by_loops(drawn.input.numpy(), drawn.truth > 0.5, drawn.weight, **drawn.options)
    assert_close(actual, expected)


def _by_loops(
    input,
    inside,
    weight,
    *,
    activation,
    include_background,
    class_weight,
    absent,
    reduction,
    spacing,
):
    samples, channels = input.shape[:2]
    p = oracle.activated(input, activation)
    k = oracle.weights_of(class_weight, channels, background=include_background)
    steps = np.broadcast_to(1.0 if spacing is None else spacing, 3)
    table, total, counted = np.zeros((samples, channels)), 0.0, 0.0
    for b, c in itertools.product(range(samples), range(channels)):
        if c == 0 and not include_background:
            continue
        valid = weight[b] > 0
        voxels = [v for v in np.ndindex(valid.shape) if valid[v]]
        present = any(inside[b, c][v] for v in voxels)
        if not present and absent == "skip":
            continue
        terms = []
        for v in voxels:
            distance = _distance(v, inside[b, c], valid, steps)
            if not present and absent == "penalize":
                distance = 1.0
            error = abs(p[(b, c, *v)] - float(inside[(b, c, *v)]))
            terms.append(weight[b][v] * distance * error)
        whole = math.fsum(weight[b][v] for v in voxels)
        table[b, c] = k[c] * math.fsum(terms) / whole if whole else 0.0
        total += table[b, c]
        counted += k[c]
    if reduction == "none":
        return table if include_background else table[:, 1:]
    if reduction == "sum":
        return total
    return total / counted if counted else 0.0


def _distance(v, inside, valid, steps) -> float:
    """Return the distance to the other side of the boundary, or else to what cannot be seen."""
    others = [u for u in np.ndindex(inside.shape) if valid[u] and inside[u] != inside[v]]
    if not others:
        around = itertools.product(*(range(-1, n + 1) if n > 1 else [0] for n in inside.shape))
        others = [u for u in around if not _within(u, inside.shape) or not valid[u]]
    return min(float(np.sqrt(np.square(steps * (np.array(u) - v)).sum())) for u in others)


def _within(u, shape) -> bool:
    return all(0 <= i < n for i, n in zip(u, shape, strict=True))


def _scene(*spatial: int, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (2, *spatial), generator=generator)
    return torch.randn(2, classes, *spatial, dtype=torch.float64, generator=generator), labels


@pytest.mark.parametrize("spatial", [(9, 8), (6, 7, 5)])
def test_is_that_of_monai_for_its_map_but_for_a_constant(spatial) -> None:
    losses = pytest.importorskip("monai.losses")
    logits, labels = _scene(*spatial)
    theirs = losses.BoundaryLoss(softmax=True)
    target = one_hot(labels, num_classes=3)
    phi = theirs.compute_distance_map(target)
    mine, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()

    value = boundary_loss(mine, labels, distance_map=phi)
    expected = theirs(other, target)

    constant = phi.clamp(max=0).double().mean()
    assert_close(value, expected - constant)
    value.backward()
    expected.backward()
    assert_close(mine.grad, other.grad)
    made = distance_transform(target > 0, signed=True)
    assert_close(made, torch.where(target > 0, phi - 1, phi))  # theirs are one less inside


def test_an_error_costs_its_distance() -> None:
    target = torch.zeros(1, 1, 9, 9, dtype=torch.int64)
    target[..., 3:6, 3:6] = 1
    for place, distance in (
        ((0, 4), 3.0),
        ((0, 0), math.hypot(3, 3)),
        ((4, 4), 2.0),
        ((3, 3), 1.0),
    ):
        p = target.float()
        p[(0, 0, *place)] = 1 - p[(0, 0, *place)]

        loss = boundary_loss(p, target, activation=None)

        assert_close(loss, distance / 81)


@pytest.mark.parametrize("absent", ["ratio", "penalize"])
def test_false_positives_on_an_empty_target_cost(absent: str) -> None:
    empty = torch.zeros(1, 1, 5, 7, dtype=torch.int64)
    logits = torch.zeros(1, 1, 5, 7, requires_grad=True)

    none = boundary_loss(torch.zeros(1, 1, 5, 7), empty, activation=None, absent=absent)
    everywhere = boundary_loss(torch.ones(1, 1, 5, 7), empty, activation=None, absent=absent)
    boundary_loss(logits, empty, activation="sigmoid", absent=absent).backward()

    assert none == 0
    middle = sum(min(i + 1, 5 - i, j + 1, 7 - j) for i in range(5) for j in range(7)) / 35
    assert_close(everywhere, middle if absent == "ratio" else 1.0)
    assert (logits.grad > 0).all()


def test_a_full_target_costs_where_it_is_missed() -> None:
    full = torch.ones(1, 1, 5, 7, dtype=torch.int64)

    assert boundary_loss(torch.ones(1, 1, 5, 7), full, activation=None) == 0
    missed = boundary_loss(torch.zeros(1, 1, 5, 7), full, activation=None)
    assert_close(missed, boundary_loss(torch.ones(1, 1, 5, 7), 1 - full, activation=None))


@given(
    seed=st.integers(0, 999),
    scale=st.sampled_from([0.25, 2.0, 10.0]),
    background=st.booleans(),
    classes=st.integers(2, 4),
)
def test_the_loss_scales_with_the_spacing(seed, scale, background, classes) -> None:
    logits, labels = _scene(4, 5, 3, classes=classes, seed=seed)
    labels[0][labels[0] == classes - 1] = 0
    spacing = np.random.default_rng(seed).uniform(0.3, 3, 3)
    options = {"include_background": background}

    once = boundary_loss(logits, labels, spacing=spacing.tolist(), **options)
    scaled = boundary_loss(logits, labels, spacing=(scale * spacing).tolist(), **options)

    assert_close(scaled, scale * once)


@given(seed=st.integers(0, 999), step=st.floats(0.0, 1.0))
def test_the_loss_is_linear_in_probabilities_and_zero_at_the_target_alone(seed, step) -> None:
    logits, labels = _scene(4, 5, seed=seed)
    p, t = logits.softmax(1), one_hot(labels, num_classes=3, dtype=torch.float64)

    worst = boundary_loss(p, labels, activation=None)
    between = boundary_loss(t + step * (p - t), labels, activation=None)

    assert boundary_loss(t, labels, activation=None) == 0
    assert worst > 0
    assert_close(between, step * worst)


@pytest.mark.parametrize("ignore", [None, 255])
def test_a_map_made_in_a_loader_gives_the_same(ignore) -> None:
    logits, labels = _scene(5, 6, 4)
    options = {"spacing": (3.0, 1.0, 0.8), "missing": "edge", "signed": True}
    if ignore is not None:
        labels[torch.rand(labels.shape) < 0.2] = ignore
    maps = []
    for label in labels.unsqueeze(1):  # as items come, (1, *spatial)
        channels = one_hot(label, num_classes=3, ignore_index=ignore, dtype=torch.bool)
        valid = None if ignore is None else (label != ignore)[None]
        maps.append(distance_transform(channels, valid=valid, dtype=torch.float64, **options)[0])
    loss = BoundaryLoss(spacing=(3.0, 1.0, 0.8), ignore_index=ignore)

    given_map = BoundaryLoss(ignore_index=ignore)(logits, labels, distance_map=torch.stack(maps))

    assert_close(given_map, loss(logits, labels))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("include_background", [True, False])
def test_gradients_are_exact_twice(activation, include_background) -> None:
    logits, labels = _scene(3, 2)
    mask = torch.tensor([[[1.0, 0.5], [0.0, 2.0], [1.0, 1.0]]]).expand(2, -1, -1)
    x = (logits if activation else logits.softmax(1)).requires_grad_()
    options = {"activation": activation, "include_background": include_background}

    def loss(x: torch.Tensor) -> torch.Tensor:
        return boundary_loss(x, labels, mask=mask, reduction="none", **options)

    assert torch.autograd.gradcheck(loss, x)
    if activation:
        assert torch.autograd.gradgradcheck(lambda x: loss(x).square(), x)


@pytest.mark.parametrize("given_map", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_backward_keeps_the_input_the_map_and_the_mask(dtype, given_map) -> None:
    logits, labels = _scene(16, 16, 16)
    logits = logits.to(dtype).requires_grad_()
    phi = torch.randn(2, 3, 16, 16, 16) if given_map else None
    voxels = 2 * 16**3
    held = 3 * voxels * (logits.element_size() + 4)

    assert _saved_bytes(lambda: boundary_loss(logits, labels, distance_map=phi)) <= held + 256
    weight = torch.rand(2, 16, 16, 16)
    masked = _saved_bytes(lambda: boundary_loss(logits, labels, mask=weight, distance_map=phi))
    assert masked <= held + voxels + 256


def _saved_bytes(loss) -> int:
    storages = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss()
    return sum(storages.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_that_of_float64(dtype: torch.dtype) -> None:
    logits, labels = _scene(12, 13, 14)
    half = logits.to(dtype).requires_grad_()
    exact = half.detach().double().requires_grad_()

    loss, expected = boundary_loss(half, labels), boundary_loss(exact, labels)
    (loss * 2**10).backward()
    (expected * 2**10).backward()

    assert loss.dtype == torch.float32
    assert_close(loss, expected.float())
    assert half.grad.dtype == dtype
    assert_close(half.grad, exact.grad)


def test_nothing_under_the_mask_reaches_the_loss() -> None:
    logits, labels = _scene(6, 7)
    mask = torch.rand(2, 6, 7) < 0.7
    phi = torch.randn(2, 3, 6, 7)
    expected = boundary_loss(logits, labels, mask=mask, distance_map=phi)
    hidden = ~mask[:, None]

    found = boundary_loss(
        logits.masked_fill(hidden, math.nan),
        labels,
        mask=mask,
        distance_map=phi.masked_fill(hidden, math.inf),
    )

    assert_close(found, expected)


def test_the_map_gets_no_gradient() -> None:
    logits, labels = _scene(6, 7)
    phi = torch.randn(2, 3, 6, 7, requires_grad=True)

    boundary_loss(logits.requires_grad_(), labels, distance_map=phi).backward()

    assert phi.grad is None


def test_class_stores_what_the_function_takes() -> None:
    logits, labels = _scene(6, 7)
    options = {"class_weight": (0.1, 0.7, 1.0), "absent": "skip", "spacing": (2.0, 1.0)}

    loss = BoundaryLoss(**options)

    assert_close(loss(logits, labels), boundary_loss(logits, labels, **options))
    assert "spacing=(2.0, 1.0)" in repr(loss)


def test_bad_arguments_are_named() -> None:
    logits, labels = torch.randn(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    with refuses("absent"):
        BoundaryLoss(absent="drop")
    with refuses("spacing"):
        boundary_loss(logits, labels, spacing=(1.0, 1.0, 1.0))
    with refuses("distance_map"):
        boundary_loss(logits, labels, distance_map=torch.zeros(1, 1, 4, 4))
    with refuses("distance_map"):
        boundary_loss(logits, labels, distance_map=torch.zeros(1, 2, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="distance_map must be finite where voxels count"):
        boundary_loss(logits, labels, distance_map=torch.full((1, 2, 4, 4), math.inf))
