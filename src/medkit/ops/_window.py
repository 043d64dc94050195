"""Windows over a volume: where they lie, and how much each of their voxels counts."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from medkit._core import check


def gaussian_importance(
    patch_size: Sequence[int],
    *,
    sigma_scale: float | Sequence[float] = 0.125,
    minimum: float = 1e-3,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Float[Tensor, "*spatial"]:
    r"""Weights of a window's voxels, 1 at its centre and falling towards its border.

    .. math::
        w(x) = \max\Bigl(\prod_a \exp\frac{-(x_a - (n_a - 1)/2)^2}{2\,(s_a n_a)^2},\ w_{min}\Bigr)

    Use it to blend overlapping predictions, which are worst at the border of their window. The
    values are those of MONAI and medicai.

    Args:
        patch_size: Size n of the window, in voxels, one number per spatial axis.
        sigma_scale: Standard deviation s as a fraction of the window's size; one per axis, or one
            for all.
        minimum: Smallest weight, so that a voxel seen only by a window's corner keeps a value.
        dtype: Floating-point type of the result; it is computed in float64.
        device: Where the result is made; None takes PyTorch's default device.

    Returns:
        Weights in [minimum, 1], in the window's shape.

    Raises:
        ValueError: If a size is below 1, or ``sigma_scale`` or ``minimum`` is not positive.

    Example:
        >>> [round(weight, 3) for weight in gaussian_importance((5,)).tolist()]
        [0.006, 0.278, 1.0, 0.278, 0.006]

    References:
        Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical
        image segmentation", Nature Methods 18, 2021, online methods, "Inference".
    """
    sizes = [check.integer("patch_size", size, minimum=1) for size in patch_size]
    scales = check.per_axis("sigma_scale", sigma_scale, len(sizes))
    check.positive("minimum", minimum)
    weight = torch.ones((), dtype=torch.float64, device=device)
    for size, scale in zip(sizes, scales, strict=True):
        sigma = check.positive("sigma_scale", scale) * size
        offset = torch.arange(size, dtype=torch.float64, device=device) - (size - 1) / 2
        weight = weight[..., None] * torch.exp(-(offset**2) / (2 * sigma**2))
    return weight.clamp_(min=minimum).to(dtype)


def patch_grid(
    spatial_size: Sequence[int],
    *,
    patch_size: int | Sequence[int],
    overlap: float | Sequence[float] = 0.5,
) -> tuple[tuple[int, ...], ...]:
    r"""First voxels, along each axis, of the windows that cover a volume.

    Along an axis of N voxels, windows of n voxels start every :math:`\lfloor n(1-o)\rfloor`
    voxels (at least 1), and the last one is moved back to end with the volume. The windows are
    all combinations: ``itertools.product(*patch_grid(...))``. An axis that is shorter than the
    window gets one window, at 0. The positions are those of MONAI and medicai.

    Args:
        spatial_size: Size of the volume, in voxels, one number per spatial axis.
        patch_size: Size of a window, in voxels; one per axis, or one for all.
        overlap: Fraction of a window that the next one covers again; one per axis, or one for all.

    Returns:
        One increasing tuple of positions per axis.

    Raises:
        ValueError: If a size is below 1, an overlap is not in [0, 1), or their number is wrong.

    Example:
        >>> patch_grid((20, 9), patch_size=8, overlap=0.25)
        ((0, 6, 12), (0, 1))
    """
    sizes = [check.integer("spatial_size", size, minimum=1) for size in spatial_size]
    patches = check.per_axis("patch_size", patch_size, len(sizes))
    overlaps = check.per_axis("overlap", overlap, len(sizes))
    grid: list[tuple[int, ...]] = []
    for size, window, share in zip(sizes, patches, overlaps, strict=True):
        extent = check.integer("patch_size", window, minimum=1)
        step = max(int(extent * (1 - check.fraction("overlap", share, below_one=True))), 1)
        last = max(size - extent, 0)
        grid.append(tuple(min(i * step, last) for i in range(math.ceil(last / step) + 1)))
    return tuple(grid)
