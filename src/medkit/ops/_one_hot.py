"""Class maps as one channel per class."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from medkit._core import check


class ClassIndex(NamedTuple):
    """Class indices, and which of them count.

    Attributes:
        classes: Class of each voxel, 0 where it does not count.
        counted: Whether a voxel counts; None if all do.
    """

    classes: Int64[Tensor, "..."]
    counted: Bool[Tensor, "..."] | None


_KEPT = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Types that PyTorch compares, selects and counts in; it has no more than names for others."""

_USUAL_IGNORED = 255  # marks voxels without a label in many data sets


def one_hot(
    labels: Shaped[Tensor, "batch *spatial"],
    *,
    num_classes: int,
    ignore_index: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Shaped[Tensor, "batch {num_classes} *spatial"]:
    r"""Return one channel per class from a map of class indices.

    .. math:: o_{bc}(v) = [\,l_b(v) = c\,]

    Use it to hand a class map to code that wants channels. The losses and metrics of medkit take
    class maps as they are and never build this tensor.

    Args:
        labels: Class of each voxel, integers or booleans in ``[0, num_classes)``.
        num_classes: Number of channels of the result.
        ignore_index: Label of voxels that belong to no class, any integer; their channels are
            all zero. None allows no such label.
        dtype: Type of the result, boolean too.

    Returns:
        Ones and zeros, channels first.

    Raises:
        TypeError: If ``labels`` are not integers or booleans.
        ValueError: If a label is neither a class nor ``ignore_index``.

    Example:
        >>> import torch
        >>> one_hot(torch.tensor([[0, 2, 255]]), num_classes=3, ignore_index=255)
        tensor([[[1., 0., 0.],
                 [0., 0., 0.],
                 [0., 1., 0.]]])
    """
    check.integer("num_classes", num_classes, minimum=1)
    index, counted = class_index(labels, num_classes=num_classes, ignore_index=ignore_index)
    shape = (index.shape[0], num_classes, *index.shape[1:])
    ones = torch.ones((), dtype=dtype, device=labels.device).expand(index.shape)
    source = ones if counted is None else counted.to(dtype)
    channels = torch.zeros(shape, dtype=dtype, device=labels.device)
    return channels.scatter_(1, index.unsqueeze(1), source.unsqueeze(1))


def class_index(
    labels: Shaped[Tensor, "..."],
    *,
    num_classes: int,
    ignore_index: int | None = None,
    name: str = "labels",
) -> ClassIndex:
    """Return class indices that are safe to gather with, and which of them count.

    Use it at the border of code that takes class maps. Labels are checked on the CPU, where that
    costs next to nothing. On another device, and in a compiled graph, where reading a value would
    wait for the device, only ``ignore_index`` is seen to; a gather then checks its index itself.

    Args:
        labels: Classes, integers or booleans.
        num_classes: How many classes there are; labels are below it.
        ignore_index: Label of voxels that do not count, any integer; they get index 0. None means
            that all count.
        name: What messages call the labels.

    Returns:
        The indices, and which count, None if all do.

    Raises:
        TypeError: If ``labels`` are not integers or booleans.
        ValueError: If a label is neither a class nor ``ignore_index``.

    Example:
        >>> import torch
        >>> class_index(torch.tensor([2, -1]), num_classes=3, ignore_index=-1)
        ClassIndex(classes=tensor([2, 0]), counted=tensor([ True, False]))
    """
    classes, counted = checked_classes(
        labels, num_classes=num_classes, ignore_index=ignore_index, name=name
    )
    return ClassIndex(classes.long(), counted)


def checked_classes(
    labels: Tensor, *, num_classes: int, ignore_index: int | None, name: str
) -> tuple[Tensor, Tensor | None]:
    """Return class indices as ``class_index`` does, but as narrow as they come."""
    check.kind(name, labels, Tensor, "a tensor")
    if labels.is_floating_point() or labels.is_complex():
        rule = "integers or booleans to be a map of classes"
        raise TypeError(f"{name} must be {rule}; got {labels.dtype}: call .long()")
    index = labels if _holds(labels.dtype, ignore_index) else labels.long()
    counted = None
    if ignore_index is not None:
        counted = index != ignore_index
        index = torch.where(counted, index, 0)
    if index.device.type == "cpu" and not torch.compiler.is_compiling() and index.numel():
        low, high = (int(bound) for bound in index.aminmax())
        if low < 0 or high >= num_classes:
            rule = f"in [0, {num_classes})"
            if ignore_index is not None:
                rule += f" or ignore_index {ignore_index}"
            got = f"values from {low} to {high}"
            if ignore_index is None and high == _USUAL_IGNORED:
                got += f"; voxels that do not count need ignore_index={high}"
            raise check.fail(name, rule, got)
    return index, counted


def _holds(dtype: torch.dtype, ignore_index: int | None) -> bool:
    """Return whether labels can be worked on as they are; -1 would be 255 among bytes."""
    if dtype not in _KEPT or ignore_index is None:
        return dtype in _KEPT
    limits = torch.iinfo(dtype)
    return limits.min <= ignore_index <= limits.max
