"""Layer boundaries and their loss in one graph."""

import pytest
import torch

from medkit.losses import LayerBoundaryLoss
from medkit.ops import (
    boundaries_from_probabilities,
    boundaries_to_mask,
    boundary_posterior,
    mask_to_boundaries,
    rescale_boundaries,
)
from medkit.testing import assert_close

ROWS = torch.tensor([[[1.0, 2.4, torch.nan], [3.0, 2.6, 4.0]]])


def _whole(f, *args):
    torch.compiler.reset()
    return torch.compile(f, fullgraph=True, backend="aot_eager")(*args)


@pytest.mark.parametrize("method", ["sum", "posterior", "map"])
def test_decoding_is_one_graph(method: str) -> None:
    p = torch.randn(2, 3, 8, 4).softmax(1)

    def f(p):
        return boundaries_from_probabilities(p, method=method)

    assert_close(_whole(f, p), f(p))


def test_posterior_and_its_spread_are_one_graph() -> None:
    p = torch.randn(2, 3, 8, 4).softmax(1)

    def f(p):
        return torch.stack(boundary_posterior(p, temperature=2.0))

    assert_close(_whole(f, p), f(p))


def test_masks_and_sizes_are_one_graph() -> None:
    def f(rows):
        mask = boundaries_to_mask(rows, height=6)
        back = mask_to_boundaries(mask, num_classes=3)
        return rescale_boundaries(back, from_shape=(6, 3), to_shape=(9, 5))

    assert_close(_whole(f, ROWS), f(ROWS))


@pytest.mark.parametrize("method", ["sum", "posterior"])
@pytest.mark.parametrize("of_classes", [False, True])
def test_the_loss_is_one_graph(of_classes: bool, method: str) -> None:
    x = torch.randn(1, 3, 6, 3, requires_grad=True)
    target = boundaries_to_mask(ROWS, height=6) if of_classes else ROWS
    loss = LayerBoundaryLoss(method=method, ignore_index=255 if of_classes else None)

    values = _whole(loss, x, target), loss(x, target)

    assert_close(*values)
    assert_close(*(torch.autograd.grad(value, x)[0] for value in values))
