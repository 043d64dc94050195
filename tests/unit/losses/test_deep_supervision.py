"""DeepSupervision: targets at each head's size by loops over windows, weights, forms, refusals."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from medkit.losses import (
    CrossEntropyLoss,
    DeepSupervision,
    DiceLoss,
    WeightedSum,
    WholeBatch,
    dice_loss,
)
from medkit.losses._coarse_target import Truth, coarse_truth
from medkit.ops import one_hot
from medkit.testing import assert_close
from unit.losses.refusals import refuses

IGNORED = 255
SIZES = [(4, 3, 2), (2, 2, 2), (3, 5, 4), (7, 1, 3), (1, 1, 1)]
SHAPE = (7, 6, 5)


def windows(size: tuple[int, ...], shape: tuple[int, ...]) -> dict[tuple[int, ...], tuple]:
    """Return the voxels that each coarse voxel touches, by comparing where they begin and end."""
    along = [
        [[j for j in range(n) if j * m < (i + 1) * n and (j + 1) * m > i * n] for i in range(m)]
        for m, n in zip(size, shape, strict=True)
    ]
    return {
        place: tuple(itertools.product(*(axis[i] for axis, i in zip(along, place, strict=True))))
        for place in np.ndindex(size)
    }


def coarse_labels(labels: np.ndarray, weight: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The rule in loops: the rarest foreground class that counts, background, or ignored."""
    result = np.full((len(labels), *size), IGNORED)
    for b, sample in enumerate(labels):
        count = {c: int(((sample == c) & (weight[b] > 0)).sum()) for c in range(9)}
        for place, members in windows(size, sample.shape).items():
            seen = {int(sample[v]) for v in members if weight[b][v] > 0 and sample[v] != IGNORED}
            if seen - {0}:
                result[(b, *place)] = min(seen - {0}, key=lambda c: (count[c], -c))
            elif seen:
                result[(b, *place)] = 0
    return result


