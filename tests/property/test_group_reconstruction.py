"""What must not change the group reconstruction loss: order of nodes, names of groups."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from medkit.losses import group_reconstruction_loss
from medkit.testing import assert_close

NODES = st.lists(
    st.tuples(st.floats(0, 1), st.integers(-4, 4), st.floats(0, 3)), min_size=1, max_size=30
)
REDUCTIONS = st.sampled_from(["group", "node"])


def _scene(nodes: list[tuple[float, int, float]]) -> tuple[torch.Tensor, ...]:
    p, ids, weight = (torch.tensor(column) for column in zip(*nodes, strict=True))
    return p.double(), ids, weight.double()


@given(nodes=NODES, reduction=REDUCTIONS, data=st.data())
def test_order_of_nodes_does_not_matter(nodes, reduction, data) -> None:
    p, ids, weight = _scene(nodes)
    order = torch.tensor(data.draw(st.permutations(range(len(nodes)))))
    t = torch.linspace(0, 1, 9, dtype=torch.float64)[ids + 4]
    options = {"reduction": reduction, "targets_per": "node"}

    shuffled = group_reconstruction_loss(
        p[order], t[order], ids[order], weight=weight[order], **options
    )

    assert_close(shuffled, group_reconstruction_loss(p, t, ids, weight=weight, **options))


@given(
    nodes=NODES,
    reduction=REDUCTIONS,
    names=st.lists(st.integers(-(2**62), 2**62), min_size=9, max_size=9, unique=True),
)
def test_names_of_groups_do_not_matter(nodes, reduction, names) -> None:
    p, ids, weight = _scene(nodes)
    t = torch.linspace(0, 1, 9, dtype=torch.float64)[ids + 4]
    options = {"weight": weight, "reduction": reduction, "targets_per": "node"}

    renamed = group_reconstruction_loss(p, t, torch.tensor(names)[ids + 4], **options)

    assert_close(renamed, group_reconstruction_loss(p, t, ids, **options))


@given(nodes=NODES, reduction=REDUCTIONS)
def test_targets_per_group_equal_targets_per_node(nodes, reduction) -> None:
    p, ids, weight = _scene(nodes)
    names, index = ids.unique(return_inverse=True)
    t = names.double() / 7

    by_group = group_reconstruction_loss(
        p, t, ids, weight=weight, reduction=reduction, targets_per="group"
    )
    by_node = group_reconstruction_loss(
        p, t[index], ids, weight=weight, reduction=reduction, targets_per="node"
    )

    assert_close(by_group, by_node)


@given(nodes=NODES, reduction=REDUCTIONS)
def test_a_node_twice_is_a_node_of_weight_two(nodes, reduction) -> None:
    p, ids, _ = _scene(nodes)
    number = torch.arange(len(nodes)) % 3 + 1
    node_ids = torch.arange(len(nodes)).repeat_interleave(number)
    t = torch.zeros(ids.unique().numel(), dtype=torch.float64)
    options = {"reduction": reduction, "targets_per": "group"}

    repeated = group_reconstruction_loss(p, t, ids[node_ids], node_ids=node_ids, **options)

    assert_close(repeated, group_reconstruction_loss(p, t, ids, weight=number, **options))
