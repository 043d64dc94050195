"""Views move values exactly, and what is seen in them comes back where it belongs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medkit.inference import View, flip_views, turn_views
from medkit.testing import assert_close
from unit.losses.refusals import refuses

VOLUME = torch.arange(2 * 3 * 4 * 5 * 6.0).reshape(2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View(), VOLUME.numpy()),
        (View(flip=(0, 2)), VOLUME.numpy()[:, :, ::-1, :, ::-1]),
        (View(flip=(-1,)), VOLUME.numpy()[..., ::-1]),
        (View(turns=1), np.rot90(VOLUME.numpy(), 1, (3, 4))),
        (View(turns=3, plane=(0, 2)), np.rot90(VOLUME.numpy(), 3, (2, 4))),
        (View(flip=(1,), turns=2), np.rot90(VOLUME.numpy()[:, :, :, ::-1], 2, (3, 4))),
    ],
)
def test_view_is_what_numpy_makes(view: View, expected: np.ndarray) -> None:
    assert np.array_equal(view.apply(VOLUME).numpy(), expected)


@given(
    flip=st.sets(st.integers(0, 2)),
    turns=st.integers(-5, 5),
    plane=st.permutations([0, 1, 2]),
)
def test_way_back_undoes_the_way_there(flip: set[int], turns: int, plane: list[int]) -> None:
    view = View(flip=tuple(flip), turns=turns, plane=(plane[0], plane[1]))

    assert torch.equal(view.invert(view.apply(VOLUME), VOLUME.shape[2:]), VOLUME)


def test_scale_resizes_and_comes_back_to_the_size_of_the_volume() -> None:
    ramp = torch.linspace(0, 1, 33, dtype=torch.float64).reshape(1, 1, -1, 1).expand(1, 1, 33, 7)
    view = View(scale=1.5, flip=(0,), turns=1, plane=(0, 1))

    seen = view.apply(ramp)
    back = view.invert(seen, (33, 7))

    assert seen.shape == (1, 1, 10, 50)  # 33 and 7 times 1.5, turned
    assert_close(back[:, :, 2:-2], ramp[:, :, 2:-2])  # linear values survive linear interpolation


def test_swapped_channels_change_places_on_the_way_back_alone() -> None:
    view = View(swap=((0, 2),))

    assert torch.equal(view.apply(VOLUME), VOLUME)
    assert torch.equal(view.invert(VOLUME, VOLUME.shape[2:]), VOLUME[:, [2, 1, 0]])


def test_flip_views_are_all_subsets() -> None:
    flips = [view.flip for view in flip_views((0, 1, 2))]

    assert flips == [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]


def test_turned_and_mirrored_views_are_the_eight_symmetries_of_a_square() -> None:
    square = torch.arange(9.0).reshape(1, 1, 3, 3)
    seen = {tuple(v.apply(square).flatten().tolist()) for v in turn_views(mirrored=True)}

    assert len(seen) == 8
    assert len(turn_views()) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": (1, 1)}, "flip must be different axes"),
        ({"plane": (0, 0)}, "plane must be two different axes"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"swap": ((0, 1), (1, 2))}, "swap must be pairs of channels"),
    ],
)
def test_impossible_views_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        View(**options)


def test_axes_and_channels_that_do_not_exist_are_refused() -> None:
    image = torch.zeros(1, 2, 4, 4)

    with pytest.raises(ValueError, match="flip must be axes of 2 spatial dimensions"):
        View(flip=(2,)).apply(image)
    with pytest.raises(ValueError, match="flip must be different axes"):
        View(flip=(1, -1)).apply(image)
    with pytest.raises(ValueError, match="plane must be axes of 2 spatial dimensions"):
        View(turns=1, plane=(0, 2)).apply(image)
    with pytest.raises(ValueError, match="swap must be channels below 2"):
        View(swap=((0, 2),)).invert(image, (4, 4))


def test_one_axis_by_two_numbers_is_refused() -> None:
    for name, view in (("flip", View(flip=(2, -1))), ("plane", View(turns=1, plane=(2, -1)))):
        with pytest.raises(ValueError, match=f"^{name} must be different axes"):
            view.apply(VOLUME)


def test_what_is_no_axis_plane_or_pair_is_refused() -> None:
    for name, value in (("flip", 1), ("plane", (0, 1, 2)), ("swap", ((0, 1, 2),))):
        with refuses(name):
            View(**{name: value})