def scene(*, ignored: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of which some are ignored, and weights of which some are zero."""
    rng = np.random.default_rng(3)
    labels = rng.choice(4, p=[0.7, 0.15, 0.1, 0.05], size=(2, *SHAPE))
    labels[1][labels[1] == 2] = 0
    labels[rng.random(labels.shape) < ignored] = IGNORED
    labels[0, :3, :3] = IGNORED
    return labels, (rng.random(labels.shape) < 0.6) * rng.random(labels.shape)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_class_maps_follow_the_rule(size: tuple[int, ...], masked: bool) -> None:
    labels, weight = scene()
    weight = weight if masked else np.ones_like(weight)
    mask = torch.from_numpy(weight) if masked else None

    target, coarse = coarse_truth(
        Truth(torch.from_numpy(labels), mask), size, num_classes=4, ignore_index=IGNORED
    )

    assert (target.numpy() == coarse_labels(labels, weight, size)).all()
    if coarse is not None:
        heaviest = np.zeros((2, *size))
        counted = weight * (labels != IGNORED)
        for b, (place, members) in itertools.product(range(2), windows(size, SHAPE).items()):
            heaviest[(b, *place)] = max(counted[b][v] for v in members)
        assert (coarse.numpy() == heaviest).all()


@pytest.mark.parametrize("size", SIZES)
def test_one_hot_and_channel_axis_give_the_same(size: tuple[int, ...]) -> None:
    labels = torch.from_numpy(scene(ignored=0.0)[0])
    mask = labels != IGNORED
    known = torch.where(mask, labels, 0)

    plain = coarse_truth(Truth(known, mask), size, num_classes=4, ignore_index=None)
    channel = coarse_truth(
        Truth(known[:, None].short(), mask[:, None]), size, num_classes=4, ignore_index=None
    )
    values = one_hot(known, num_classes=4)
    values[~mask[:, None].expand_as(values)] = math.nan
    hot = coarse_truth(Truth(values, mask), size, num_classes=4, ignore_index=None)

    assert torch.equal(channel.target[:, 0], plain.target)
    assert torch.equal(channel.mask, plain.mask)
    assert torch.equal(hot.mask, plain.mask)
    counted = plain.mask[:, None].expand_as(hot.target)
    assert torch.equal(hot.target[counted], one_hot(plain.target, num_classes=4)[counted])


def test_regions_that_overlap_are_pooled_one_by_one() -> None:
    regions = torch.rand(2, 3, *SHAPE) < 0.05

    coarse = coarse_truth(Truth(regions, None), (3, 3, 2), num_classes=3, ignore_index=None).target

    for place, members in windows((3, 3, 2), SHAPE).items():
        expected = torch.stack([regions[(..., *v)] for v in members]).any(0)
        assert torch.equal(coarse[(..., *place)], expected.float())


def test_soft_labels_stay_a_distribution_in_which_the_rarest_come_first() -> None:
    soft = torch.tensor([[[0.6, 0.9, 1.0, 0.5], [0.4, 0.0, 0.0, 0.5], [0.0, 0.1, 0.0, 0.0]]])

    coarse = coarse_truth(Truth(soft, None), (2,), num_classes=3, ignore_index=None).target

    assert_close(coarse, torch.tensor([[[0.5, 0.5], [0.4, 0.5], [0.1, 0.0]]]))


@given(
    at=st.tuples(st.integers(0, 10), st.integers(0, 10)),
    size=st.tuples(st.integers(1, 11), st.integers(1, 12), st.integers(1, 13)),
    inside=st.booleans(),
)
def test_a_vessel_one_voxel_wide_survives(
    at: tuple[int, int], size: tuple[int, int, int], inside: bool
) -> None:
    """At every size of the head, beside background and inside an organ of another class."""
    labels = torch.full((1, 11, 12, 13), int(inside))
    labels[:, at[0], at[1]] = 2

    coarse = coarse_truth(Truth(labels, None), size, num_classes=3, ignore_index=None).target

    assert (coarse == 2).flatten(1, 3).any(1).all()
    assert (coarse == 2).any(1).any(1).all()  # along its whole length


def test_heads_of_the_size_of_the_target_see_the_target_itself() -> None:
    seen: list[Tensor] = []

    def loss(input: Tensor, target: Tensor) -> Tensor:
        seen.append(target)
        return input.mean()

    label = torch.randint(0, 2, (1, 4, 4))
    DeepSupervision(loss, weights=(1.0, 1.0, 1.0))(
        [torch.zeros(1, 2, n, n) for n in (4, 4, 2)], label
    )

    assert seen[0] is label
    assert seen[1] is label
    assert seen[2].shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (1, [1.0]),
        (2, [1.0]),
        (3, [2 / 3, 1 / 3]),
        (5, [8 / 15, 4 / 15, 2 / 15, 1 / 15]),
    ],
)
def test_weights_are_those_of_nnunet(heads: int, expected: list[float]) -> None:
    """For five heads .5333, .2667, .1333, .0667 and 0."""
    sizes = [2**k for k in reversed(range(heads))]
    values = [torch.full((1, 2, n), float(i + 1)) for i, n in enumerate(sizes)]
    loss = DeepSupervision(lambda logits, _: logits.mean())

    total = loss(values, torch.zeros(1, sizes[0], dtype=torch.int64))

    assert_close(total, torch.tensor(sum(w * (i + 1) for i, w in enumerate(expected))))


def heads_for(loss_sizes: list[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [
        torch.randn(2, 4, *n, generator=generator, dtype=torch.float64).requires_grad_()
        for n in loss_sizes
    ]


def test_terms_name_every_value_and_cost_nothing_twice() -> None:
    heads = heads_for([SHAPE, (4, 3, 3), (2, 2, 1)])
    labels, weight = (torch.from_numpy(a) for a in scene())
    inner = WeightedSum(
        {
            "dice": (0.5, DiceLoss(ignore_index=IGNORED)),
            "ce": (2.0, CrossEntropyLoss(ignore_index=IGNORED)),
        }
    )
    loss = DeepSupervision(inner)

    terms = loss.terms(heads, labels, mask=weight)

    assert list(terms) == ["head_0.dice", "head_0.ce", "head_1.dice", "head_1.ce"]
    target, mask = coarse_truth(
        Truth(labels, weight), (4, 3, 3), num_classes=4, ignore_index=IGNORED
    )
    assert_close(terms["head_1.dice"], inner.terms(heads[1], target, mask=mask)["dice"])
    expected = (2 * inner(heads[0], labels, mask=weight) + inner(heads[1], target, mask=mask)) / 3
    assert_close(loss.total(terms), expected)
    assert_close(loss(heads, labels, mask=weight), expected)


def test_a_head_without_a_weight_gets_a_gradient_of_zero() -> None:
    heads = heads_for([SHAPE, (4, 3, 3), (2, 2, 1)])
    with torch.no_grad():
        heads[2].fill_(math.nan)

    DeepSupervision(DiceLoss())(heads, torch.randint(0, 4, (2, *SHAPE))).backward()

    assert heads[1].grad.abs().sum() > 0
    assert torch.equal(heads[2].grad, torch.zeros_like(heads[2]))


def test_gradients_are_exact() -> None:
    labels = torch.from_numpy(scene()[0])[:, :4, :3, :2]
    heads = [torch.randn(2, 4, *n, dtype=torch.float64) for n in ((4, 3, 2), (2, 2, 1), (1, 1, 1))]
    loss = DeepSupervision(DiceLoss(ignore_index=IGNORED), weights=(1.0, 0.5, 0.25))

    assert torch.autograd.gradcheck(
        lambda *heads: loss(heads, labels), [head.requires_grad_() for head in heads]
    )


def test_one_tensor_is_the_plain_loss() -> None:
    head, label = heads_for([SHAPE])[0], torch.randint(0, 4, (2, *SHAPE))

    assert torch.equal(DeepSupervision(DiceLoss())(head, label), dice_loss(head, label))
    assert torch.equal(DeepSupervision(DiceLoss())([head], label), dice_loss(head, label))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    heads = [h.detach().to(dtype) for h in heads_for([SHAPE, (3, 3, 3), (2, 2, 1)])]
    label = torch.randint(0, 4, (2, *SHAPE))
    loss = DeepSupervision(DiceLoss())

    value = loss(heads, label)

    assert value.dtype == torch.float32
    assert_close(value, loss([h.double() for h in heads], label).float(), rtol=1e-5)


def test_pieces_of_a_batch_add_up() -> None:
    """Together with ``WholeBatch``: value and gradient of every head."""
    labels, weight = (torch.from_numpy(a) for a in scene())
    sum_of = WeightedSum(
        {
            "dice": (1.0, DiceLoss(batch=True, ignore_index=IGNORED)),
            "ce": (1.0, CrossEntropyLoss(ignore_index=IGNORED)),
        }
    )
    loss = DeepSupervision(sum_of)
    sizes = [SHAPE, (4, 3, 3), (2, 2, 1)]
    apart, together = heads_for(sizes), heads_for(sizes)
    expected = loss(together, labels, mask=weight)
    expected.backward()
    whole = WholeBatch(loss)

    pieces = [[h[i : i + 1] for h in apart] for i in range(2)]
    for i, heads in enumerate(pieces):
        whole.add(heads, labels[i : i + 1], mask=weight[i : i + 1])
    for i, heads in enumerate(pieces):
        value = whole(heads, labels[i : i + 1], mask=weight[i : i + 1])
        value.backward()

    assert_close(value, expected)
    for ours, theirs in zip(apart, together, strict=True):
        assert_close(ours.grad, theirs.grad)


def blocks(size: int) -> Tensor:
    """Labels that are the same over blocks of 4 along each axis."""
    coarse = torch.randint(0, 3, (2, 1, size // 4, size // 4, size // 4))
    return coarse.repeat_interleave(4, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)


def test_where_the_nearest_voxel_is_as_good_it_equals_monai() -> None:
    monai_losses = pytest.importorskip("monai.losses")
    label = blocks(8)
    heads = [torch.randn(2, 3, n, n, n) for n in (8, 4, 2)]
    theirs = monai_losses.DeepSupervisionLoss(monai_losses.DiceLoss(softmax=True, to_onehot_y=True))

    ours = DeepSupervision(DiceLoss(), weights=(1.0, 0.5, 0.25))

    assert_close(ours(heads, label), theirs(heads, label.float()))


def test_monai_takes_no_class_map_and_loses_a_vessel() -> None:
    """Which is what this is for; when MONAI mends it, this test can go."""
    monai_losses = pytest.importorskip("monai.losses")

    class Look(nn.Module):
        """A loss that keeps the targets it is given."""

        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Tensor] = []

        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            self.seen.append(target)
            return input.mean()

    vessel = torch.zeros(1, 1, 16, 16, 16)
    vessel[..., 5, 7, :] = 1
    heads = [torch.zeros(1, 1, n, n, n) for n in (16, 8, 4)]
    theirs, ours = Look(), Look()

    monai_losses.DeepSupervisionLoss(theirs)(heads, vessel)
    DeepSupervision(ours, weights=(1.0, 1.0, 1.0))(heads, vessel)

    assert [float(t.sum()) for t in theirs.seen] == [16.0, 8.0, 0.0]
    assert [float(t.sum()) for t in ours.seen] == [16.0, 8.0, 4.0]
    with pytest.raises(NotImplementedError):
        monai_losses.DeepSupervisionLoss(theirs)(heads, vessel.long())


def test_the_ignored_label_is_that_of_the_loss() -> None:
    same = {"dice": (1.0, DiceLoss(ignore_index=7)), "ce": (1.0, CrossEntropyLoss(ignore_index=7))}
    other = {**same, "more": (1.0, DiceLoss(ignore_index=8))}

    assert DeepSupervision(WeightedSum(same)).ignore_index == 7
    assert DeepSupervision(dice_loss, ignore_index=3).ignore_index == 3
    with refuses("loss"):
        DeepSupervision(WeightedSum(other))


def test_what_does_not_fit_is_refused() -> None:
    label, loss = torch.randint(0, 2, (1, 4, 4)), DeepSupervision(DiceLoss())
    head = torch.zeros(1, 2, 4, 4)
    with refuses("input"):
        loss([], label)
    with refuses("input"):
        loss([head, torch.zeros(1, 3, 2, 2)], label)
    with refuses("input"):
        loss([head, torch.zeros(1, 2, 5, 2)], label)
    with refuses("input"):
        DeepSupervision(DiceLoss(), weights=(1.0, 0.5))([head], label)
    with refuses("target"):
        loss([head], torch.zeros(1, 8, 8, dtype=torch.int64))
    with refuses("target"):
        loss([head, head[..., :2, :2]], label + 5)
    with refuses("mask"):
        loss([head], label, mask=torch.ones(1, 2, 2))
    with refuses("ignore_index"):
        ignoring = DeepSupervision(DiceLoss(), weights=(1.0, 1.0), ignore_index=9)
        ignoring([head, head[..., :2, :2]], torch.zeros(1, 2, 4, 4))
    with refuses("weights"):
        DeepSupervision(DiceLoss(), weights=(1.0, -0.5))
    with refuses("weights"):
        DeepSupervision(DiceLoss(), weights=(0.0,))
    with refuses("loss"):
        DeepSupervision("dice")
    with refuses("terms"):
        loss.total({"head_1": torch.tensor(1.0)})
    with refuses(r"terms\['head_0'\]"):
        DeepSupervision(DiceLoss(reduction="none"))([head], label)
