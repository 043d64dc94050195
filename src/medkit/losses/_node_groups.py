"""Which node belongs to which group, and sums over groups."""

from typing import NamedTuple

import torch
from torch import Tensor

from medkit._core import check
from medkit.ops import scatter_sum, segment_sum

_ROWS = 4
"""Tables that a sum on a CPU is spread over, so that threads can add; a fixed number."""

_GLANCE = 1024
"""Ids that are looked at first to see whether they are in order."""


class NodeGroups(NamedTuple):
    """Groups in the order of their sorted ids.

    Each member of a group goes into one of ``size`` slots, ``slots`` says into which and
    ``counts`` how many went into each; with ``in_runs`` the members of a slot are neighbours.
    Groups are the slots that ``kept`` names, None for all of them, and ``ids`` are their ids, None
    for their number. ``valid`` is False if the ids do not fit ``size``, None if that is checked.
    """

    slots: Tensor
    size: int
    counts: Tensor
    in_runs: bool = False
    kept: Tensor | None = None
    ids: Tensor | None = None
    valid: Tensor | None = None

    @property
    def number(self) -> int:
        """Number of groups."""
        return self.size if self.kept is None else self.kept.shape[0]

    def pick(self, values: Tensor) -> Tensor:
        """Return the values of groups from those of slots."""
        return values if self.kept is None else values.index_select(0, self.kept)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of each group from the values of members."""
        if self.in_runs:
            return segment_sum(values, self.slots, lengths=self.counts)
        return self.pick(slot_sums(values, self.slots, self.size))

    def member_of(self, values: Tensor) -> Tensor:
        """Return for each slot the value of one of its members, anything for an empty one."""
        if self.in_runs and values.numel():
            first = self.counts.cumsum(0) - self.counts
            return values.index_select(0, first.clamp(max=values.shape[0] - 1))
        return values.new_zeros(self.size).scatter_(0, self.slots, values)

    def id_of(self, slot: int) -> int:
        """Return the id of the group in a slot."""
        if self.ids is None:
            return slot
        at = slot if self.kept is None else int((self.kept == slot).nonzero())
        return int(self.ids[at])


def node_groups(
    group_ids: Tensor, num_groups: int | None, *, at_most: int, may_read: bool
) -> NodeGroups:
    """Return the groups that ids name.

    Args:
        group_ids: Id of the group of each member.
        num_groups: Number of groups, with ids from zero; None takes the ids that occur.
        at_most: How many different ids there can be, where they are not read.
        may_read: Whether values may be read to choose a way and to check, which stalls a GPU.
    """
    ids = group_ids.long()
    runs = _runs(ids, num_groups) if may_read else None
    if runs is not None:
        return runs
    if num_groups is None:
        return _compact(ids) if may_read else _ranked(ids, at_most)
    try:
        return NodeGroups(ids, num_groups, _counts(ids, num_groups))
    except (RuntimeError, ValueError):  # the sum has met an id that is out of range
        if may_read:
            _check_range(int(ids.min()), int(ids.max()), num_groups)
        raise


def slot_sums(values: Tensor, slots: Tensor, size: int) -> Tensor:
    """Return the sum of the values of each slot."""
    length = values.shape[0]
    if values.device.type != "cpu" or length < _ROWS * size:
        return scatter_sum(values, slots, 0, size)
    whole = length - length % _ROWS
    table = values.new_zeros(_ROWS, size).scatter_add_(
        1, slots[:whole].reshape(_ROWS, -1), values[:whole].reshape(_ROWS, -1)
    )
    total = table.sum(0, dtype=values.dtype)
    return total.scatter_add(0, slots[whole:], values[whole:]) if whole < length else total


def _counts(slots: Tensor, size: int) -> Tensor:
    one = torch.ones((), dtype=torch.int32, device=slots.device)
    return slot_sums(one.expand(slots.shape), slots, size)


def _check_range(low: int, high: int, num_groups: int) -> None:
    if low < 0 or high >= num_groups:
        rule = f"in [0, num_groups {num_groups})"
        raise check.fail("group_ids", rule, f"values from {low} to {high}")


def _runs(ids: Tensor, num_groups: int | None) -> NodeGroups | None:
    """Return groups whose members are neighbours, or None if the ids are not in order."""
    first = ids[:_GLANCE]
    if bool((first[1:] < first[:-1]).any()):
        return None
    names, lengths = _neighbours(ids)
    if bool((names[1:] < names[:-1]).any()):
        return None
    if num_groups is not None:
        if names.numel():
            _check_range(int(names[0]), int(names[-1]), num_groups)
        counts = lengths.new_zeros(num_groups).scatter(0, names, lengths)
        return NodeGroups(ids, num_groups, counts, in_runs=True)
    number = names.shape[0]
    if number and int(names[0]) == 0 and int(names[-1]) == number - 1:
        return NodeGroups(ids, number, lengths, in_runs=True)
    slots = torch.arange(number, device=ids.device)
    slots = slots.repeat_interleave(lengths, output_size=ids.shape[0])
    return NodeGroups(slots, number, lengths, in_runs=True, ids=names)


def _neighbours(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return each run of equal ids once, and its length."""
    return torch.unique_consecutive(ids, return_counts=True)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  untyped


def _compact(ids: Tensor) -> NodeGroups:
    """Return groups of ids in any order, by a table over their range if that is short."""
    low, high = (int(bound) for bound in ids.aminmax())
    size = high - low + 1
    if size > 4 * ids.shape[0]:
        ordered, order = ids.sort()
        names, counts = _neighbours(ordered)
        slots = torch.arange(names.shape[0], device=ids.device).repeat_interleave(counts)
        slots = torch.empty_like(ids).scatter(0, order, slots)
        return NodeGroups(slots, names.shape[0], counts, ids=names)
    slots = ids if low == 0 else ids - low
    counts = _counts(slots, size)
    if bool((counts > 0).all()):
        names = None if low == 0 else torch.arange(low, high + 1, device=ids.device)
        return NodeGroups(slots, size, counts, ids=names)
    kept = counts.nonzero().squeeze(1)
    return NodeGroups(slots, size, counts, kept=kept, ids=kept + low)


def _ranked(ids: Tensor, at_most: int) -> NodeGroups:
    """Return groups by the rank of their id, from a sort, without reading a value."""
    ordered, order = ids.sort()
    rank = (ordered[1:] != ordered[:-1]).cumsum(0)
    rank = torch.cat([rank.new_zeros(min(1, ids.shape[0])), rank])
    slots = torch.empty_like(ids).scatter(0, order, rank.clamp(max=at_most - 1))
    different = rank[-1:].sum() + min(1, ids.shape[0])
    return NodeGroups(slots, at_most, _counts(slots, at_most), valid=different == at_most)
