"""Volumes turned towards other directions of the body."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped
from torch import Tensor

from medkit._core import check

from ._affine import axes_towards, flip_affine, permute_affine


class Reoriented(NamedTuple):
    """Voxels in another order, and where they lie.

    Attributes:
        image: The voxels, a view or a copy.
        affine: Matrix from the new array indices to RAS+ mm.
    """

    image: Shaped[Tensor, "batch channel d h w"]
    affine: Float64[np.ndarray, "4 4"]


def reorient(
    input: Shaped[Tensor, "batch channel _d _h _w"],
    affine: Float64[np.ndarray, "4 4"],
    *,
    axcodes: str,
) -> Reoriented:
    """Permute and reverse the spatial axes so that they grow towards the given directions.

    Use it to give a network every volume the same way round. Nothing is interpolated: each voxel
    keeps its value and its place in the body, and an oblique volume stays oblique. Reorient back
    with the letters of ``affine_axcodes(affine)``.

    Args:
        input: Voxels of volumes on one grid.
        affine: Matrix from array indices (d, h, w) to RAS+ mm.
        axcodes: Direction of each new axis: one letter of each of R/L, A/P and S/I, e.g. ``"SAR"``
            for the order of an ordinary NIfTI file, ``"RAS"`` for that of MONAI and TorchIO.

    Returns:
        The voxels and their affine.

    Raises:
        ValueError: If ``axcodes`` does not name three different directions, or there are not three
            spatial axes.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> image, affine = reorient(torch.rand(1, 1, 2, 3, 4), np.eye(4), axcodes="SPL")
        >>> image.shape
        torch.Size([1, 1, 4, 3, 2])
        >>> affine[:3, 3].tolist()
        [1.0, 2.0, 0.0]
    """
    if input.ndim != 5:
        rule = "(batch, channel, d, h, w)"
        raise check.fail("input", rule, f"shape {tuple(input.shape)}")
    axes, flips = axes_towards(affine, axcodes)
    image = input.permute(0, 1, *(axis + 2 for axis in axes))
    turned = permute_affine(affine, axes)
    if flips:
        turned = flip_affine(turned, image.shape[2:], flips)
        image = image.flip([axis + 2 for axis in flips])
    return Reoriented(image, turned)
