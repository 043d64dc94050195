"""Soft morphology and its losses make one graph, with the eager values and gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from medkit.losses import ClDiceLoss, SkeletonRecallLoss
from medkit.ops import soft_dilate, soft_erode, soft_open, soft_skeletonize

MASK = torch.arange(9 * 8 * 7).reshape(1, 9, 8, 7) % 5 > 0
LABELS = torch.arange(9 * 8 * 7).reshape(1, 9, 8, 7) // 100 % 2

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "erode": soft_erode,
    "dilate": soft_dilate,
    "open": soft_open,
    "skeletonize": lambda x: soft_skeletonize(x, iterations=2),
    "skeletonize, masked": lambda x: soft_skeletonize(x, iterations=2, mask=MASK),
    "skeletonize masks": lambda x: soft_skeletonize(x > 0.5, iterations=2) * x,
    "cldice": lambda x: ClDiceLoss(iterations=2, ignore_index=1)(x, LABELS),
    "skeleton recall": lambda x: SkeletonRecallLoss(iterations=2)(x, LABELS, mask=MASK),
}


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by Dynamo
@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_graph_with_the_eager_values_and_gradients(name: str) -> None:
    function = FUNCTIONS[name]
    x = torch.rand(1, 2, 9, 8, 7, requires_grad=True)
    torch.compiler.reset()

    found, expected = torch.compile(function, fullgraph=True, backend="eager")(x), function(x)
    weight = torch.rand(expected.shape)

    assert torch.equal(found, expected)
    assert torch.equal(
        torch.autograd.grad(found, x, weight)[0], torch.autograd.grad(expected, x, weight)[0]
    )
