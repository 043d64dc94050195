"""Exact Euclidean distance to the edge of a mask."""

from collections.abc import Callable, Sequence
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from medkit._core import check

from . import _ndimage

Missing = Literal["inf", "edge"]

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def distance_transform(
    mask: Shaped[Tensor, "batch channel *spatial"],
    *,
    spacing: float | Sequence[float] | None = None,
    signed: bool = False,
    valid: Bool[Tensor, "batch _channel *spatial"] | None = None,
    missing: Missing = "inf",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "batch channel *spatial"]:
    r"""Distance of each voxel of a mask to the nearest voxel outside of it, in mm.

    .. math::

        d(v) = \min_{u \notin M} \sqrt{\sum_i s_i^2 (v_i - u_i)^2}, \qquad
        \phi(v) = \begin{cases} -d(v) & v \in M \\ \min_{u \in M} |s (v - u)| & v \notin M
        \end{cases}

    with the mask :math:`M` and the spacing :math:`s`; :math:`\phi` is the signed distance. The
    image ends at its edge: no voxel lies beyond.

    Use it to measure thickness or depth, and, signed, for the boundary loss. Distances run between
    the centres of voxels, so :math:`\phi` steps from minus to plus one spacing where a boundary is
    crossed. It is the exact transform of SciPy, in float64, on the CPU, of the box around the mask
    and, if signed, of that around its outside; in a compiled graph it is one operator. There is no
    gradient.

    Args:
        mask: Boolean, or integers that are not zero inside; two or three spatial axes. Each sample
            and channel is measured by itself.
        spacing: Distance between neighbouring voxels along each spatial axis in mm, or one number
            for all. None measures in voxels.
        signed: Whether voxels outside of the mask get their distance to it too, and those inside
            count negative. Otherwise they are 0.
        valid: Voxels to measure to, of the shape of ``mask`` or with one channel; None means all.
            Others are as if they lay outside the image, and what stands there means nothing.
        missing: The distance to what does not exist: "inf", or, for training, that to the nearest
            voxel beyond the "edge" of the image or not valid, the least that it can be. A full
            mask is that far from its outside, and signed negative; an empty mask is 0, or signed
            that far outside. An axis of one voxel has no edge, and an image of one voxel is one
            spacing from it, the smallest.
        dtype: Floating-point type of the result.

    Returns:
        The distances.

    Raises:
        TypeError: If ``mask`` is neither boolean nor integers, or ``dtype`` not floating point.
        ValueError: If ``mask`` has not two or three spatial axes, ``spacing`` is not positive, or
            ``missing`` is unknown.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[[0, 1, 1, 1, 0, 0]]]])
        >>> distance_transform(mask, spacing=(3.0, 0.5))
        tensor([[[[0.0000, 0.5000, 1.0000, 0.5000, 0.0000, 0.0000]]]])
        >>> distance_transform(mask, signed=True)
        tensor([[[[ 1., -1., -2., -1.,  1.,  2.]]]])

    References:
        C. R. Maurer, R. Qi, V. Raghavan, "A Linear Time Algorithm for Computing Exact Euclidean
        Distance Transforms of Binary Images in Arbitrary Dimensions", IEEE TPAMI, 2003.
    """
    _ndimage.check_masks("mask", mask)
    check.one_of("missing", missing, ("inf", "edge"))
    if dtype not in _DTYPES:
        raise TypeError(f"dtype must be floating point; got {dtype}")
    steps = check.per_axis("spacing", 1.0 if spacing is None else spacing, mask.ndim - 2)
    steps = [check.positive("spacing", step) for step in steps]
    if valid is not None and tuple(valid.shape) not in {
        tuple(mask.shape),
        (mask.shape[0], 1, *mask.shape[2:]),
    }:
        rule = f"of the shape of mask {tuple(mask.shape)}, or with one channel"
        raise check.fail("valid", rule, f"shape {tuple(valid.shape)}")
    distance = cast("Callable[..., Tensor]", _distance)
    return distance(mask != 0, valid, steps, signed, missing == "edge", dtype)


@torch.library.custom_op(
    "medkit::distance_transform",
    mutates_args=(),
    schema="(Tensor mask, Tensor? valid, float[] spacing, bool signed, bool edge,"
    " ScalarType dtype) -> Tensor",
)
def _distance(
    mask: Tensor,
    valid: Tensor | None,
    spacing: list[float],
    signed: bool,
    edge: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Return the distances of boolean masks, as one operator that no graph is broken by."""
    inside = mask.cpu().numpy()
    counted = np.ones((1,) * inside.ndim, np.bool_) if valid is None else valid.cpu().numpy()
    counted = np.broadcast_to(counted, inside.shape)
    measure = _signed if signed else _depth
    result = torch.empty(mask.shape, dtype=dtype)
    for place in np.ndindex(*inside.shape[:2]):
        distance = measure(inside[place], counted[place], spacing, edge)
        result[place] = torch.as_tensor(distance)
    return result.to(mask.device)


@_distance.register_fake  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
def _(
    mask: Tensor,
    valid: Tensor | None,  # noqa: ARG001  the form of the operator
    spacing: list[float],  # noqa: ARG001
    signed: bool,  # noqa: ARG001
    edge: bool,  # noqa: ARG001
    dtype: torch.dtype,
) -> Tensor:
    return torch.empty(mask.shape, dtype=dtype, device=mask.device)


def _signed(
    mask: np.ndarray, valid: np.ndarray, spacing: Sequence[float], edge: bool
) -> np.ndarray:
    """Return the distance to the mask outside of it, minus that to its outside in it."""
    distance = _depth(~mask, valid, spacing, edge)
    distance -= _depth(mask, valid, spacing, edge)
    return distance


def _depth(mask: np.ndarray, valid: np.ndarray, spacing: Sequence[float], edge: bool) -> np.ndarray:
    """Return the distance to the outside of a mask in it.

    The nearest voxel outside lies in the box around the mask or just beside it.
    """
    distance = np.zeros(mask.shape)
    box = (slice(None),) * mask.ndim
    if valid.all():
        box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in _box(mask))
    inside, outside = mask[box], valid[box] & ~mask[box]
    if inside.any():
        distance[box] = np.where(inside, _distance_to(outside, valid[box], spacing, edge), 0.0)
    return distance


def _distance_to(
    target: np.ndarray, valid: np.ndarray, spacing: Sequence[float], edge: bool
) -> np.ndarray:
    """Return the distance of each voxel to the nearest voxel of ``target``."""
    if not target.any():
        return _to_edge(valid, spacing) if edge else np.full(target.shape, np.inf)
    return _ndimage.distance_to_zero(~target, spacing)


def _to_edge(valid: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return the distance to the nearest voxel that is not valid or lies outside the image."""
    padded = np.pad(valid, [(int(n > 1), int(n > 1)) for n in valid.shape])
    if padded.all():
        return np.full(valid.shape, min(spacing))
    inner = tuple(slice(1, -1) if n > 1 else slice(None) for n in valid.shape)
    return _ndimage.distance_to_zero(padded, spacing)[inner]


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box that holds a mask; empty for an empty one."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        (found,) = np.nonzero(mask.any(axis=others))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0))
    return tuple(box)
