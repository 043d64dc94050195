"""Group reconstruction loss."""

from typing import Literal

import torch
from jaxtyping import Float, Integer, Num, Shaped
from torch import Tensor, nn

from medkit._core import check

from ._node_groups import NodeGroups, node_groups, slot_sums

GroupReduction = Literal["group", "node", "none"]
TargetsPer = Literal["node", "group"]

LARGE = 4096
"""Members above which float32, which rounds equal numbers alike, would drift from the mean."""


def group_reconstruction_loss(
    predictions: Float[Tensor, "node"],
    targets: Num[Tensor, "target"],
    group_ids: Integer[Tensor, "member"],
    *,
    node_ids: Integer[Tensor, "member"] | None = None,
    weight: Shaped[Tensor, "member"] | None = None,
    num_groups: int | None = None,
    targets_per: TargetsPer | None = None,
    reduction: GroupReduction = "group",
) -> Float[Tensor, "..."]:
    r"""Squared difference between the mean prediction of each group and its target.

    .. math::
        L = \frac{1}{G} \sum_g (\bar p_g - t_g)^2, \qquad
        \bar p_g = \frac{\sum_{m:\,g_m = g} w_m\,p_{n_m}}{\sum_{m:\,g_m = g} w_m}

    Use it to fit values at points to measurements over regions: the voxels of a coarse image, the
    cells of a slice, each of which averages the points inside. Means accumulate in float32, on a
    CPU in float64 where a group has thousands of members. Groups may have any number of members,
    one included; a group without members, or whose weights add up to zero, does not count;
    without any group the loss is 0. Predictions that are the mean of S stochastic passes make the
    expected loss :math:`(\mathrm{E}\,\bar p - t)^2 + \mathrm{Var}(\bar p)/S`, so S regularises.

    Nothing is read back from a GPU or inside a compiled graph. There, targets that do not fit the
    groups make the loss NaN, where a CPU raises.

    Args:
        predictions: Value predicted at each node.
        targets: Value of each group: one per node, the same for all nodes of a group, or one per
            group in the order of the sorted ids that occur. No gradient flows into targets per
            node.
        group_ids: Group of each node: any integers, in any order, with any gaps. Sorted ids are
            summed in runs, without collisions. With ``node_ids``, the group of each member.
        node_ids: Position in ``predictions`` of each member, for nodes that are in several groups
            or in none: row m of ``(node_ids, group_ids, weight)`` says that a node is in a group.
            None says that each node is in one group. Targets per node are then one per row.
        weight: How much each row counts in the mean of its group, zero or more; zero leaves it
            out. None counts all alike.
        num_groups: Number of groups where the ids are 0 to ``num_groups`` - 1; targets per group
            then have this length, and groups that do not occur are left out of the loss. None
            takes the ids that occur.
        targets_per: What ``targets`` has one of. None tells by its length; if both lengths are the
            same it takes it as per node, and a CPU raises unless both readings agree.
        reduction: "group": mean over groups; "node": mean over groups that counts each by its
            nodes, or their weights; "none": one value per group in the order of the sorted ids, 0
            for those that do not count.

    Returns:
        The loss, float32 or float64.

    Raises:
        TypeError: If ``predictions`` are not floating point or ids not integers.
        ValueError: If shapes do not fit, ids or weights are out of range, the nodes of a group
            have different targets, or the meaning of ``targets`` cannot be told.

    Example:
        >>> import torch
        >>> p = torch.tensor([0.2, 0.4, 0.9, 0.6])
        >>> ids = torch.tensor([7, 7, 3, 7])
        >>> loss = group_reconstruction_loss(p, torch.tensor([1.0, 0.5]), ids)
        >>> round(float(loss), 4)  # ((0.9 - 1.0)**2 + (0.4 - 0.5)**2) / 2
        0.01

    References:
        Sen et al., "Weakly supervised learning for scar reconstruction in personalized cardiac
        models: integrating 2D MRI to 3D anatomical models", Computers in Biology and Medicine 198,
        111219, 2025.
    """
    check.one_of("reduction", reduction, ("group", "node", "none"))
    check.one_of("targets_per", targets_per, ("node", "group", None))
    compiling = torch.compiler.is_compiling()
    on_cpu = predictions.device.type == "cpu" and not compiling
    _check_members(predictions, group_ids, node_ids, weight)
    if on_cpu:
        _check_values(predictions, node_ids, weight)
    length, members = _length(targets), group_ids.shape[0]
    per_node = targets_per == "node" or (targets_per is None and length == members)
    if compiling and per_node and num_groups is None and reduction == "none":
        raise check.fail("num_groups", "given to compile one value per group", num_groups)
    groups = node_groups(
        group_ids,
        None if num_groups is None else check.integer("num_groups", num_groups, minimum=0),
        at_most=length,
        may_read=on_cpu or (not compiling and per_node and reduction == "none"),
    )
    _check_length(length, members, groups, targets_per, per_node=per_node)
    if on_cpu and targets_per is None and per_node and groups.number == members:
        _check_reading(groups)
    dtype = torch.float64 if predictions.dtype == torch.float64 else torch.float32
    large = on_cpu and groups.counts.numel() and int(groups.counts.max()) > LARGE
    values = predictions.to(torch.float64 if large else dtype)
    mean, mass = (each.to(dtype) for each in _means(values, node_ids, weight, groups))
    target = (_of_nodes(targets, groups, dtype, may_read=on_cpu) if per_node else targets).to(dtype)
    error = torch.where(mass > 0, mean - target, 0).square()
    if groups.valid is not None and not per_node:
        error = torch.where(groups.valid, error, torch.nan)
    if reduction == "none":
        return error
    share = (mass > 0).to(dtype) if reduction == "group" else mass
    total = share.sum()
    return (share * error).sum() / torch.where(total > 0, total, 1)


