"""Affine mathematics moves matrices and voxels together, and agrees with nibabel."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkit.ops import (
    affine_axcodes,
    affine_shear,
    affine_spacing,
    axes_towards,
    corner_indices,
    flip_affine,
    permute_affine,
    ras_to_lps,
    rescale_affine,
    transform_points,
    translate_affine,
)
from medkit.testing import assert_close

SHAPE = (4, 5, 6)
ORIENTATIONS = [
    "".join(codes) for axes in permutations(("RL", "AP", "SI")) for codes in product(*axes)
]


@st.composite
def affines(draw: st.DrawFn, *, shear: float = 0.3) -> np.ndarray:
    """Rotated, scaled, shifted and somewhat sheared affines of either handedness."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ (np.eye(3) + shear * np.triu(generator.uniform(-1, 1, (3, 3)), 1))
    affine[:3, :3] *= generator.uniform(0.1, 5, 3)
    affine[:3, 3] = generator.uniform(-300, 300, 3)
    return affine


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@given(affines())
def test_spacing_and_axcodes_are_those_of_nibabel(affine: np.ndarray) -> None:
    nibabel = pytest.importorskip("nibabel")

    assert_close(affine_spacing(affine), nibabel.affines.voxel_sizes(affine))
    theirs = nibabel.orientations.io_orientation(affine)
    if (np.abs(affine[:3, :3] / affine_spacing(affine)).max(axis=0) > 0.75).all():
        assert affine_axcodes(affine) == "".join(nibabel.orientations.ornt2axcodes(theirs))


@given(affines())
def test_axcodes_name_three_axes_of_the_body(affine: np.ndarray) -> None:
    assert affine_axcodes(affine) in ORIENTATIONS


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_axcodes_of_straight_axes_are_their_directions(codes: str) -> None:
    directions = {
        "R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1),
        "I": (0, 0, -1),
    }  # fmt: skip
    affine = np.eye(4)
    affine[:3, :3] = np.transpose([directions[code] for code in codes])

    assert affine_axcodes(affine) == codes


@given(affines(), st.sampled_from(ORIENTATIONS))
def test_axes_towards_reach_every_orientation_and_move_no_voxel(
    affine: np.ndarray, codes: str
) -> None:
    axes, flips = axes_towards(affine, codes)
    shape = [SHAPE[axis] for axis in axes]
    turned = flip_affine(permute_affine(affine, axes), shape, flips)

    assert affine_axcodes(turned) == codes
    index = np.array([1, 2, 3])
    moved = index[list(axes)]
    for axis in flips:
        moved[axis] = shape[axis] - 1 - moved[axis]
    assert_close(transform_points(turned, moved), transform_points(affine, index), atol=1e-9)


@pytest.mark.parametrize("codes", ["", "RA", "RAL", "ras", "RASL", "XYZ", "RRS"])
def test_impossible_axcodes_are_refused(codes: str) -> None:
    with pytest.raises(ValueError, match="axcodes must be one letter of each of R/L, A/P and S/I"):
        axes_towards(np.eye(4), codes)


@given(affines(), st.tuples(*[st.integers(-9, 9)] * 3))
def test_translation_keeps_voxels_where_they_are(
    affine: np.ndarray, start: tuple[int, int, int]
) -> None:
    part = translate_affine(affine, start)
    index = np.array([2, 0, 1])

    assert_close(transform_points(part, index), transform_points(affine, index + start), atol=1e-9)


@given(affines(), st.tuples(*[st.floats(0.2, 4)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_rescaled_grid_has_spacing_directions_and_centre(
    affine: np.ndarray, spacing: tuple[float, ...], size: tuple[int, ...]
) -> None:
    new = rescale_affine(affine, SHAPE, size, spacing)
    middle = transform_points(affine, (np.array(SHAPE) - 1) / 2)

    assert_close(affine_spacing(new), spacing)
    assert_close(transform_points(new, (np.array(size) - 1) / 2), middle, atol=1e-9)
    directions = affine[:3, :3] / affine_spacing(affine)
    assert_close(new[:3, :3] / affine_spacing(new), directions, atol=1e-12)


@given(affines(shear=0))
def test_rotations_have_no_shear(affine: np.ndarray) -> None:
    assert affine_shear(affine) < 1e-9


def test_shear_is_the_cosine_between_axes() -> None:
    tilt = np.deg2rad(20)
    affine = np.eye(4)
    affine[:3, 2] = 0, np.sin(tilt), np.cos(tilt)

    assert affine_shear(affine) == pytest.approx(np.sin(tilt))


def test_lps_is_ras_with_x_and_y_turned_round() -> None:
    affine = np.arange(16.0).reshape(4, 4)

    assert_close(ras_to_lps(affine), affine * [[-1], [-1], [1], [1]])
    assert_close(ras_to_lps(ras_to_lps(affine)), affine)


def test_corners_are_the_eight_ends() -> None:
    corners = {tuple(corner) for corner in corner_indices(SHAPE).tolist()}

    assert corners == set(product((0, 3), (0, 4), (0, 5)))


def test_affines_are_never_changed_in_place() -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine.flags.writeable = False

    for new in (
        translate_affine(affine, (1, 1, 1)),
        permute_affine(affine, (2, 1, 0)),
        flip_affine(affine, SHAPE, (0,)),
        rescale_affine(affine, SHAPE, SHAPE, (1, 1, 1)),
        ras_to_lps(affine),
    ):
        assert new.flags.writeable
        assert not np.shares_memory(new, affine)
