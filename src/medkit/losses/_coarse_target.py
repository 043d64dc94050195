"""Targets brought to the size of a coarser prediction, so that thin structures survive."""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from medkit._core import check
from medkit.ops import class_index

ONE = 1e-2
"""How far from one the values of a voxel may sum up and still exclude each other."""


class Truth(NamedTuple):
    """A target and the voxels that count."""

    target: Tensor
    mask: Tensor | None


def coarse_truth(
    truth: Truth, size: Sequence[int], *, num_classes: int, ignore_index: int | None
) -> Truth:
    """Return target and mask at a size that is no larger along any axis.

    A coarse voxel covers all voxels that it touches. Of those that count it takes the rarest class
    of the sample's foreground (of equally rare ones the last), or else the background. Values per
    channel are the largest; where those of a sample sum up to one in each voxel, the rarest channel
    takes its part first and the background what is left. A coarse voxel is left out where all of
    its voxels are, and weighs as much as the heaviest of them.
    """
    target, mask = truth
    dims = len(size)
    has_channel = target.ndim == dims + 2
    holds_values = has_channel and (
        target.shape[1] == num_classes > 1 or (num_classes == 1 and target.is_floating_point())
    )
    weight = None if mask is None else mask.reshape(len(mask), *mask.shape[-dims:])
    if holds_values:
        if ignore_index is not None:
            rule = "None for a target of one value per channel, where mask says what to leave out"
            raise check.fail("ignore_index", rule, ignore_index)
        values = _coarse_values(target, None if weight is None else weight > 0, size)
        return Truth(values, None if weight is None else window_max(weight, size))
    labels = target.reshape(len(target), *target.shape[-dims:])
    if weight is not None:
        labels = torch.where(weight > 0, labels, 0)
    index, counted = class_index(
        labels, num_classes=max(2, num_classes), ignore_index=ignore_index, name="target"
    )
    if weight is not None:
        counted = weight > 0 if counted is None else counted & (weight > 0)
        weight = window_max(weight.where(counted, weight.new_zeros(())), size)
    coarse = _coarse_labels(index, counted, size, max(2, num_classes), ignore_index)
    return Truth(coarse.unsqueeze(1) if has_channel else coarse, weight)


def window_max(values: Tensor, size: Sequence[int]) -> Tensor:
    """Return the largest value in each window along the last axes, one axis after the other.

    Window ``i`` of ``m`` over ``n`` values reaches from ``floor(i n / m)`` to before
    ``ceil((i + 1) n / m)``: where ``n / m`` is no whole number, neighbours share a value.
    """
    for axis, parts in enumerate(size, start=values.ndim - len(size)):
        whole = values.shape[axis]
        if whole == parts:
            continue
        if whole % parts == 0:
            step = whole // parts
            at = (slice(None),) * axis
            pieces = [values[(*at, slice(i, None, step))] for i in range(step)]
        else:
            number = torch.arange(parts, device=values.device)
            first = number * whole // parts
            last = ((number + 1) * whole - 1) // parts
            longest = -(-whole // parts) + 1
            pieces = [
                values.index_select(axis, (first + i).clamp(max=last)) for i in range(longest)
            ]
        values = reduce(torch.maximum, pieces)
    return values


def _rarity(counts: Tensor) -> Tensor:
    """Return the classes in order, ``(batch, class)``: background, then the rarest last."""
    foreground = counts[:, 1:].argsort(dim=1, descending=True, stable=True) + 1
    return torch.cat([torch.zeros_like(foreground[:, :1]), foreground], dim=1)


def _coarse_labels(
    index: Tensor,
    counted: Tensor | None,
    size: Sequence[int],
    num_classes: int,
    ignore_index: int | None,
) -> Tensor:
    """Return the class of each coarse voxel, ``ignore_index`` or 0 where none counts."""
    flat = index.flatten(1)
    ones = torch.ones_like(flat) if counted is None else counted.flatten(1).to(flat.dtype)
    counts = flat.new_zeros(len(flat), num_classes).scatter_add_(1, flat, ones)
    order = _rarity(counts)
    rank = order.argsort(dim=1).to(torch.int16).gather(1, flat).reshape(index.shape)
    if counted is not None:
        rank = torch.where(counted, rank, -1)
    highest = window_max(rank, size).long()
    classes = order.gather(1, highest.clamp(min=0).flatten(1)).reshape(highest.shape)
    if counted is None:
        return classes
    return torch.where(highest < 0, ignore_index or 0, classes)


def _coarse_values(values: Tensor, counted: Tensor | None, size: Sequence[int]) -> Tensor:
    """Return the values of each coarse voxel, zero where none counts."""
    values = values if values.is_floating_point() else values.float()
    if counted is not None:
        values = torch.where(counted.unsqueeze(1), values, 0.0)
    largest = window_max(values, size)
    if values.shape[1] == 1:
        return largest
    sums = values.sum(1)
    whole = (sums - 1).abs() <= ONE
    exclusive = whole if counted is None else whole | ~counted
    counts = values.flatten(2).sum(-1, dtype=torch.promote_types(values.dtype, torch.float32))
    first_come = _rarity(counts).flip(1)
    place = first_come.reshape(*first_come.shape, *[1] * len(size)).expand_as(largest)
    in_order = largest.gather(1, place)
    before = in_order.cumsum(1) - in_order
    shares = torch.minimum(in_order, (1 - before).clamp(min=0))
    shared = torch.zeros_like(largest).scatter(1, place, shares)
    each = exclusive.flatten(1).all(1).reshape(-1, *[1] * (largest.ndim - 1))
    return torch.where(each, shared, largest)