class GroupReconstructionLoss(nn.Module):
    """Squared difference of group means and targets, with its options stored.

    Args:
        targets_per: What targets have one of, "node" or "group"; None tells by their length.
        reduction: "group": mean over groups; "node": mean over groups that counts each by its
            nodes; "none": one value per group.

    Example:
        >>> import torch
        >>> loss = GroupReconstructionLoss(reduction="none")
        >>> p = torch.tensor([0.0, 1.0, 1.0])
        >>> loss(p, torch.tensor([0.5, 0.5]), torch.tensor([0, 0, 1]))
        tensor([0.0000, 0.2500])

    References:
        Sen et al., "Weakly supervised learning for scar reconstruction in personalized cardiac
        models: integrating 2D MRI to 3D anatomical models", Computers in Biology and Medicine 198,
        111219, 2025.
    """

    def __init__(
        self, *, targets_per: TargetsPer | None = None, reduction: GroupReduction = "group"
    ) -> None:
        super().__init__()
        self.targets_per: TargetsPer | None = targets_per
        self.reduction: GroupReduction = reduction

    def forward(
        self,
        predictions: Float[Tensor, "node"],
        targets: Num[Tensor, "target"],
        group_ids: Integer[Tensor, "member"],
        *,
        node_ids: Integer[Tensor, "member"] | None = None,
        weight: Shaped[Tensor, "member"] | None = None,
        num_groups: int | None = None,
    ) -> Float[Tensor, "..."]:
        """Return the loss of predictions at nodes against the targets of their groups.

        Args:
            predictions: Value predicted at each node.
            targets: Value of each group, one per node or one per group.
            group_ids: Group of each node, or of each row of ``node_ids``.
            node_ids: Position in ``predictions`` of each row of ``group_ids``; None says that
                each node is in one group.
            weight: How much each row counts in the mean of its group; None counts all alike.
            num_groups: Number of groups where ids are 0 to ``num_groups`` - 1; None takes the ids
                that occur.
        """
        return group_reconstruction_loss(
            predictions,
            targets,
            group_ids,
            node_ids=node_ids,
            weight=weight,
            num_groups=num_groups,
            targets_per=self.targets_per,
            reduction=self.reduction,
        )


