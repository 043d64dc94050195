"""Rows of layer boundaries follow their image: closed forms, masks that move along, refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import medkit.transforms as mt
from medkit.ops import boundaries_to_mask, rescale_boundaries
from medkit.testing import assert_close

HEIGHT, WIDTH = 40, 60
LINES = torch.stack(
    [
        14 + 3 * torch.sin(torch.arange(WIDTH) / 9.0),
        26 + 2 * torch.cos(torch.arange(WIDTH) / 7.0),
    ]
)


def _sample(lines: Tensor = LINES) -> dict[str, object]:
    return {"image": torch.rand(1, HEIGHT, WIDTH), "boundaries": lines}


def test_horizontal_flip_mirrors_lines_exactly() -> None:
    flipped = mt.Flip(axes=-1)(_sample())["boundaries"]

    assert torch.equal(flipped, LINES.flip(-1))


@pytest.mark.parametrize("size", [(30, 60), (62, 45), (40, 97)])
def test_resize_equals_rescaled_boundaries(size: tuple[int, int]) -> None:
    lines = LINES.double()
    lines[0, 20:23] = torch.nan

    resized = mt.Resize(size=size)(_sample(lines))["boundaries"]

    expected = rescale_boundaries(lines, from_shape=(HEIGHT, WIDTH), to_shape=size)
    assert_close(resized, expected)


@settings(max_examples=40, deadline=None)
@given(
    angle=st.floats(-20, 20), slope=st.floats(-0.5, 0.5), flip=st.booleans(), row=st.floats(15, 25)
)
def test_straight_line_stays_one_under_rotation(
    angle: float, slope: float, flip: bool, row: float
) -> None:
    x = torch.arange(WIDTH, dtype=torch.float64) - (WIDTH - 1) / 2
    lines = (row + slope * x)[None]
    steps: list[mt.Transform] = [mt.Rotate(angle=angle), *([mt.Flip(axes=-1)] if flip else [])]

    turned = mt.Compose(steps)(_sample(lines))["boundaries"][0]

    # y = c + s x in coordinates about the middle; (y, x) old = R (y, x) new
    c, t = row - HEIGHT / 2, math.radians(angle)
    bottom = math.cos(t) - slope * math.sin(t)
    expected = (c + x * (math.sin(t) + slope * math.cos(t))) / bottom
    expected = (expected.flip(0) if flip else expected) + HEIGHT / 2
    known = ~turned.isnan()
    known[known.nonzero()[[0, -1]]] = False  # half a column beyond the last point repeats it
    assert known.sum() > WIDTH / 2
    assert_close(turned[known], expected.clamp(0, HEIGHT)[known], atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "transform",
    [
        mt.RandomRotate(angle=(9, 10), probability=1.0),
        mt.RandomAffine(rotation=8, scale=(0.8, 1.2), translation=0.05, probability=1.0),
        mt.RandomElastic(spacing=20, displacement=1.5, probability=1.0),
        mt.SpatialCrop(size=(30, 40), start=(5, 10)),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_lines_move_with_their_mask(transform: mt.Transform) -> None:
    mask = boundaries_to_mask(LINES, height=HEIGHT)[None].float()
    sample = {"image": mask, "boundaries": LINES}

    moved = transform(sample, generator=np.random.default_rng(1))

    lines = moved["boundaries"]
    known = ~lines.isnan().any(0)
    assert known.float().mean() > 0.7
    below = [(moved["image"][0] > k + 0.5).sum(0) for k in range(2)]
    height = moved["image"].shape[1]
    filled = torch.full((1, HEIGHT, WIDTH), 2.0)  # what came from outside is in no layer
    inside = transform({"image": filled}, generator=np.random.default_rng(1))["image"][0] > 1.99
    for line, count in zip(lines, below, strict=True):
        clear = known & inside[HEIGHT // 3 :].all(0)
        assert clear.sum() > 5
        assert (height - count - line)[clear].abs().max() < 1.2  # the mask is whole rows


def test_bent_lines_go_back_to_where_they_were() -> None:
    bend = mt.RandomElastic(spacing=20, displacement=1.0, probability=1.0)
    applied = bend.apply(_sample(LINES.double()), generator=np.random.default_rng(0))

    (warp,) = applied.warps
    back = mt.move_boundaries(applied.sample["boundaries"], warp.inverse())

    known = ~back.isnan()
    assert known.float().mean() > 0.9
    assert (back - LINES)[:, 1:-1][
        known[:, 1:-1]
    ].abs().max() < 0.05  # lines are read off in whole columns


def test_columns_nobody_annotated_stay_unknown_where_they_land() -> None:
    lines = LINES.clone()
    lines[1, 30:40] = torch.nan

    turned = mt.Rotate(angle=5)(_sample(lines))["boundaries"]
    whole = mt.Rotate(angle=5)(_sample())["boundaries"]

    assert 9 <= (turned[1].isnan() & ~whole[1].isnan()).sum() <= 13
    assert torch.equal(turned[0].isnan(), whole[0].isnan())
    known = ~turned[1].isnan()
    assert_close(turned[1][known], whole[1][known])


def test_nothing_known_stays_nothing() -> None:
    lines = torch.full((2, WIDTH), torch.nan)

    assert mt.Rotate(angle=5)(_sample(lines))["boundaries"].isnan().all()


def test_fold_of_a_steep_line_is_unknown() -> None:
    x = torch.arange(WIDTH, dtype=torch.float64)
    lines = torch.where(x < 30, 10.0, 30.0)[None]

    folded = [mt.Rotate(angle=a)(_sample(lines))["boundaries"][0, 8:-8].isnan() for a in (20, -20)]
    assert sorted(bool(f.any()) for f in folded) == [False, True]


def test_rows_count_what_is_left_above_after_a_crop() -> None:
    lines = torch.tensor([[3.0, 12.0, 30.0]]).repeat_interleave(20, dim=1)

    cropped = mt.SpatialCrop(size=(10, WIDTH), start=(8, 0))(_sample(lines))["boundaries"]

    assert cropped[0, [0, 30, 59]].tolist() == [0.0, 4.0, 10.0]


@pytest.mark.parametrize(
    "transform", [mt.Flip(axes=0), mt.Rotate90(), mt.Rotate90(times=2), mt.Rotate(angle=120)]
)
def test_layers_cannot_be_turned_upside_down(transform: mt.Transform) -> None:
    with pytest.raises(ValueError, match="warp must be one that leaves the layers"):
        transform(_sample())


def test_wrong_width_and_volumes_are_refused() -> None:
    with pytest.raises(ValueError, match="boundaries must be of a width"):
        mt.Flip(axes=-1)(_sample(LINES[:, 1:]))
    with pytest.raises(ValueError, match="boundaries must be of a width"):
        mt.Flip(axes=-1)({"image": torch.zeros(1, 4, 5, 6), "boundaries": LINES})


def test_type_and_input_stay() -> None:
    half = LINES.half()

    assert mt.Rotate(angle=3)(_sample(half))["boundaries"].dtype == torch.float16
    assert torch.equal(half, LINES.half())
