"""Sums, means and extrema of values that share an index."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Int, Integer, Num
from torch import Tensor

from medkit._core import check


class GroupExtrema(NamedTuple):
    """The smallest or largest value of each group, and where it stands.

    Attributes:
        values: The extremum; zero for a group without values.
        indices: Position of the extremum along the reduced axis, the first where several are
            equal; the length of that axis for a group without values.

    Example:
        >>> import torch
        >>> scatter_max(torch.tensor([3.0, 7.0, 5.0]), torch.tensor([0, 0, 2])).indices
        tensor([1, 3, 2])
    """

    values: Num[Tensor, "..."]
    indices: Int[Tensor, "..."]


def scatter_sum(
    src: Num[Tensor, "..."],
    index: Integer[Tensor, "..."],
    dim: int = -1,
    dim_size: int | None = None,
) -> Num[Tensor, "..."]:
    r"""Sum the values that share an index.

    .. math:: o_k = \sum_{i:\, g_i = k} x_i

    Use it where tensors hold groups of different sizes: nodes of a mesh by cell, voxels by
    structure. Names, order and meaning of the arguments are those of torch_scatter, and the sums
    are the same to the last bit on a CPU. What differs, here and in the other ``scatter``
    functions: float16 and bfloat16 are added up in float32; an index out of range is an error
    (torch_scatter's minimum and maximum write outside their memory); ``index`` may be of any
    integer type; and there is no ``out``, since medkit never writes into an argument:
    ``out + scatter_sum(src, index, dim, out.shape[dim])`` is the same.

    Args:
        src: Values.
        index: Group of each value, zero or above, in any order. One number per position along
            ``dim``, or any shape that becomes the shape of ``src`` by adding axes at its end and
            repeating axes of length one.
        dim: Axis of ``src`` to reduce.
        dim_size: Number of groups. None takes the largest index plus one, which has to be read:
            it stalls a GPU and ends a compiled graph.

    Returns:
        The sums, in the type of ``src``, with ``dim_size`` entries along ``dim``; zero for a group
        without values. Integers overflow as they do in PyTorch.

    Raises:
        TypeError: If ``index`` is not of an integer type or ``src`` is boolean.
        ValueError: If ``index`` does not fit ``src``; on a CPU, if it holds a number that is
            negative or not below ``dim_size``.

    Example:
        >>> import torch
        >>> scatter_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]))
        tensor([2., 0., 5.])

    References:
        M. Fey and J. E. Lenssen, "Fast Graph Representation Learning with PyTorch Geometric", ICLR
        workshop on representation learning on graphs and manifolds, 2019 (torch_scatter).
    """
    groups = group_by(src, index, dim, dim_size)
    return add_up(src, groups).to(src.dtype)


def scatter_mean(
    src: Num[Tensor, "..."],
    index: Integer[Tensor, "..."],
    dim: int = -1,
    dim_size: int | None = None,
) -> Num[Tensor, "..."]:
    r"""Average the values that share an index.

    .. math:: o_k = \frac{\sum_{i:\, g_i = k} x_i}{\max(1, |\{i : g_i = k\}|)}

    The mean of integers is rounded down, as in torch_scatter. The count is exact: torch_scatter
    counts in the type of ``src``, which overflows for small integers, and counts one value where
    ``index`` is repeated along ``dim``. Everything else is said at :func:`scatter_sum`.

    Args:
        src: Values.
        index: Group of each value, as for :func:`scatter_sum`.
        dim: Axis of ``src`` to reduce.
        dim_size: Number of groups; None takes the largest index plus one.

    Returns:
        The means, in the type of ``src``; zero for a group without values.

    Raises:
        TypeError: If ``index`` is not of an integer type or ``src`` is boolean.
        ValueError: If ``index`` does not fit ``src`` or is out of range.

    Example:
        >>> import torch
        >>> scatter_mean(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]))
        tensor([2.0000, 0.0000, 2.5000])
    """
    groups = group_by(src, index, dim, dim_size)
    return divide(add_up(src, groups), group_sizes(groups)).to(src.dtype)


def scatter_min(
    src: Num[Tensor, "..."],
    index: Integer[Tensor, "..."],
    dim: int = -1,
    dim_size: int | None = None,
) -> GroupExtrema:
    r"""Find the smallest of the values that share an index, and where it stands.

    .. math:: o_k = \min_{i:\, g_i = k} x_i

    The first of equal values is the one that is named and that receives the gradient, on every
    device (torch_scatter: any of them on a GPU). A NaN is the minimum of its group, as in
    ``torch.min``, and infinity is a value like any other; torch_scatter skips NaN and takes a
    group of infinities for an empty one. Everything else is said at :func:`scatter_sum`.

    Args:
        src: Values.
        index: Group of each value, as for :func:`scatter_sum`.
        dim: Axis of ``src`` to reduce.
        dim_size: Number of groups; None takes the largest index plus one.

    Returns:
        Values and positions; ``values, indices = scatter_min(...)`` takes them apart.

    Raises:
        TypeError: If ``index`` is not of an integer type or ``src`` is boolean.
        ValueError: If ``index`` does not fit ``src`` or is out of range.

    Example:
        >>> import torch
        >>> smallest = scatter_min(torch.tensor([3.0, 7.0, 5.0]), torch.tensor([0, 2, 2]))
        >>> smallest.values, smallest.indices
        (tensor([3., 0., 5.]), tensor([0, 3, 2]))
    """
    return _extrema(src, group_by(src, index, dim, dim_size), "amin")


def scatter_max(
    src: Num[Tensor, "..."],
    index: Integer[Tensor, "..."],
    dim: int = -1,
    dim_size: int | None = None,
) -> GroupExtrema:
    r"""Find the largest of the values that share an index, and where it stands.

    .. math:: o_k = \max_{i:\, g_i = k} x_i

    Ties, NaN, infinity and empty groups are as in :func:`scatter_min`.

    Args:
        src: Values.
        index: Group of each value, as for :func:`scatter_sum`.
        dim: Axis of ``src`` to reduce.
        dim_size: Number of groups; None takes the largest index plus one.

    Returns:
        Values and positions; ``values, indices = scatter_max(...)`` takes them apart.

    Raises:
        TypeError: If ``index`` is not of an integer type or ``src`` is boolean.
        ValueError: If ``index`` does not fit ``src`` or is out of range.

    Example:
        >>> import torch
        >>> scatter_max(torch.tensor([3.0, 7.0, 5.0]), torch.tensor([0, 2, 2])).values
        tensor([3., 0., 7.])
    """
    return _extrema(src, group_by(src, index, dim, dim_size), "amax")


class Grouping(NamedTuple):
    """Group of each value: int64, as many axes as ``src``, of its length along ``dim``.

    Other axes may be of length one, where all their positions have the same groups.
    """

    group: Tensor
    dim: int
    size: int


def group_by(
    src: Tensor, index: Tensor, dim: int, dim_size: int | None, *, in_range: bool = False
) -> Grouping:
    """Check the arguments of a reduction and bring its index to one form.

    Args:
        src: Values.
        index: Group of each value.
        dim: Axis to reduce.
        dim_size: Number of groups, or None.
        in_range: Whether the index is known to lie below ``dim_size``.
    """
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise TypeError(f"index must be of an integer type; got {index.dtype}")
    if src.dtype == torch.bool:
        raise TypeError(f"src must hold numbers; got {src.dtype}")
    if not -src.ndim <= dim < src.ndim:
        raise check.fail("dim", f"an axis of src, of shape {tuple(src.shape)}", dim)
    dim %= src.ndim
    shape = (1,) * (dim if index.ndim == 1 else 0) + tuple(index.shape)
    shape += (1,) * (src.ndim - len(shape))
    if len(shape) != src.ndim or any(
        have not in {1, want} for have, want in zip(shape, src.shape, strict=True)
    ):
        raise check.fail(
            "index",
            f"one number per position along axis {dim} of src, or of the shape of src "
            f"{tuple(src.shape)} after adding axes at its end and repeating axes of length one",
            f"shape {tuple(index.shape)}",
        )
    size = dim_size if in_range and dim_size is not None else _size(index, dim_size)
    full = (*shape[:dim], src.shape[dim], *shape[dim + 1 :])
    return Grouping(index.long().reshape(shape).expand(full), dim, size)


def _size(index: Tensor, dim_size: int | None) -> int:
    """Return the number of groups; on a CPU, check that the index lies within."""
    size = None if dim_size is None else check.integer("dim_size", dim_size, minimum=0)
    if not index.numel():
        return size or 0
    if size is not None and (index.device.type != "cpu" or torch.compiler.is_compiling()):
        return size
    low, high = (int(bound) for bound in index.aminmax())
    if low < 0 or (size is not None and high >= size):
        rule = "zero or above" if size is None else f"in [0, dim_size {size})"
        raise check.fail("index", rule, f"values from {low} to {high}")
    return high + 1 if size is None else size


def accumulation_dtype(src: Tensor) -> torch.dtype:
    """Return float32 for a shorter floating-point type, and any other type as it is."""
    return torch.float32 if src.dtype in {torch.float16, torch.bfloat16} else src.dtype


def _shape(src: Tensor, groups: Grouping) -> tuple[int, ...]:
    return (*src.shape[: groups.dim], groups.size, *src.shape[groups.dim + 1 :])


def add_up(src: Tensor, groups: Grouping) -> Tensor:
    """Return the sums of groups, in the type they accumulate in."""
    values = src.to(accumulation_dtype(src))
    index = groups.group.expand(src.shape)
    return values.new_zeros(_shape(src, groups)).scatter_add_(groups.dim, index, values)


def group_sizes(groups: Grouping) -> Tensor:
    """Return how many values each group has, with an axis for each of ``src``."""
    index, dim, shape = groups.group, groups.dim, _shape(groups.group, groups)
    if index.numel() == index.shape[dim]:  # a vector: one axis is faster
        index, dim = index.flatten(), 0
    one = torch.ones((), dtype=torch.int64, device=index.device).expand(index.shape)
    zeros = one.new_zeros((groups.size,) if index.ndim == 1 else shape)
    return zeros.scatter_add_(dim, index, one).reshape(shape)


def divide(total: Tensor, count: Tensor) -> Tensor:
    """Return means from sums and counts: zero for none, rounded down for integers."""
    exact = total.is_floating_point() or total.is_complex()
    return total.div(count.clamp(min=1), rounding_mode=None if exact else "floor")


def _extrema(src: Tensor, groups: Grouping, reduce: Literal["amin", "amax"]) -> GroupExtrema:
    index, shape, length = (
        groups.group.expand(src.shape),
        _shape(src, groups),
        src.shape[groups.dim],
    )
    nowhere = torch.full(shape, length, dtype=torch.int64, device=src.device)
    if not src.numel():
        return GroupExtrema(src.new_zeros(shape), nowhere)
    with torch.no_grad():
        best = src.new_zeros(shape).scatter_reduce(
            groups.dim, index, src, reduce, include_self=False
        )
        chosen = src == best.gather(groups.dim, index)
        if src.is_floating_point():
            chosen |= src.isnan()
        position = torch.arange(length, device=src.device)
        position = position.reshape(-1, *[1] * (src.ndim - 1 - groups.dim))
        position = torch.where(chosen, position, length)
        first = nowhere.scatter_reduce(groups.dim, index, position, "amin")
    values = src.gather(groups.dim, first.clamp(max=length - 1))
    return GroupExtrema(values.masked_fill(first == length, 0), first)
