"""Scatter and segment reductions in one graph, forward and backward."""

import pytest
import torch

from medkit.ops import (
    scatter_max,
    scatter_mean,
    scatter_min,
    scatter_sum,
    segment_mean,
    segment_sum,
)
from medkit.testing import assert_close


@pytest.mark.parametrize(
    "reduction", [scatter_sum, scatter_mean, scatter_min, scatter_max, segment_sum, segment_mean]
)
def test_a_reduction_is_one_graph(reduction) -> None:
    x = torch.randn(3, 12, requires_grad=True)
    index = torch.tensor([0, 0, 1, 1, 1, 3, 3, 4, 4, 4, 4, 4])

    def f(x, index):
        result = reduction(x, index, 1, 6)
        return result.values if isinstance(result, tuple) else result

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")

    assert_close(compiled(x, index), f(x, index))
    gradients = [torch.autograd.grad(g(x, index).square().sum(), x)[0] for g in (compiled, f)]
    assert_close(*gradients)
