"""Scatter and segment reductions and the group loss in one graph, forward and backward."""

import pytest
import torch

from medkit.losses import group_reconstruction_loss
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
        result = reduction(x, index, dim=1, dim_size=6)
        return result.values if isinstance(result, tuple) else result

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")

    assert_close(compiled(x, index), f(x, index))
    gradients = [torch.autograd.grad(g(x, index).square().sum(), x)[0] for g in (compiled, f)]
    assert_close(*gradients)


def _compiled(**options):
    torch.compiler.reset()
    return torch.compile(
        lambda *args: group_reconstruction_loss(*args, **options),
        fullgraph=True,
        backend="aot_eager",
    )


@pytest.mark.parametrize("reduction", ["group", "node"])
@pytest.mark.parametrize("num_groups", [None, 5])
@pytest.mark.parametrize("per", ["node", "group"])
def test_group_loss_is_one_graph(per: str, num_groups: int | None, reduction: str) -> None:
    p = torch.rand(600, requires_grad=True)
    ids = torch.randint(0, 5, (600,))
    t = torch.rand(5)
    t = t[ids] if per == "node" else t

    value = _compiled(num_groups=num_groups, reduction=reduction)(p, t, ids)

    expected = group_reconstruction_loss(p, t, ids, reduction=reduction)
    assert_close(value, expected)
    gradients = [torch.autograd.grad(v, p)[0] for v in (value, expected)]
    assert_close(*gradients)


def test_group_loss_ranks_any_ids_without_reading_them() -> None:
    p, ids = torch.rand(6), torch.tensor([2**40, -7, 3, 3, 2**40, -7])
    t = torch.rand(3)

    value = _compiled(reduction="none")(p, t, ids)

    assert_close(value, group_reconstruction_loss(p, t, ids, reduction="none"))


def test_group_loss_is_nan_where_targets_do_not_fit() -> None:
    p, ids = torch.rand(4), torch.tensor([0, 0, 5, 9])

    for targets, per in (
        (torch.rand(2), "group"),
        (torch.rand(4), "group"),
        (torch.tensor([0.1, 0.2, 0.3, 0.4]), "node"),
    ):
        assert _compiled(targets_per=per)(p, targets, ids).isnan()


def test_one_value_per_group_needs_their_number_in_a_graph() -> None:
    p, ids = torch.rand(4), torch.tensor([0, 0, 1, 1])

    with pytest.raises(Exception, match="num_groups must be given to compile"):
        _compiled(reduction="none", targets_per="node")(p, p, ids)
