"""Masks are dilated, eroded, closed and opened as by SciPy and scikit-image."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from medkit import ops
from medkit.ops import ball_element, box_element, cylinder_element

ODD = torch.tensor([[[1, 0, 0]], [[1, 1, 0]], [[0, 0, 0]], [[0, 0, 1]], [[0, 1, 0]]]) > 0
ELEMENTS = {
    "ball": ball_element(2),
    "flat ball": ball_element(3, spacing=(2, 1, 1.5)),
    "box": box_element((3, 1, 5)),
    "cylinder": cylinder_element(2, 3),
    "lying cylinder": cylinder_element(1, 2, axis=2),
    "asymmetric": ODD,
    "larger than the image": box_element(21),
}


def by_scipy(name: str, mask: np.ndarray, element: np.ndarray) -> np.ndarray:
    """What lies outside of the image is left out of account."""
    steps = {"dilation": [0], "erosion": [1], "closing": [0, 1], "opening": [1, 0]}[name]
    for outside in steps:
        step = (ndimage.binary_dilation, ndimage.binary_erosion)[outside]
        mask = step(mask, element, border_value=outside)
    return mask


@pytest.mark.parametrize("name", ["dilation", "erosion", "closing", "opening"])
@pytest.mark.parametrize("shape", ELEMENTS)
def test_values_are_those_of_scipy(name: str, shape: str) -> None:
    masks = torch.rand(2, 2, 9, 10, 7) > (0.9 if name in ("dilation", "closing") else 0.1)
    element = ELEMENTS[shape]

    result = getattr(ops, f"binary_{name}")(masks, element=element)

    for place in np.ndindex(2, 2):
        expected = by_scipy(name, masks[place].numpy(), element.numpy())
        assert np.array_equal(result[place].numpy(), expected)


@pytest.mark.parametrize("name", ["closing", "opening"])
def test_values_are_those_of_scikit_image_which_ignores_the_outside(name: str) -> None:
    morphology = pytest.importorskip("skimage.morphology")
    mask = torch.rand(1, 1, 12, 13) > 0.6
    element = ball_element(2, spatial_dims=2)
    expected = getattr(morphology, name)(mask[0, 0].numpy(), element.numpy(), mode="ignore")

    assert np.array_equal(getattr(ops, f"binary_{name}")(mask, element=element)[0, 0], expected)


masks = st.integers(0, 2**32 - 1).map(
    lambda seed: torch.rand(1, 1, 6, 7, 5, generator=torch.Generator().manual_seed(seed)) > 0.5
)


@given(masks, st.sampled_from([*ELEMENTS]))
def test_closing_and_opening_are_dual_idempotent_and_lose_or_add_nothing(
    mask: Tensor, shape: str
) -> None:
    element = ELEMENTS[shape]
    mirrored = element.flip((0, 1, 2))
    closed, opened = (f(mask, element=element) for f in (ops.binary_closing, ops.binary_opening))

    assert (closed >= mask).all() and (opened <= mask).all()  # noqa: PT018
    assert torch.equal(ops.binary_closing(closed, element=element), closed)
    assert torch.equal(ops.binary_opening(opened, element=element), opened)
    assert torch.equal(opened, ~ops.binary_closing(~mask, element=mirrored))


def test_the_cylinder_of_the_surface_pipeline() -> None:
    z, y, x = np.ogrid[-3:4, -2:3, -2:3]
    expected = np.broadcast_to(y**2 + x**2 <= 4, (7, 5, 5)) & (abs(z) <= 3)

    assert np.array_equal(cylinder_element(2, 3), expected)


@pytest.mark.parametrize("radius", [0, 1, 1.5, 2, 3.7])
def test_balls_are_those_of_scikit_image(radius: float) -> None:
    morphology = pytest.importorskip("skimage.morphology")
    z, y, x = np.mgrid[-4:5, -4:5, -4:5]
    inside = z**2 + y**2 + x**2 <= radius**2
    reach = int(radius)
    cut = slice(4 - reach, 5 + reach)
    assert np.array_equal(ball_element(radius), inside[cut, cut, cut])
    if radius == int(radius):
        assert np.array_equal(ball_element(radius), morphology.ball(radius))
        assert np.array_equal(ball_element(radius, spatial_dims=2), morphology.disk(radius))


def test_a_ball_in_mm_has_the_rounding_of_its_spacing() -> None:
    assert ball_element(0.3, spacing=0.1).shape == (7, 7, 7)  # 0.3 / 0.1 is below 3 in floats
    assert ball_element(0.3, spacing=0.1)[0, 3, 3]


@pytest.mark.parametrize(
    ("element", "error", "match"),
    [
        (torch.ones(3, 3), TypeError, "element must be boolean|Type-check error"),
        (torch.ones(3, dtype=torch.bool), ValueError, "element must be of 2 axes of odd sizes"),
        (torch.ones(3, 2, dtype=torch.bool), ValueError, "element must be of 2 axes of odd sizes"),
    ],
)
def test_an_element_that_does_not_fit_is_an_error(
    element: Tensor, error: type[Exception], match: str
) -> None:
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    with pytest.raises(error, match=match):
        ops.binary_closing(mask, element=element)
    with pytest.raises(TypeError, match=r"mask must be boolean|Type-check error"):
        ops.binary_opening(mask.float(), element=ball_element(1, spatial_dims=2))


def test_bad_sizes_are_errors() -> None:
    for call in (
        lambda: ball_element(-1),
        lambda: ball_element(1, spacing=0),
        lambda: box_element(4),
        lambda: box_element((3, 3)),
        lambda: cylinder_element(2, -1),
        lambda: cylinder_element(2, 1, axis=3),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()
