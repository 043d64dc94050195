"""The group reconstruction loss against a loop in NumPy, closed forms, and its own edges."""

from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from medkit.losses import GroupReconstructionLoss, group_reconstruction_loss
from medkit.testing import assert_close

SCENES = ["sorted", "unsorted", "gaps", "sorted gaps", "negative", "huge", "one node each", "one"]


@pytest.fixture
def _unchecked_shapes() -> Iterator[None]:
    """Let wrong types through the annotations, to reach the checks that users have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class _Reads(TorchDispatchMode):
    """The operations that a GPU would have to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(word in str(func) for word in ("_local_scalar_dense", "nonzero", "unique", "equal")):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def oracle(p, t, ids, *, nodes=None, weight=None, per_node=False, reduction="group"):
    """Return the loss in float64, group by group."""
    nodes = np.arange(len(ids)) if nodes is None else nodes
    weight = np.ones(len(ids)) if weight is None else weight
    errors, masses = [], []
    for k, group in enumerate(sorted(set(ids.tolist()))):
        mean = mass = 0.0
        for row in np.flatnonzero(ids == group):
            mean += weight[row] * p[nodes[row]]
            mass += weight[row]
        target = t[np.flatnonzero(ids == group)[0]] if per_node else t[k]
        errors.append((mean / mass - target) ** 2 if mass else 0.0)
        masses.append(mass)
    if reduction == "none":
        return np.array(errors)
    masses = np.array(masses) if reduction == "node" else np.array(masses) > 0
    return float(np.sum(masses * np.array(errors)) / max(np.sum(masses), 1e-300))


