"""Shapes that masks are dilated and eroded by."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from medkit._core import check

_ROUNDING = 1e-9
"""Relative error of lengths in mm: 3 steps of 0.1 are 0.3."""


def ball_element(
    radius: float, *, spacing: float | Sequence[float] = 1.0, spatial_dims: int = 3
) -> Bool[Tensor, "*size"]:
    """Return the voxels no further than ``radius`` from the middle one: a ball, in 2D a disk.

    Args:
        radius: In mm, or in voxels where ``spacing`` is 1; 0 or more.
        spacing: Distance between voxels along each axis in mm, or one for all. The ball is round
            in the patient, and fewer voxels long where they are larger.
        spatial_dims: Number of axes.

    Example:
        >>> ball_element(1, spatial_dims=2).int()
        tensor([[0, 1, 0],
                [1, 1, 1],
                [0, 1, 0]], dtype=torch.int32)
        >>> ball_element(6, spacing=(3, 1, 1)).shape
        torch.Size([5, 13, 13])
    """
    dims = check.integer("spatial_dims", spatial_dims, minimum=1)
    steps = [check.positive("spacing", s) for s in check.per_axis("spacing", spacing, dims)]
    furthest = check.non_negative("radius", radius)
    return _squares(furthest, steps) <= furthest**2 * (1 + _ROUNDING)


def box_element(size: int | Sequence[int], *, spatial_dims: int = 3) -> Bool[Tensor, "*size"]:
    """Return a box of voxels.

    Args:
        size: Voxels along each axis, or one number for all; odd, so that there is a middle.
        spatial_dims: Number of axes.

    Raises:
        ValueError: If a size is even or not positive.

    Example:
        >>> box_element((1, 3), spatial_dims=2)
        tensor([[True, True, True]])
    """
    sizes = check.per_axis("size", size, check.integer("spatial_dims", spatial_dims, minimum=1))
    if any(check.integer("size", n, minimum=1) % 2 == 0 for n in sizes):
        raise check.fail("size", "odd", size)
    return torch.ones(*sizes, dtype=torch.bool)


def cylinder_element(
    radius: float, half_height: int, *, axis: int = 0
) -> Bool[Tensor, "depth height width"]:
    """Return a disk of voxels, repeated ``half_height`` times on both sides along an axis.

    Use it to close sheets and gaps in volumes whose axes differ, e.g. of thick slices.

    Args:
        radius: Of the disk, in voxels; 0 or more.
        half_height: Voxels above and below the middle one; 0 or more.
        axis: Spatial axis that the cylinder stands along: 0, 1 or 2.

    Raises:
        ValueError: If a length is negative or there is no such axis.

    Example:
        >>> cylinder_element(2, 3).shape, int(cylinder_element(2, 3).sum())
        (torch.Size([7, 5, 5]), 91)
    """
    check.one_of("axis", axis, (0, 1, 2))
    length = 2 * check.integer("half_height", half_height, minimum=0) + 1
    disk = ball_element(radius, spatial_dims=2).unsqueeze(axis)
    return disk.repeat_interleave(length, dim=axis)


def _squares(radius: float, spacing: Sequence[float]) -> Tensor:
    """Return the squared distance of each voxel that may be near enough to the middle one."""
    reach = [int(radius / step * (1 + _ROUNDING)) for step in spacing]
    axes = [
        (torch.arange(-n, n + 1, dtype=torch.float64) * step) ** 2
        for n, step in zip(reach, spacing, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0)