def _length(targets: Tensor) -> int:
    if targets.ndim != 1:
        raise check.fail("targets", "of one axis", f"shape {tuple(targets.shape)}")
    return targets.shape[0]


def _check_members(
    predictions: Tensor, group_ids: Tensor, node_ids: Tensor | None, weight: Tensor | None
) -> None:
    if not predictions.is_floating_point():
        raise TypeError(f"predictions must be floating point; got {predictions.dtype}")
    if predictions.ndim != 1:
        rule = "of one axis (squeeze or average the others)"
        raise check.fail("predictions", rule, f"shape {tuple(predictions.shape)}")
    nodes = predictions.shape[0]
    for name, ids in (("group_ids", group_ids), ("node_ids", node_ids)):
        if ids is not None and (ids.is_floating_point() or ids.dtype == torch.bool):
            raise TypeError(f"{name} must be of an integer type; got {ids.dtype}")
    if group_ids.ndim != 1 or (node_ids is None and group_ids.shape[0] != nodes):
        rule = "one id per node" if node_ids is None else "of one axis"
        raise check.fail("group_ids", f"{rule} ({nodes} nodes)", f"shape {tuple(group_ids.shape)}")
    for name, each in (("node_ids", node_ids), ("weight", weight)):
        if each is not None and each.shape != group_ids.shape:
            rule = f"of the shape of group_ids, {tuple(group_ids.shape)}"
            raise check.fail(name, rule, f"shape {tuple(each.shape)}")


def _check_values(predictions: Tensor, node_ids: Tensor | None, weight: Tensor | None) -> None:
    if node_ids is not None and node_ids.numel():
        nodes = predictions.shape[0]
        low, high = (int(bound) for bound in node_ids.aminmax())
        if low < 0 or high >= nodes:
            raise check.fail("node_ids", f"in [0, {nodes})", f"values from {low} to {high}")
    if weight is not None and bool((weight < 0).any()):
        raise check.fail("weight", "zero or positive", float(weight.min()))


def _check_length(
    length: int, members: int, groups: NodeGroups, targets_per: TargetsPer | None, *, per_node: bool
) -> None:
    rules = {"node": f"one per node ({members})", "group": f"one per group ({groups.number})"}
    expected = members if per_node else groups.number
    if length != expected:
        rule = rules[targets_per] if targets_per else " or ".join(rules.values())
        raise check.fail("targets", rule, f"shape ({length},)")


def _check_reading(groups: NodeGroups) -> None:
    """Raise if targets per node and targets per group would be in different order."""
    if not torch.equal(groups.slots, torch.arange(groups.number)):
        rule = "given where there are as many groups as nodes and their orders differ"
        raise check.fail("targets_per", rule, None)


def _means(
    predictions: Tensor, node_ids: Tensor | None, weight: Tensor | None, groups: NodeGroups
) -> tuple[Tensor, Tensor]:
    """Return the mean prediction of each group, and the sum of its weights."""
    values = predictions if node_ids is None else predictions.index_select(0, node_ids.long())
    if weight is None:
        mass = groups.pick(groups.counts).to(values.dtype)
    else:
        weight = weight.to(values.dtype)
        mass = groups.sum(weight)
        values = torch.where(weight > 0, values, 0) * weight
    return groups.sum(values) / torch.where(mass > 0, mass, 1), mass


def _of_nodes(targets: Tensor, groups: NodeGroups, dtype: torch.dtype, *, may_read: bool) -> Tensor:
    """Return the one target that all nodes of a group have, NaN or an error if they differ."""
    targets = targets.detach()
    by_slot = groups.member_of(targets)
    wrong = targets != by_slot.index_select(0, groups.slots)
    if not may_read:
        number = slot_sums(wrong.int(), groups.slots, groups.size)
        return groups.pick(by_slot.to(dtype).masked_fill(number > 0, torch.nan))
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        slot = int(groups.slots[first])
        values = f"{targets[first].item()} and {by_slot[slot].item()}"
        rule = "the same for all nodes of a group"
        raise check.fail("targets", rule, f"{values} in group {groups.id_of(slot)}")
    return groups.pick(by_slot)