def scene(name: str, rng: np.random.Generator) -> np.ndarray:
    """Return ids."""
    ids = np.concatenate([np.arange(9), rng.integers(0, 9, 301)])
    if name == "sorted":
        return np.sort(ids)
    if name == "sorted gaps":
        return np.sort(ids) * 3 + 11
    if name == "one":
        return np.array([5])
    if name == "one node each":
        return np.sort(rng.permutation(1000)[:40])
    table = {"gaps": ids * 7 // 3, "negative": ids * 2 - 11, "huge": ids.astype("i8") * 2**57 - 7}
    return rng.permutation(table.get(name, ids))


@pytest.mark.parametrize("reduction", ["group", "node", "none"])
@pytest.mark.parametrize("per", ["node", "group"])
@pytest.mark.parametrize("name", SCENES)
def test_a_loop_over_groups_gives_the_same(name: str, per: str, reduction: str) -> None:
    rng = np.random.default_rng(7)
    ids = scene(name, rng)
    names, index = np.unique(ids, return_inverse=True)
    p, t = rng.random(len(ids)), rng.random(len(names))
    targets = t[index] if per == "node" else t

    value = group_reconstruction_loss(
        *map(torch.from_numpy, (p, targets, ids)), reduction=reduction, targets_per=per
    )

    expected = oracle(p, targets, ids, per_node=per == "node", reduction=reduction)
    assert_close(value, expected)


@pytest.mark.parametrize("reduction", ["group", "node", "none"])
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
def test_overlapping_membership_with_weights(order: str, reduction: str) -> None:
    rng = np.random.default_rng(1)
    nodes, ids = rng.integers(0, 20, 90), rng.integers(0, 12, 90) * 5
    ids = np.sort(ids) if order == "sorted" else ids
    weight = rng.random(90) * (rng.random(90) > 0.3)
    weight[ids == ids[40]] = 0.0
    p, t = rng.random(20), rng.random(len(set(ids.tolist())))

    tensors = {"node_ids": torch.from_numpy(nodes), "weight": torch.from_numpy(weight)}
    value = group_reconstruction_loss(
        *map(torch.from_numpy, (p, t, ids)), **tensors, reduction=reduction
    )

    assert_close(value, oracle(p, t, ids, nodes=nodes, weight=weight, reduction=reduction))


def test_worked_example() -> None:
    p = torch.tensor([0.0, 0.4, 1.0, 0.3])
    ids = torch.tensor([1, 1, 1, 0])
    target = torch.tensor([0.0, 0.6, 0.6, 0.6])[[1, 2, 3, 0]]

    loss = GroupReconstructionLoss()
    errors = GroupReconstructionLoss(reduction="none")(p, target, ids)

    mean = 1.4 / 3
    assert_close(errors, [0.3**2, (mean - 0.6) ** 2], rtol=1e-6)
    assert_close(loss(p, target, ids), (0.09 + (mean - 0.6) ** 2) / 2, rtol=1e-6)
    by_node = GroupReconstructionLoss(reduction="node")(p, target, ids)
    assert_close(by_node, (0.09 + 3 * (mean - 0.6) ** 2) / 4, rtol=1e-6)


def test_gradient_is_the_same_for_all_nodes_of_a_group() -> None:
    p = torch.tensor([0.1, 0.5, 0.9], requires_grad=True)

    group_reconstruction_loss(p, torch.tensor([0.0, 1.0]), torch.tensor([4, 4, 9])).backward()

    assert p.grad is not None
    assert_close(p.grad, [2 * 0.3 / 2 / 2, 2 * 0.3 / 2 / 2, 2 * -0.1 / 2], rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"reduction": "node"}, {"num_groups": 6}])
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
def test_gradients_match_finite_differences(order: str, options: dict) -> None:
    ids = torch.tensor([0, 1, 1, 2, 3, 3, 4, 5, 5])
    ids = ids if order == "sorted" else ids[torch.randperm(9)]
    p = torch.rand(9, dtype=torch.float64, requires_grad=True)
    t = torch.rand(6, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(9, dtype=torch.float64, requires_grad=True)

    def f(p, t, weight):
        return group_reconstruction_loss(p, t, ids, weight=weight, **options)

    assert torch.autograd.gradcheck(f, (p, t, weight))
    assert torch.autograd.gradgradcheck(f, (p, t, weight))


@pytest.mark.parametrize("ids", [[0, 0, 1, 1], [1, 0, 0, 1]])
def test_function_transforms_give_the_same_gradient(ids: list[int]) -> None:
    p, t, ids = torch.rand(4, requires_grad=True), torch.rand(2), torch.tensor(ids)

    gradient = torch.func.grad(lambda p: group_reconstruction_loss(p, t, ids))(p)

    assert_close(gradient, torch.autograd.grad(group_reconstruction_loss(p, t, ids), p)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("order", ["sorted", "unsorted"])
def test_half_precision_accumulates_in_float32(dtype: torch.dtype, order: str) -> None:
    ids = torch.arange(200_000) // 50_000
    ids = ids if order == "sorted" else ids[torch.randperm(200_000)]
    p = torch.rand(200_000).to(dtype).requires_grad_()
    t = torch.rand(4).to(dtype)

    value = group_reconstruction_loss(p, t, ids)
    value.backward()

    assert value.dtype == torch.float32
    assert_close(value, group_reconstruction_loss(p.double(), t.double(), ids), rtol=1e-5)
    assert p.grad is not None
    assert p.grad.dtype == dtype
    assert bool(p.grad.isfinite().all())


@pytest.mark.parametrize("order", ["sorted", "unsorted", "weighted"])
def test_means_of_large_groups_do_not_drift(order: str) -> None:
    """Equal numbers, added one by one in float32, are rounded the same way each time."""
    p = torch.full((400_000,), 0.1)
    ids = torch.arange(400_000) // 200_000 if order == "sorted" else torch.arange(400_000) % 2
    weight = torch.full((400_000,), 0.3) if order == "weighted" else None

    value = group_reconstruction_loss(p, torch.zeros(2), ids, weight=weight)

    assert value.dtype == torch.float32
    assert_close(value, torch.tensor(0.01), rtol=1e-6)


def test_groups_that_do_not_occur_are_left_out() -> None:
    p, ids = torch.tensor([0.5, 0.7, 0.9]), torch.tensor([3, 1, 3])
    t = torch.tensor([torch.nan, 0.0, torch.nan, 0.0, torch.nan])
    p.requires_grad_()

    value = group_reconstruction_loss(p, t, ids, num_groups=5)
    value.backward()

    assert_close(value, 0.49, rtol=1e-6)
    assert p.grad is not None
    assert_close(p.grad, [0.35, 0.7, 0.35], rtol=1e-6)
    errors = group_reconstruction_loss(p, t, ids, num_groups=5, reduction="none")
    assert_close(errors, [0.0, 0.49, 0.0, 0.49, 0.0], rtol=1e-6)


def test_weight_zero_hides_a_node_even_if_it_is_nan() -> None:
    p = torch.tensor([0.5, torch.nan, 0.1], requires_grad=True)
    weight = torch.tensor([True, False, True])

    value = group_reconstruction_loss(p, torch.tensor([1.0]), torch.zeros(3).long(), weight=weight)
    value.backward()

    assert_close(value, 0.49, rtol=1e-6)
    assert p.grad is not None
    assert_close(p.grad, [-0.7, 0.0, -0.7], rtol=1e-6)


@pytest.mark.parametrize("num_groups", [None, 3])
def test_no_node_at_all_costs_nothing(num_groups: int | None) -> None:
    p = torch.zeros(0, requires_grad=True)

    t, ids = torch.zeros(num_groups or 0), torch.zeros(0).long()
    value = group_reconstruction_loss(p, t, ids, num_groups=num_groups)
    value.backward()

    assert value == 0
    assert p.grad is not None


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.uint8, torch.int64])
def test_any_integer_type_names_groups_and_nodes(dtype: torch.dtype) -> None:
    ids, node_ids = torch.tensor([72, 3, 3, 100], dtype=dtype), torch.arange(4).to(dtype)
    p = torch.tensor([1.0, 2.0, 4.0, 0.0])

    errors = group_reconstruction_loss(p, torch.zeros(3), ids, node_ids=node_ids, reduction="none")

    assert errors.tolist() == [9.0, 1.0, 0.0]


