"""Channel axes move as views, and volumes turn as nibabel turns them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medkit.ops import (
    affine_axcodes,
    channels_first,
    channels_last,
    corner_indices,
    reorient,
    transform_points,
)
from medkit.testing import assert_close
from unit.losses.refusals import refuses

CODES = ("SAR", "RAS", "LPI", "PIR", "ASL")


@pytest.mark.parametrize("spatial", [(), (4,), (4, 5), (4, 5, 6)])
def test_channels_move_without_a_copy(spatial) -> None:
    x = torch.rand(2, 3, *spatial)

    y = channels_last(x)

    assert y.shape == (2, *spatial, 3)
    assert y.data_ptr() == x.data_ptr()
    assert torch.equal(y, x.permute(0, *range(2, x.ndim), 1))
    assert torch.equal(channels_first(y), x)


def test_channels_need_a_batch() -> None:
    for move in (channels_first, channels_last):
        with refuses("input"):
            move(torch.rand(3))


def _oblique(seed: int) -> np.ndarray:
    affine = np.eye(4)
    affine[:3] = np.random.default_rng(seed).normal(size=(3, 4)) * [1, 2, 3, 50]
    return affine


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("seed", range(3))
def test_volumes_turn_as_in_nibabel(seed, codes) -> None:
    orientations = pytest.importorskip("nibabel.orientations")
    tilted = np.linalg.qr(np.eye(3) + 0.2 * np.random.default_rng(seed).normal(size=(3, 3)))[0]
    affine = np.eye(4)[[2, 0, 1, 3]] * [1, -2, 3, 1]
    affine[:3, :3] = tilted @ affine[:3, :3]
    x = torch.rand(1, 1, 3, 4, 5)

    image, turned = reorient(x, affine, axcodes=codes)

    # nibabel names the axes in their order too, whatever they are called
    transform = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(codes))
    )
    theirs = orientations.apply_orientation(x[0, 0].numpy(), transform)
    assert np.array_equal(image[0, 0].numpy(), theirs)
    assert_close(turned, affine @ orientations.inv_ornt_aff(transform, (3, 4, 5)))
    assert affine_axcodes(turned) == codes


@given(seed=st.integers(0, 999), codes=st.sampled_from(CODES))
def test_every_voxel_keeps_its_place(seed, codes) -> None:
    affine = _oblique(seed)
    indices = np.stack(np.meshgrid(*map(np.arange, (2, 3, 4)), indexing="ij"))
    world = transform_points(affine, np.moveaxis(indices, 0, -1))
    x = torch.from_numpy(world).movedim(-1, 0)[None]

    image, turned = reorient(x, affine, axcodes=codes)

    for corner in corner_indices(image.shape[2:]):
        here = transform_points(turned, corner[None])[0]
        assert_close(image[(0, slice(None), *corner)].numpy(), here)
    back = reorient(image, turned, axcodes=affine_axcodes(affine))
    assert torch.equal(back.image, x)
    assert_close(back.affine, affine)


def test_bad_arguments_are_named() -> None:
    x = torch.rand(1, 1, 2, 3, 4)
    with pytest.raises(ValueError, match="axcodes must be one letter of each"):
        reorient(x, np.eye(4), axcodes="RRS")
    with refuses("input"):
        reorient(x[0], np.eye(4), axcodes="RAS")
