"""Sums and means of values that lie sorted by group."""

from typing import Protocol, cast

import torch
from jaxtyping import Integer, Num
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from medkit._core import check

from ._scatter import accumulation_dtype, add_up, divide, group_by, group_sizes


def segment_sum(
    src: Num[Tensor, "..."],
    index: Integer[Tensor, "position"],
    *,
    dim: int = -1,
    dim_size: int | None = None,
    lengths: Integer[Tensor, "group"] | None = None,
) -> Num[Tensor, "..."]:
    """Sum the values that share an index, where the index never falls.

    Use it instead of :func:`scatter_sum` where values lie sorted by group. The result is the same
    on a CPU, and on a GPU it is the same at every run, since no two threads add to one number.

    Args:
        src: Values.
        index: Group of each position along ``dim``, one axis, in order.
        dim: Axis of ``src`` to reduce.
        dim_size: Number of groups; None takes the last index plus one.
        lengths: Number of positions of each group where the caller knows it, so that ``index`` is
            not searched again; the caller then answers for the order as well. None counts them.

    Returns:
        The sums, in the type of ``src``; zero for a group without values.

    Raises:
        TypeError: If ``index`` is not of an integer type or ``src`` is boolean.
        ValueError: If ``index`` does not fit ``src``, is out of range or falls. It is read to
            find out, which stalls a GPU; a compiled graph does not look.

    Example:
        >>> import torch
        >>> segment_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]))
        tensor([1., 0., 6.])
    """
    return _segments(src, index, dim, dim_size, lengths, mean=False)


def segment_mean(
    src: Num[Tensor, "..."],
    index: Integer[Tensor, "position"],
    *,
    dim: int = -1,
    dim_size: int | None = None,
    lengths: Integer[Tensor, "group"] | None = None,
) -> Num[Tensor, "..."]:
    """Average the values that share an index, where the index never falls.

    Use it instead of :func:`scatter_mean` where values lie sorted by group; see
    :func:`segment_sum`.

    Args:
        src: Values.
        index: Group of each position along ``dim``, one axis, in order.
        dim: Axis of ``src`` to reduce.
        dim_size: Number of groups; None takes the last index plus one.
        lengths: Number of positions of each group, as for :func:`segment_sum`.

    Returns:
        The means, in the type of ``src``; zero for a group without values.

    Raises:
        TypeError: If ``index`` is not of an integer type or ``src`` is boolean.
        ValueError: If ``index`` does not fit ``src``, is out of range or falls.

    Example:
        >>> import torch
        >>> segment_mean(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]))
        tensor([1., 0., 3.])
    """
    return _segments(src, index, dim, dim_size, lengths, mean=True)


class _Saved(Protocol):
    """What a context holds in the backward pass; torch does not say so."""

    saved_tensors: tuple[Tensor, ...]


class _SegmentSum(Function):
    """Sums of runs along the first axis, with a gradient that can be differentiated again."""

    @staticmethod
    def forward(values: Tensor, index: Tensor, lengths: Tensor, trusted: bool) -> Tensor:  # noqa: ARG004  for backward
        """Return one sum per run."""
        return torch.segment_reduce(values, "sum", lengths=lengths, axis=0, unsafe=trusted)

    @staticmethod
    def setup_context(
        ctx: FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor, bool], output: Tensor
    ) -> None:
        """Keep the run of each value."""
        del output
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: FunctionCtx, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        """Return to each value the gradient of its run."""
        (index,) = cast("_Saved", ctx).saved_tensors
        return grad_outputs[0].index_select(0, index), None, None, None


def _run_sums(values: Tensor, index: Tensor, lengths: Tensor, *, trusted: bool) -> Tensor:
    if torch.compiler.is_compiling():  # tracing a Function warns of torch's own making
        return torch.segment_reduce(values, "sum", lengths=lengths, axis=0, unsafe=True)
    return cast(
        "Tensor",
        _SegmentSum.apply(values, index, lengths, trusted),  # pyright: ignore[reportUnknownMemberType]  torch has no type
    )


def _segments(
    src: Tensor,
    index: Tensor,
    dim: int,
    dim_size: int | None,
    lengths: Tensor | None,
    *,
    mean: bool,
) -> Tensor:
    """Return the sum or mean of each run of ``index``."""
    if index.ndim != 1:
        raise check.fail("index", "of one axis", f"shape {tuple(index.shape)}")
    trusted = lengths is None or not lengths.numel()  # torch cannot check no lengths at all
    if lengths is None:
        groups = group_by(src, index, dim, _sorted_size(index, dim_size), in_range=True)
        edges = torch.arange(groups.size + 1, device=index.device)
        lengths = torch.searchsorted(groups.group.flatten(), edges).diff()
    else:
        size = lengths.shape[0]
        if lengths.ndim != 1 or dim_size not in {None, size}:
            rule = "of one axis" if dim_size is None else f"of shape ({dim_size},)"
            raise check.fail("lengths", rule, f"shape {tuple(lengths.shape)}")
        groups = group_by(src, index, dim, size, in_range=True)
    if not src.is_floating_point():  # torch.segment_reduce has no other types
        total = add_up(src, groups)
        return divide(total, group_sizes(groups)).to(src.dtype) if mean else total
    values = src.movedim(groups.dim, 0).to(accumulation_dtype(src))
    total = _run_sums(values, groups.group.flatten(), lengths, trusted=trusted)
    if mean:
        total = divide(total, lengths.reshape(-1, *[1] * (src.ndim - 1)))
    return total.movedim(0, groups.dim).to(src.dtype)


def _sorted_size(index: Tensor, dim_size: int | None) -> int:
    """Return the number of groups; raise if the index falls or leaves it."""
    size = None if dim_size is None else check.integer("dim_size", dim_size, minimum=0)
    if not index.numel():
        return size or 0
    if size is not None and torch.compiler.is_compiling():
        return size
    if bool((index[1:] < index[:-1]).any()):
        raise check.fail("index", "in order (scatter_mean takes any order)", "an index that falls")
    first, last = int(index[0]), int(index[-1])
    if first < 0 or (size is not None and last >= size):
        rule = "zero or above" if size is None else f"in [0, dim_size {size})"
        raise check.fail("index", rule, f"values from {first} to {last}")
    return last + 1 if size is None else size