def test_integer_targets_are_numbers() -> None:
    value = group_reconstruction_loss(
        torch.tensor([0.5, 0.5]), torch.tensor([1, 0]), torch.tensor([0, 1])
    )

    assert value == 0.25


def test_length_of_ids_does_not_change_how_they_add_up() -> None:
    """Numbers of nodes that do not divide by the number of tables lose no node."""
    for nodes in range(300, 309):
        p, ids = torch.rand(nodes, dtype=torch.float64), torch.randint(0, 5, (nodes,))
        ids[:5] = torch.arange(4, -1, -1)
        t = torch.rand(5, dtype=torch.float64)

        value = group_reconstruction_loss(p, t, ids)

        assert_close(value, oracle(p.numpy(), t.numpy(), ids.numpy()))


def test_different_targets_in_a_group_are_named() -> None:
    p, t = torch.zeros(5), torch.tensor([1.0, 1.0, 0.25, 0.5, 0.25])

    for ids, name in ([3, 3, 8, 8, 8], 8), ([-3, -4, 40, 40, 40], 40), ([9, 2, 5, 5, 4], 5):
        with pytest.raises(ValueError, match=f"targets must be the same.*in group {name}"):
            group_reconstruction_loss(p, t, torch.tensor(ids), targets_per="node")
    with pytest.raises(ValueError, match="nan and nan in group 0"):
        group_reconstruction_loss(p, t * torch.nan, torch.zeros(5).long())


def test_as_many_groups_as_nodes_in_another_order_have_to_be_told_apart() -> None:
    p, t = torch.tensor([0.1, 0.2]), torch.tensor([0.0, 1.0])
    falling, rising = torch.tensor([9, 4]), torch.tensor([4, 9])

    with pytest.raises(ValueError, match="targets_per must be given"):
        group_reconstruction_loss(p, t, falling)
    with pytest.raises(ValueError, match="targets_per must be given"):
        group_reconstruction_loss(
            p[:1].expand(3), torch.zeros(3), torch.zeros(3).long(), num_groups=3
        )

    assert_close(group_reconstruction_loss(p, t, rising), (0.01 + 0.64) / 2, rtol=1e-6)
    by_node = group_reconstruction_loss(p, t, falling, targets_per="node")
    assert_close(by_node, (0.01 + 0.64) / 2, rtol=1e-6)
    by_group = group_reconstruction_loss(p, t, falling, targets_per="group")
    assert_close(by_group, (0.81 + 0.04) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.zeros(4)}, r"targets must be one per node \(3\) or one per group \(2\)"),
        (
            {"targets": torch.zeros(3), "targets_per": "group"},
            r"targets must be one per group \(2\); got shape \(3,\)",
        ),
        ({"targets_per": "node"}, r"targets must be one per node \(3\); got shape \(2,\)"),
        ({"group_ids": torch.tensor([0, 1])}, r"group_ids must be one id per node \(3 nodes\)"),
        ({"node_ids": torch.tensor([0, 1])}, r"node_ids must be of the shape of group_ids, \(3,\)"),
        ({"weight": torch.ones(4)}, r"weight must be of the shape of group_ids, \(3,\)"),
        ({"weight": torch.tensor([1.0, -2.0, 1.0])}, "weight must be zero or positive; got -2"),
        ({"node_ids": torch.tensor([0, 1, 3])}, r"node_ids must be in \[0, 3\); got values from 0"),
        ({"num_groups": 1}, r"group_ids must be in \[0, num_groups 1\); got values from 0 to 1"),
        ({"num_groups": -1}, "num_groups must be at least 0; got -1"),
    ],
)
@pytest.mark.usefixtures("_unchecked_shapes")
def test_errors_name_what_is_wrong(change: dict, message: str) -> None:
    arguments = {
        "predictions": torch.zeros(3),
        "targets": torch.zeros(2),
        "group_ids": torch.tensor([1, 0, 1]),
    }

    with pytest.raises(ValueError, match=message):
        group_reconstruction_loss(**{**arguments, **change})


