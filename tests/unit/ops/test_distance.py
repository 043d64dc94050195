"""Distances against loops over all pairs of voxels, SciPy, scikit-image, SimpleITK and MONAI."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medkit.ops import distance_transform
from medkit.testing import assert_close
from unit.losses.refusals import refuses

SHAPES = [(6, 7), (4, 5, 6), (1, 5, 4), (1, 1)]
SPACINGS = {2: (0.7, 2.5), 3: (3.0, 0.7, 0.9)}


def _by_loops(mask, valid, spacing, *, signed, missing=math.inf) -> np.ndarray:
    result = np.zeros(mask.shape)
    places = [np.array(v) for v in np.ndindex(mask.shape)]
    for v in places:
        if mask[tuple(v)] or signed:
            others = [
                math.sqrt(math.fsum((spacing * (v - u)) ** 2))
                for u in places
                if valid[tuple(u)] and mask[tuple(u)] != mask[tuple(v)]
            ]
            sign = -1.0 if signed and mask[tuple(v)] else 1.0
            result[tuple(v)] = sign * min(others, default=missing)
    return result


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_distances_are_the_least_over_all_pairs(shape, spaced, signed, masked) -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((2, 2, *shape)) < np.array([0.2, 0.8]).reshape(2, 1, *(1,) * len(shape))
    valid = rng.random((2, 1, *shape)) < 0.7 if masked else np.ones((2, 1, *shape), bool)
    spacing = SPACINGS[len(shape)] if spaced else None

    found = distance_transform(
        torch.from_numpy(masks),
        spacing=spacing,
        signed=signed,
        valid=torch.from_numpy(valid) if masked else None,
        dtype=torch.float64,
    )

    for b, c in np.ndindex(2, 2):
        steps = np.array(spacing or (1.0,) * len(shape))
        expected = _by_loops(masks[b, c], valid[b, 0], steps, signed=signed)
        assert_close(found[b, c][valid[b, 0]], expected[valid[b, 0]])


@pytest.mark.parametrize("spacing", [None, (3.0, 0.7, 0.9)])
def test_distances_are_those_of_scipy(spacing) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = np.random.default_rng(1).random((20, 21, 22)) < 0.97

    found = distance_transform(
        torch.from_numpy(mask)[None, None], spacing=spacing, dtype=torch.float64
    )

    assert np.array_equal(
        found[0, 0].numpy(), ndimage.distance_transform_edt(mask, sampling=spacing)
    )


def test_signed_distances_are_those_of_simpleitk() -> None:
    sitk = pytest.importorskip("SimpleITK")
    ball = (
        np.square(np.indices((12, 14, 16)) - np.array([5, 7, 8])[:, None, None, None]).sum(0) < 17
    )
    image = sitk.GetImageFromArray(ball.astype(np.uint8))
    image.SetSpacing((0.9, 0.7, 3.0))
    arguments = {"squaredDistance": False, "useImageSpacing": True}
    outside = sitk.SignedMaurerDistanceMap(image, **arguments)
    inside = sitk.SignedMaurerDistanceMap(1 - image, **arguments)

    found = distance_transform(
        torch.from_numpy(ball)[None, None], spacing=(3.0, 0.7, 0.9), signed=True
    )

    # SimpleITK measures to the voxels at the edge of the mask, from within and without
    theirs = np.where(ball, -sitk.GetArrayFromImage(inside), sitk.GetArrayFromImage(outside))
    assert_close(found[0, 0], theirs, rtol=1e-6, atol=1e-6)


def test_distances_are_those_of_monai() -> None:
    transforms = pytest.importorskip("monai.transforms.utils")
    mask = torch.rand(3, 9, 10, 11, generator=torch.Generator().manual_seed(0)) < 0.9

    found = distance_transform(mask[:, None], spacing=(1.5, 1.0, 0.5))

    for b in range(3):
        theirs = transforms.distance_transform_edt(mask[b : b + 1], sampling=[1.5, 1.0, 0.5])
        assert_close(found[b], theirs.float())


def test_empty_and_full_masks_are_infinitely_far_from_what_they_lack() -> None:
    for value, unsigned, signed in ((0, 0.0, math.inf), (1, math.inf, -math.inf)):
        mask = torch.full((1, 1, 3, 4), value)

        assert_close(distance_transform(mask), torch.full((1, 1, 3, 4), unsigned))
        assert_close(distance_transform(mask, signed=True), torch.full((1, 1, 3, 4), signed))


@pytest.mark.parametrize("depth", [None, 1])
def test_empty_and_full_masks_may_be_measured_to_the_edge(depth) -> None:
    rows = [[0.5, 0.5, 0.5, 0.5], [0.5, 1.0, 1.0, 0.5], [0.5, 1.0, 1.0, 0.5]]
    rows = [*rows, [0.5, 0.5, 0.5, 0.5]]
    edge = torch.tensor([[rows]])
    spacing = (0.5, 0.5)
    if depth:
        edge, spacing = edge[:, :, None], (9.0, *spacing)
    full = torch.ones(edge.shape, dtype=torch.bool)

    def measured(mask: torch.Tensor, **options: object) -> torch.Tensor:
        return distance_transform(mask, spacing=spacing, missing="edge", **options)

    assert_close(measured(full), edge)
    assert_close(measured(full, signed=True), -edge)
    assert_close(measured(~full, signed=True), edge)
    assert not measured(~full).any()


def test_voxels_that_are_not_valid_are_an_edge() -> None:
    mask = torch.ones(1, 1, 6, 9, dtype=torch.bool)
    valid = torch.ones_like(mask)
    valid[:, :, 4:] = False

    found = distance_transform(mask, valid=valid, missing="edge")

    cropped = distance_transform(mask[:, :, :4], missing="edge")
    assert_close(found[:, :, :4], cropped)


def test_a_single_voxel_is_one_spacing_from_the_edge() -> None:
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)

    assert float(distance_transform(mask, spacing=(3.0, 2.0), missing="edge")) == 2.0


@pytest.mark.parametrize("missing", ["inf", "edge"])
@pytest.mark.parametrize("signed", [False, True])
def test_without_valid_voxels_nothing_is_nan(signed, missing) -> None:
    mask = torch.tensor([[[[True, False]]]])

    found = distance_transform(mask, signed=signed, valid=torch.zeros_like(mask), missing=missing)

    assert not found.isnan().any()


@given(seed=st.integers(0, 999), scale=st.sampled_from([0.25, 2.0, 8.0]), signed=st.booleans())
def test_distances_scale_with_the_spacing(seed, scale, signed) -> None:
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.random((1, 2, 4, 5, 6)) < rng.random())
    spacing = rng.uniform(0.3, 3, 3)

    for missing in ("inf", "edge"):
        options = {"signed": signed, "missing": missing, "dtype": torch.float64}
        once = distance_transform(mask, spacing=spacing.tolist(), **options)
        scaled = distance_transform(mask, spacing=(scale * spacing).tolist(), **options)
        assert_close(scaled, scale * once)


@given(seed=st.integers(0, 999))
def test_the_outside_of_a_mask_has_opposite_signs(seed) -> None:
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.random((2, 1, 6, 7)) < rng.random())

    found = distance_transform(mask, signed=True)

    assert_close(distance_transform(~mask, signed=True), -found)
    assert torch.equal(found < 0, mask)
    inside = distance_transform(mask)
    assert_close(inside, torch.where(mask, -found, 0.0))


@given(seed=st.integers(0, 999))
def test_a_step_changes_the_distance_by_its_length_at_most(seed) -> None:
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.random((1, 1, 8, 9)) < 0.8)

    found = distance_transform(mask, spacing=(2.0, 0.5), dtype=torch.float64)

    assert found.diff(dim=2).abs().nan_to_num(0).max() <= 2.0 + 1e-12
    assert found.diff(dim=3).abs().nan_to_num(0).max() <= 0.5 + 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_type_is_the_one_asked_for(dtype) -> None:
    found = distance_transform(torch.ones(1, 1, 3, 3, dtype=torch.uint16), dtype=dtype)

    assert found.dtype == dtype


def test_bad_arguments_are_named() -> None:
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="spacing must be positive"):
        distance_transform(mask, spacing=(1.0, 0.0))
    with pytest.raises(ValueError, match="spacing must be one value or 2"):
        distance_transform(mask, spacing=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"mask must be \(batch, channel"):
        distance_transform(mask[0])
    with pytest.raises(TypeError, match="dtype must be floating point"):
        distance_transform(mask, dtype=torch.int64)
    with refuses("valid"):
        distance_transform(mask, valid=torch.ones(1, 1, 4, 5, dtype=torch.bool))
