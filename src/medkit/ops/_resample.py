"""Images on another grid: of another size, another spacing, or anywhere in space."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64, Shaped
from torch import Tensor

from medkit._core import check

from ._interpolation import (
    MODES,
    Mode,
    along_axis,
    sampling_matrix,
    smoothing_matrix,
    spline_matrix,
    taps,
)

_SLACK = 1e-6  # voxels that rounding may put a position outside of the array


def resample(
    input: Shaped[Tensor, "batch channel *_spatial"],
    *,
    mode: Mode,
    size: Sequence[int] | None = None,
    spacing: float | Sequence[float] = 1.0,
    new_spacing: float | Sequence[float] | None = None,
    antialias: bool = False,
) -> Shaped[Tensor, "batch channel *_new_spatial"]:
    r"""Image on a grid of another size or spacing around the same centre.

    Along each axis of :math:`n` voxels, voxel :math:`i` of the :math:`m` new ones lies at

    .. math:: p_i = \frac{n - 1}{2} + \frac{s'}{s} \left(i - \frac{m - 1}{2}\right)

    with the old and new spacing :math:`s` and :math:`s'`. Give ``size`` to keep the extent of the
    image, :math:`s' / s = n / m`, which is ``align_corners=False`` of torch; ``new_spacing`` to
    have just that spacing, with :math:`m = n s / s'` rounded; or both.
    :func:`rescale_affine` gives the affine of the new grid.

    Interpolation goes axis by axis and has a gradient. Where a position lies beyond the outermost
    voxel centre, the value there is that of the edge. float64 stays float64; whatever else is
    interpolated becomes float32 (complex64).

    Args:
        input: Images with any number of spatial axes; any type for "nearest".
        mode: "linear"; "nearest" for labels, which keeps type and values, where a position half
            way between two voxels takes the later one; "cubic", the spline through the voxels
            mirrored at the edge voxels, which may overshoot.
        size: Voxels of the new grid along each spatial axis.
        spacing: Distance in mm between voxels of ``input``, one number or one per axis. Needed
            with ``new_spacing`` only.
        new_spacing: Distance in mm between new voxels, one number or one per axis.
        antialias: Whether to smooth axes that lose voxels first, by the Gaussian that makes the
            old point spread as wide as the new voxels. For "linear" and "cubic".

    Returns:
        The image on the new grid.

    Raises:
        ValueError: If neither ``size`` nor ``new_spacing`` is given, one of them is not positive,
            or ``antialias`` is asked for with "nearest".

    Example:
        >>> import torch
        >>> row = torch.tensor([[[[0.0, 1.0, 2.0, 3.0]]]])
        >>> resample(row, size=(1, 2), mode="linear")
        tensor([[[[0.5000, 2.5000]]]])
        >>> resample(row, spacing=(1.0, 3.0), new_spacing=1.0, mode="nearest").shape
        torch.Size([1, 1, 1, 12])

    References:
        M. J. Cardoso et al., "Scale Factor Point Spread Function Matching: Beyond Aliasing in
        Image Resampling", MICCAI, 2015, section 2 (``antialias``); P. Thevenaz, T. Blu,
        M. Unser, "Interpolation Revisited", IEEE TMI, 2000, section IV ("cubic").
    """
    check.one_of("mode", mode, MODES)
    if antialias and mode == "nearest":
        raise check.fail("antialias", "False for mode 'nearest'", antialias)
    steps, sizes = _grid(input.shape[2:], size, spacing, new_spacing)
    output = input if mode == "nearest" else _interpolable(input)
    for axis, (count, step) in enumerate(zip(sizes, steps, strict=True), start=2):
        old = output.shape[axis]
        position = _positions(old, count, step, input.device).clamp(0, old - 1)
        loss = (step or old / count) if antialias else 1.0
        output = _along(output, axis, position, mode, loss)
    return output


def resample_to_grid(
    input: Shaped[Tensor, "batch channel _d _h _w"],
    affine: Float64[np.ndarray, "4 4"],
    new_affine: Float64[np.ndarray, "4 4"],
    *,
    size: Sequence[int],
    mode: Mode,
    fill: float | None = 0.0,
) -> Shaped[Tensor, "batch channel d h w"]:
    r"""Volume on any other grid in space: turned, shifted, of another spacing.

    The value of new voxel :math:`i` is that at index :math:`A^{-1} A' i` of the volume.

    Use it to bring an image onto the grid of another, or a prediction back to where its image came
    from. It interpolates as :func:`resample` does, without smoothing, and has a gradient. For
    "linear" positions have the type of the image: in float32 they are true to 1e-3 voxel.

    Args:
        input: Volumes on one grid.
        affine: Matrix :math:`A` from their array indices (d, h, w) to world mm.
        new_affine: Matrix :math:`A'` from indices of the new grid to the same world.
        size: Voxels of the new grid along each axis.
        mode: "linear", "nearest" or "cubic", as in :func:`resample`.
        fill: Value where the volume has none: more than half a voxel beyond the outermost voxel
            centres. None repeats the edge.

    Returns:
        The volume on the new grid; the type is that of :func:`resample`.

    Raises:
        ValueError: If the shapes do not fit, ``affine`` cannot be inverted, or ``mode`` is
            unknown.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> volume = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
        >>> shifted = np.eye(4)
        >>> shifted[2, 3] = 0.5
        >>> resample_to_grid(volume, np.eye(4), shifted, size=(1, 1, 3), mode="linear")
        tensor([[[[[0.5000, 1.0000, 0.0000]]]]])
    """
    check.one_of("mode", mode, MODES)
    if input.ndim != 5:
        raise check.fail("input", "(batch, channel, d, h, w)", f"shape {tuple(input.shape)}")
    sizes = _sizes(size, 3)
    image = input if mode == "nearest" else _interpolable(input)
    if mode == "cubic":
        for axis in (2, 3, 4):
            image = along_axis(image, axis, spline_matrix(image.shape[axis], image.device))
    matrix = torch.tensor(np.linalg.solve(affine, new_affine), device=input.device)
    h, w = (torch.arange(n, dtype=torch.float64, device=input.device) for n in sizes[1:])
    plane = matrix[:3, 1, None, None] * h[:, None] + matrix[:3, 2, None, None] * w
    planes = [
        _at(image, plane + (matrix[:3, 0] * d + matrix[:3, 3])[:, None, None], mode, fill)
        for d in range(sizes[0])
    ]
    return torch.stack(planes, dim=2)


def _interpolable(input: Tensor) -> Tensor:
    """Return a type that can hold what is between voxels."""
    if input.is_complex():
        return input.to(torch.promote_types(input.dtype, torch.complex64))
    return input if input.dtype == torch.float64 else input.float()


def _sizes(size: Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    sizes = check.per_axis("size", size, spatial_dims)
    return tuple(check.integer("size", count, minimum=1) for count in sizes)


def _grid(
    shape: Sequence[int],
    size: Sequence[int] | None,
    spacing: float | Sequence[float],
    new_spacing: float | Sequence[float] | None,
) -> tuple[Sequence[float | None], Sequence[int]]:
    """Return the step in old voxels, None to keep the extent, and the size along each axis."""
    dims = len(shape)
    sizes = None if size is None else _sizes(size, dims)
    if new_spacing is None:
        if sizes is None:
            raise check.fail("size or new_spacing", "given", None)
        return (None,) * dims, sizes
    old = _lengths("spacing", spacing, dims)
    new = _lengths("new_spacing", new_spacing, dims)
    if sizes is None:
        pairs = zip(shape, old, new, strict=True)
        sizes = tuple(max(1, round(count * was / wanted)) for count, was, wanted in pairs)
    return [wanted / was for was, wanted in zip(old, new, strict=True)], sizes


def _lengths(name: str, values: float | Sequence[float], dims: int) -> list[float]:
    return [check.positive(name, value) for value in check.per_axis(name, values, dims)]


def _positions(old: int, count: int, step: float | None, device: torch.device) -> Tensor:
    index = torch.arange(count, dtype=torch.float64, device=device)
    if step is None:
        return ((2 * index + 1) * old - count) / (2 * count)  # exact half way between voxels
    return index * step + ((old - 1) / 2 - step * (count - 1) / 2)


def _along(input: Tensor, axis: int, position: Tensor, mode: Mode, step: float) -> Tensor:
    """Return the values at positions along one axis, smoothed before for a step above one."""
    count = input.shape[axis]
    if mode == "nearest":
        return input.index_select(axis, taps(position, count, mode)[0][0])
    if mode == "cubic" or step > 1:
        matrix = sampling_matrix(position, count, mode)
        return along_axis(input, axis, matrix @ smoothing_matrix(count, step, input.device))
    (low, high), (_, weight) = taps(position, count, mode)
    shape = [-1 if i == axis else 1 for i in range(input.ndim)]
    weight = weight.to(input.real.dtype).to(input.dtype).reshape(shape)
    return torch.lerp(input.index_select(axis, low), input.index_select(axis, high), weight)


def _at(image: Tensor, position: Tensor, mode: Mode, fill: float | None) -> Tensor:
    """Return the values at positions ``(3, h, w)`` of volumes."""
    count = torch.tensor(image.shape[2:], device=position.device)[:, None, None]
    clamped = torch.minimum(position.clamp_min(0), count - 1)
    if mode == "linear" and not image.is_complex():
        grid = ((2 * clamped + 1) / count - 1).flip(0).movedim(0, -1).to(image.dtype)
        grid = grid.expand(image.shape[0], 1, *grid.shape)
        output = F.grid_sample(image, grid, padding_mode="border", align_corners=False).squeeze(2)
    else:
        output = _gathered(image, clamped, mode)
    if fill is None:
        return output
    inside = (position >= -0.5 - _SLACK) & (position <= count - 0.5 + _SLACK)
    return output.where(inside.all(0), output.new_full((), fill))


def _gathered(image: Tensor, position: Tensor, mode: Mode) -> Tensor:
    """Return the weighted sum of the voxels, or coefficients, around each position."""
    shape = image.shape[2:]
    sides = [taps(p, count, mode) for p, count in zip(position, shape, strict=True)]
    flat = image.flatten(2)
    output = flat.new_zeros(())
    for corner in product(*(range(len(index)) for index, _ in sides)):
        (d, a), (h, b), (w, c) = (
            (index[n], weight[n]) for (index, weight), n in zip(sides, corner, strict=True)
        )
        values = flat[..., (d * shape[1] + h) * shape[2] + w]
        output = values if mode == "nearest" else output + values * (a * b * c).to(image.dtype)
    return output
