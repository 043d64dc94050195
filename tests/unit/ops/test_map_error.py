"""Errors weighed by a map against loops over voxels."""

import numpy as np
import pytest
import torch

from medkit.ops import map_error
from medkit.testing import assert_close
from unit.losses import oracle
from unit.losses.refusals import refuses


@pytest.mark.parametrize("mapped", [3, 2, 1])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_equals_loops(activation, mapped) -> None:
    rng = np.random.default_rng(0)
    x, maps = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, mapped, 4, 5))
    p = oracle.activated(x, activation)[:, 3 - mapped :]

    found = map_error(torch.from_numpy(x), torch.from_numpy(maps), activation=activation)

    expected = np.zeros((2, mapped))
    for b, c, *v in np.ndindex(maps.shape):
        m, q = maps[(b, c, *v)], p[(b, c, *v)]
        expected[b, c] += m * q if m > 0 else -m * (1 - q)
    assert_close(found, expected)


def test_maps_of_another_shape_are_refused() -> None:
    for shape in ((1, 3, 4, 4), (1, 2, 4, 5)):
        with refuses("maps"):
            map_error(torch.rand(1, 2, 4, 4), torch.rand(shape))
