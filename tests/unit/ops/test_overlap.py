"""hard_overlap: exact counts of two segmentations, against loops in Python."""

import itertools

import pytest
import torch
from torch import Tensor

from medkit.ops import hard_overlap
from unit.losses.refusals import refuses


def counted_by_hand(
    prediction: Tensor, target: Tensor, num_classes: int, kept: Tensor
) -> list[list[tuple[int, int, int]]]:
    """Return intersection, prediction and target of each sample and class."""
    table = [[[0, 0, 0] for _ in range(num_classes)] for _ in range(len(target))]
    for b, row in enumerate(table):
        triples = zip(
            prediction[b].flatten().tolist(),
            target[b].flatten().tolist(),
            kept[b].flatten().tolist(),
            strict=True,
        )
        for p, t, counts in triples:
            if not counts:
                continue
            row[p][1] += 1
            row[t][2] += 1
            row[t][0] += p == t
    return [[tuple(c) for c in row] for row in table]


@pytest.mark.parametrize("ignored", [None, 255, -1, 1])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("channel_axes", list(itertools.product([False, True], repeat=2)))
def test_class_maps_are_counted_voxel_by_voxel(
    ignored: int | None, masked: bool, channel_axes: tuple[bool, bool]
) -> None:
    prediction, target = torch.randint(0, 3, (2, 4, 5, 3)), torch.randint(0, 3, (2, 4, 5, 3))
    if ignored not in (None, 1):
        target[torch.rand(target.shape) < 0.3] = ignored
    mask = torch.rand(2, 4, 5, 3) < 0.6 if masked else None
    kept = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    kept = kept if ignored is None else kept & (target != ignored)

    counts = hard_overlap(
        prediction[:, None] if channel_axes[0] else prediction,
        target[:, None] if channel_axes[1] else target,
        num_classes=3,
        ignore_index=ignored,
        mask=mask,
    )

    found = torch.stack(counts[:3], -1).tolist()
    expected = counted_by_hand(prediction, target, 3, kept)
    assert [[tuple(c) for c in row] for row in found] == expected
    assert counts.voxels.tolist() == [[int(k.sum())] for k in kept]
    assert counts.target.dtype == torch.int64


@pytest.mark.parametrize("masked", [False, True])
def test_masks_may_overlap(masked: bool) -> None:
    prediction, target = torch.rand(2, 3, 4, 5) < 0.5, torch.rand(2, 3, 4, 5) < 0.5
    mask = torch.rand(2, 1, 4, 5) < 0.5 if masked else None
    kept = torch.ones(2, 1, 4, 5, dtype=torch.bool) if mask is None else mask

    counts = hard_overlap(prediction, target, mask=mask)

    assert torch.equal(counts.intersection, (prediction & target & kept).sum((2, 3)))
    assert torch.equal(counts.predicted, (prediction & kept).sum((2, 3)))
    assert torch.equal(counts.target, (target & kept).sum((2, 3)))
    assert torch.equal(counts.voxels, kept.sum((2, 3)))


def test_what_is_predicted_where_nothing_counts_may_be_anything() -> None:
    prediction, target = torch.tensor([[0, 77, 1]]), torch.tensor([[0, 255, 1]])

    counts = hard_overlap(prediction, target, num_classes=2, ignore_index=255)

    assert counts.predicted.tolist() == [[1, 1]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("ignored", [None, -1, 1, 100, 255, 300])
@pytest.mark.parametrize("classes", [3, 15, 16, 100])
def test_counts_do_not_depend_on_the_type(
    dtype: torch.dtype, ignored: int | None, classes: int
) -> None:
    """A byte holds no -1, and the number of a pair of 16 classes fits none."""
    prediction, target = torch.randint(0, classes, (2, 2, 400))
    holds = ignored is not None and torch.iinfo(dtype).min <= ignored <= torch.iinfo(dtype).max
    if holds:
        target[:, ::3] = ignored
    wide, narrow = (
        hard_overlap(p, t, num_classes=classes, ignore_index=ignored)
        for p, t in ((prediction, target), (prediction.to(dtype), target.to(dtype)))
    )

    assert wide.voxels.sum() == (target != (-2 if ignored is None else ignored)).sum()
    assert all(torch.equal(a, b) for a, b in zip(wide, narrow, strict=True))
    if not holds and dtype != torch.int8:
        target[0, 0] = 200
        with refuses("target"):
            hard_overlap(
                prediction.to(dtype), target.to(dtype), num_classes=classes, ignore_index=ignored
            )


def test_inputs_of_any_integer_type_are_left_alone() -> None:
    prediction = torch.tensor([[0, 2, 1]], dtype=torch.uint8)
    target = torch.tensor([[0, 2, 2]], dtype=torch.int32)
    before = prediction.clone(), target.clone()

    hard_overlap(prediction, target, num_classes=3, ignore_index=2)

    assert torch.equal(prediction, before[0])
    assert torch.equal(target, before[1])


MAP = torch.zeros(2, 4, 4, dtype=torch.long)
MASKS = torch.zeros(2, 3, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("argument", "prediction", "target", "options"),
    [
        ("prediction", MAP.float(), MAP, {"num_classes": 2}),
        ("target", MAP, MAP.float(), {"num_classes": 2}),
        ("prediction", MAP + 2, MAP, {"num_classes": 2}),
        ("target", MAP, MAP - 1, {"num_classes": 2}),
        ("prediction", MAP[:, :3], MAP, {"num_classes": 2}),
        ("num_classes", MAP, MAP, {}),
        ("num_classes", MAP, MAP, {"num_classes": 0}),
        ("target", MASKS, MASKS[:, :2], {}),
        ("num_classes", MASKS, MASKS, {"num_classes": 2}),
        ("ignore_index", MASKS, MASKS, {"ignore_index": 255}),
        ("mask", MAP, MAP, {"num_classes": 2, "mask": torch.ones(2, 4, 4)}),
        ("mask", MAP, MAP, {"num_classes": 2, "mask": MASKS}),
    ],
)
def test_what_cannot_be_counted_is_refused(
    argument: str, prediction: Tensor, target: Tensor, options: dict[str, object]
) -> None:
    with refuses(argument):
        hard_overlap(prediction, target, **options)


def test_maps_and_masks_do_not_mix() -> None:
    with pytest.raises(TypeError, match="both be class maps or both be boolean masks"):
        hard_overlap(MASKS, MASKS.long())