@pytest.mark.parametrize("times", [1, 50])
@pytest.mark.parametrize("ids", [[0, 1, 4], [4, 1, 0], [-1, 2, 1], [3, -1, 0]])
def test_ids_out_of_range_are_named_in_any_order_and_number(ids: list[int], times: int) -> None:
    ids = torch.tensor(ids).repeat_interleave(times)

    with pytest.raises(
        ValueError, match=rf"in \[0, num_groups 3\); got values from {ids.min()} to"
    ):
        group_reconstruction_loss(
            torch.zeros(len(ids)), torch.zeros(3), ids, num_groups=3, targets_per="group"
        )


@pytest.mark.parametrize("name", ["reduction", "targets_per"])
@pytest.mark.usefixtures("_unchecked_shapes")
def test_unknown_words_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be one of .*; got 'mean'"):
        group_reconstruction_loss(
            torch.zeros(1), torch.zeros(1), torch.zeros(1).long(), **{name: "mean"}
        )


@pytest.mark.usefixtures("_unchecked_shapes")
def test_wrong_types_and_axes_are_named() -> None:
    p, ids = torch.zeros(2), torch.zeros(2).long()

    with pytest.raises(TypeError, match="predictions must be floating point"):
        group_reconstruction_loss(ids, p, ids)
    with pytest.raises(TypeError, match="group_ids must be of an integer type"):
        group_reconstruction_loss(p, p, p)
    with pytest.raises(ValueError, match=r"predictions must be of one axis .*; got shape \(2, 1\)"):
        group_reconstruction_loss(p[:, None], p, ids)
    with pytest.raises(ValueError, match=r"targets must be of one axis; got shape \(2, 1\)"):
        group_reconstruction_loss(p, p[:, None], ids)


@pytest.mark.parametrize("num_groups", [None, 9])
@pytest.mark.parametrize("per", ["node", "group"])
def test_where_reading_would_stall_nothing_is_read(monkeypatch, per: str, num_groups) -> None:
    """As on a GPU and in a compiled graph, which are told apart from a CPU by one question."""
    p, ids = torch.rand(60, dtype=torch.float64), torch.arange(60)[torch.randperm(60)] % 9
    t = torch.rand(9, dtype=torch.float64)
    t = t[ids] if per == "node" else t
    expected = group_reconstruction_loss(p, t, ids)

    monkeypatch.setattr(torch.compiler, "_is_compiling_flag", True)
    with _Reads() as reads:
        value = group_reconstruction_loss(p, t, ids, num_groups=num_groups)

    assert reads.names == []
    assert_close(value, expected)


def test_where_nothing_is_read_wrong_targets_give_nan(monkeypatch) -> None:
    p, ids = torch.rand(4), torch.tensor([0, 0, 5, 9])
    monkeypatch.setattr(torch.compiler, "_is_compiling_flag", True)

    for targets, per in (
        (torch.rand(2), "group"),
        (torch.rand(4), "group"),
        (torch.tensor([0.1, 0.2, 0.3, 0.4]), "node"),
    ):
        assert group_reconstruction_loss(p, targets, ids, targets_per=per).isnan()
    with pytest.raises(ValueError, match="num_groups must be given to compile"):
        group_reconstruction_loss(p, p, ids, reduction="none")
