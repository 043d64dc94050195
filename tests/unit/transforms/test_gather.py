"""Values at the places of a warp beside SciPy: several slabs, fills, edges, bends, gradients."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from medkit.testing import assert_close
from medkit.transforms import Warp

TURN = np.array(
    [
        [0.9137, 0.2071, -0.1013, 1.3301],
        [-0.1517, 1.1039, 0.2029, -4.2107],
        [0.1033, -0.3011, 0.8087, 6.7001],
        [0, 0, 0, 1],
    ]
)
OLD, NEW = (17, 19, 23), (21, 16, 20)


def places_of(warp: Warp) -> np.ndarray:
    index = np.indices(warp.size).reshape(3, -1)
    places = warp.matrix[:-1, :-1] @ index + warp.matrix[:-1, -1:]
    return places.reshape(3, *warp.size)


def expected(
    image: torch.Tensor, warp: Warp, *, order: int, fill: float | None, field: object = 0.0
) -> torch.Tensor:
    places = places_of(warp) + np.asarray(field)
    edge = {"mode": "nearest"} if fill is None else {"mode": "grid-constant", "cval": fill}
    each = [map_coordinates(c, places, order=order, **edge) for c in image.numpy()]
    return torch.tensor(np.stack(each))


@pytest.mark.parametrize("fill", [0.0, -3.5, None])
def test_linear_equals_scipy_with_any_fill(fill: float | None) -> None:
    image, warp = torch.rand(2, *OLD, dtype=torch.float64), Warp(TURN, OLD, NEW)

    moved = warp.move(image, mode="linear", fill=fill)

    assert_close(moved, expected(image, warp, order=1, fill=fill), atol=1e-12)
    as_float32 = warp.move(image.float(), mode="linear", fill=fill)
    assert_close(as_float32, moved.float(), atol=2e-5, rtol=0)  # places in float32, to 1e-6 voxel


@pytest.mark.parametrize("fill", [0, 7, None])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_nearest_equals_scipy_with_any_fill(fill: int | None, dtype: torch.dtype) -> None:
    label, warp = torch.randint(0, 99, (2, *OLD), dtype=dtype), Warp(TURN, OLD, NEW)

    moved = warp.move(label, mode="nearest", fill=fill)

    assert moved.dtype == dtype
    assert torch.equal(moved, expected(label, warp, order=0, fill=fill))


def test_volume_of_several_slabs_equals_scipy() -> None:
    old, new = (20, 95, 90), (37, 90, 95)  # two slabs of 15 layers and one of 7
    image, label = torch.rand(1, *old, dtype=torch.float64), torch.randint(0, 9, (1, *old))
    warp = Warp(TURN, old, new)

    linear, nearest = warp.move(image, mode="linear"), warp.move(label, mode="nearest")

    assert_close(linear, expected(image, warp, order=1, fill=0), atol=1e-12)
    same = (nearest == expected(label, warp, order=0, fill=0))[0].numpy()
    half_way = (np.abs(places_of(warp) % 1 - 0.5) < 2e-5).any(0)  # what float32 cannot tell
    assert half_way.mean() < 1e-3
    assert same[~half_way].all()


def test_bend_of_a_label_equals_scipy() -> None:
    label, field = torch.randint(0, 9, (1, *OLD)), torch.randn(3, *NEW)
    warp = Warp(TURN, OLD, NEW, field)

    moved = warp.move(label, mode="nearest", fill=5)

    assert torch.equal(moved, expected(label, warp, order=0, fill=5, field=field))


def test_labels_beyond_the_integers_of_float32_are_kept() -> None:
    label = torch.full((1, *OLD), 2**53 + 1)

    for field in (None, torch.zeros(3, *NEW)):
        moved = Warp(TURN, OLD, NEW, field).move(label, mode="nearest")
        assert set(moved.unique().tolist()) == {0, 2**53 + 1}


def test_gradient_is_exact() -> None:
    warp = Warp(TURN, (3, 4, 3), (4, 3, 4))
    image = torch.rand(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(lambda x: warp.move(x, mode="linear", fill=2.0), (image,))


def test_places_far_outside_are_filled() -> None:
    far = TURN.copy()
    far[:-1, -1] = (1e12, -1e12, 0)

    for mode, image in (("linear", torch.rand(1, *OLD)), ("nearest", torch.ones(1, *OLD).int())):
        assert (Warp(far, OLD, NEW).move(image, mode=mode, fill=4) == 4).all()
