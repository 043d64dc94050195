"""Where each new voxel comes from, as one map, and the tensors that follow it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import resample, resample_to_grid

from ._gather import gathered

Interpolation = Literal["linear", "nearest", "cubic"]

_ZERO = 1e-12
_WHOLE = 1e-9  # how far from whole numbers a map of voxels onto voxels may be, in voxels
_FIXED_POINT_STEPS = 30


@dataclass(frozen=True, eq=False)
class Warp:
    r"""The map of one spatial change: new voxel :math:`i` shows the old place :math:`M i + u(i)`.

    :math:`M` works on indices, so the affine of the new grid is :math:`A M`. Transforms give their
    warps in ``Applied.warps``; :meth:`inverse` leads back.

    Args:
        matrix: :math:`M`, from new to old indices, last row 0 ... 0 1.
        old_size: Voxels of the old grid, per spatial axis.
        size: Voxels of the new grid.
        displacement: :math:`u` in old voxels on a coarse grid over the new one, cubic between its
            points; None for no displacement.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> shift = np.eye(2)
        >>> shift[0, 1] = 2.0
        >>> Warp(shift, (4,), (3,)).move(torch.tensor([[1, 2, 3, 4]]), mode="nearest", fill=0)
        tensor([[3, 4, 0]])
    """

    matrix: Float64[np.ndarray, "rows rows"]
    old_size: tuple[int, ...]
    size: tuple[int, ...]
    displacement: Float[Tensor, "axis *control"] | None = None

    def then(self, later: "Warp") -> "Warp":
        """Return this warp followed by another as one; neither may have a displacement.

        Args:
            later: A warp of the new grid.

        Returns:
            The map from the newest grid to the oldest.

        Raises:
            ValueError: If there is a displacement.
        """
        if self.displacement is not None or later.displacement is not None:
            raise check.fail("displacement", "None where warps are multiplied", "a field")
        return Warp(self.matrix @ later.matrix, self.old_size, later.size)

    def inverse(self) -> "Warp":
        """Return the map from the old grid back to the new one.

        A displacement is inverted by fixed-point iteration, which converges where the warp does
        not fold.

        Returns:
            A warp from the new grid to the old.
        """
        back = np.linalg.inv(self.matrix)
        if self.displacement is None:
            return Warp(back, self.size, self.old_size)
        field = _field(self)
        start = _positions(back, self.old_size, field)
        place = _unbent(self, start, field)
        return Warp(back, self.size, self.old_size, place - start)

    def move_points(self, points: Float[Tensor, "point axis"]) -> Float[Tensor, "point axis"]:
        """Return where points of the old grid, such as landmarks, lie on the new one.

        Args:
            points: Indices, from 0 at the middle of the first voxel; between voxels too.

        Returns:
            Indices on the new grid, outside of it where the points were cut off. Along a
            displacement as exact as :meth:`inverse`.

        Raises:
            ValueError: If the points are no floats, one for each axis of the old grid.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> half = Warp(np.diag([2.0, 1.0]), (4,), (2,))
            >>> half.move_points(torch.tensor([[3.0]]))
            tensor([[1.5000]])
        """
        dims = len(self.old_size)
        if points.ndim != 2 or points.shape[1] != dims or not points.is_floating_point():
            got = f"{points.dtype} of shape {tuple(points.shape)}"
            raise check.fail("points", f"floats (point, {dims})", got)
        back = torch.as_tensor(np.linalg.inv(self.matrix)).to(points)
        start = back[:-1, :-1] @ points.T + back[:-1, -1:]
        if self.displacement is None:
            return start.T
        start = start.reshape(dims, -1, *(1,) * (dims - 1))
        return _unbent(self, start, _field(self).to(start)).reshape(dims, -1).T

    def move(
        self,
        tensor: Shaped[Tensor, "channel *_spatial"],
        *,
        mode: Interpolation,
        fill: float | None = 0.0,
    ) -> Shaped[Tensor, "channel *_new_spatial"]:
        """Return a tensor on the new grid.

        Voxels that land on voxels are moved as they are. Else there is one interpolation: linear
        ones mix with ``fill`` beyond the outermost voxel centres.

        Args:
            tensor: What lies on the old grid.
            mode: "linear" or "cubic" for images, which become float32 or stay float64; "nearest"
                for labels, which keep type and values.
            fill: Value where the old grid has none; None repeats its edge.

        Returns:
            The tensor on the new grid, a copy.

        Raises:
            ValueError: If the tensor is not on the old grid, or a displacement is to be followed
                with "cubic".
        """
        check.one_of("mode", mode, ("linear", "nearest", "cubic"))
        if tuple(tensor.shape[1:]) != self.old_size:
            rule = f"(channel, {', '.join(map(str, self.old_size))})"
            raise check.fail("shape of tensor", rule, tuple(tensor.shape))
        aligned = None if self.displacement is not None else _aligned(self.matrix)
        if aligned is not None:
            if aligned.whole and (fill is not None or self._stays_inside()):
                return _moved(tensor, aligned, self.size, fill or 0)
            if mode == "nearest":
                return _picked(tensor, aligned, self.size, fill)
            if aligned.about_centre(self.old_size, self.size):
                return _rescaled(tensor, aligned, self.size, mode)
        return _sampled(self, tensor, mode, fill)

    def _stays_inside(self) -> bool:
        """Return whether every new voxel lies on the old grid."""
        last = np.array([np.zeros(len(self.size)), np.array(self.size) - 1]).T
        corners = np.stack(np.meshgrid(*last, indexing="ij")).reshape(len(self.size), -1)
        place = self.matrix[:-1, :-1] @ corners + self.matrix[:-1, -1:]
        limit = np.array(self.old_size)[:, None] - 1
        return bool((place >= -_WHOLE).all() and (place <= limit + _WHOLE).all())


def merged(warps: Sequence[Warp]) -> tuple[Warp, ...]:
    """Return the warps with neighbours multiplied where neither has a displacement."""
    result: list[Warp] = []
    for warp in warps:
        if result and result[-1].displacement is None and warp.displacement is None:
            result[-1] = result[-1].then(warp)
        else:
            result.append(warp)
    return tuple(result)


class _Aligned(NamedTuple):
    """A map along axes: new axis ``j`` runs along old axis ``axes[j]`` in ``steps[j]``."""

    axes: list[int]
    steps: list[float]
    offsets: list[float]

    @property
    def whole(self) -> bool:
        """Whether voxels fall on voxels."""
        one = all(abs(abs(step) - 1) < _WHOLE for step in self.steps)
        return one and all(abs(offset - round(offset)) < _WHOLE for offset in self.offsets)

    def about_centre(self, old_size: Sequence[int], size: Sequence[int]) -> bool:
        """Return whether the middles of both grids fall together."""
        old = [old_size[axis] for axis in self.axes]
        middles = zip(old, size, self.steps, self.offsets, strict=True)
        return all(abs((n - 1) / 2 - a * (m - 1) / 2 - b) < _WHOLE for n, m, a, b in middles)


def _aligned(matrix: np.ndarray) -> _Aligned | None:
    """Return a map along axes, or None for any other."""
    turn = np.where(np.abs(matrix[:-1, :-1]) < _ZERO, 0, matrix[:-1, :-1])
    if ((turn != 0).sum(0) != 1).any() or ((turn != 0).sum(1) != 1).any():
        return None
    axes = np.abs(turn).argmax(0)
    steps = turn[axes, np.arange(len(axes))]
    return _Aligned(axes.tolist(), steps.tolist(), matrix[axes, -1].tolist())


def _moved(tensor: Tensor, aligned: _Aligned, size: Sequence[int], fill: float) -> Tensor:
    """Return voxels in another place, padded where there are none."""
    image = tensor.permute(0, *(axis + 1 for axis in aligned.axes))
    signs, offsets = (list(map(round, values)) for values in aligned[1:])
    output_place: list[slice] = [slice(None)]
    flips: list[int] = []
    for axis, (sign, offset, wanted) in enumerate(zip(signs, offsets, size, strict=True), start=1):
        count = image.shape[axis]
        start = offset if sign > 0 else count - 1 - offset
        low, high = min(max(0, start), count), max(0, min(start + wanted, count))
        first = low if sign > 0 else count - high
        image = image.narrow(axis, first if high > low else 0, max(0, high - low))
        output_place.append(slice(max(0, low - start), max(0, low - start) + max(0, high - low)))
        if sign < 0:
            flips.append(axis)
    image = image.flip(flips) if flips else image
    if tuple(image.shape[1:]) == tuple(size):
        return image.contiguous() if flips else image.clone(memory_format=torch.contiguous_format)
    output = tensor.new_full((tensor.shape[0], *size), fill)
    if image.numel():
        output[tuple(output_place)] = image
    return output


def _picked(tensor: Tensor, aligned: _Aligned, size: Sequence[int], fill: float | None) -> Tensor:
    """Return the nearest voxels along each axis; half way between two takes the later."""
    image = tensor.permute(0, *(axis + 1 for axis in aligned.axes))
    outside = torch.zeros((1,) * image.ndim, dtype=torch.bool, device=tensor.device)
    for axis, (step, offset, count) in enumerate(
        zip(aligned.steps, aligned.offsets, size, strict=True), start=1
    ):
        place = torch.arange(count, dtype=torch.float64, device=tensor.device) * step + offset
        index = ((place + (0.5 + _WHOLE)).floor()).long()
        limit = image.shape[axis] - 1
        beyond = (index < 0) | (index > limit)
        outside = outside | beyond.reshape([-1 if i == axis else 1 for i in range(image.ndim)])
        image = image.index_select(axis, index.clamp(0, limit))
    image = image.contiguous()
    if fill is None or not bool(outside.any()):
        return image
    return image.masked_fill(outside, fill)


def _rescaled(
    tensor: Tensor, aligned: _Aligned, size: Sequence[int], mode: Interpolation
) -> Tensor:
    """Return a grid about the same centre; the edge is repeated where it is a little larger."""
    image = tensor.permute(0, *(axis + 1 for axis in aligned.axes))
    flips = [axis for axis, step in enumerate(aligned.steps, start=1) if step < 0]
    image = image.flip(flips) if flips else image
    steps = [abs(step) for step in aligned.steps]
    extents = [n / m for n, m in zip(image.shape[1:], size, strict=True)]
    same = np.allclose(extents, steps, rtol=0, atol=_WHOLE / max(size))
    return resample(image[None], size=size, new_spacing=None if same else steps, mode=mode)[0]


def _sampled(warp: Warp, tensor: Tensor, mode: Interpolation, fill: float | None) -> Tensor:
    if mode == "cubic":
        return _cubic(warp, tensor, fill)
    linear = mode == "linear"
    image = _interpolable(tensor) if linear else tensor
    field = None if warp.displacement is None else _field(warp)
    return gathered(image, warp.matrix, warp.size, linear=linear, fill=fill, field=field)


def _interpolable(tensor: Tensor) -> Tensor:
    """Return the tensor in a type that can be mixed: float64 stays, all else becomes float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _cubic(warp: Warp, tensor: Tensor, fill: float | None) -> Tensor:
    if warp.displacement is not None:
        raise check.fail("mode", "'linear' or 'nearest' along a displacement", "'cubic'")
    missing = 3 - len(warp.size)
    ones = (1,) * missing
    matrix = np.eye(4)
    matrix[missing:, missing:] = warp.matrix
    volume = tensor.reshape(1, tensor.shape[0], *ones, *warp.old_size)
    size = (*ones, *warp.size)
    moved = resample_to_grid(volume, np.eye(4), matrix, size=size, mode="cubic", fill=fill)
    return moved.reshape(tensor.shape[0], *warp.size)


def _positions(matrix: np.ndarray, size: Sequence[int], like: Tensor) -> Tensor:
    """Return ``matrix`` times every index of a grid: (axis, *size)."""
    columns = torch.as_tensor(matrix[:-1], dtype=like.dtype, device=like.device)
    dims = len(size)
    place = columns[:, -1].reshape(-1, *(1,) * dims)
    for axis, count in enumerate(size):
        shape = [count if i == axis else 1 for i in range(dims)]
        index = torch.arange(count, dtype=like.dtype, device=like.device).reshape(1, *shape)
        place = place + index * columns[:, axis].reshape(-1, *(1,) * dims)
    return place


def _normalized(place: Tensor, size: Sequence[int]) -> Tensor:
    """Return places (axis, *grid) as ``grid_sample`` wants them."""
    count = torch.tensor(size, dtype=place.dtype, device=place.device)
    count = count.reshape(-1, *(1,) * (place.ndim - 1))
    return ((2 * place + 1) / count - 1).flip(0).movedim(0, -1)[None]


def _unbent(warp: Warp, start: Tensor, field: Tensor) -> Tensor:
    """Return the new places (axis, *any) of old ones, given where they lie without the field."""
    back = np.linalg.inv(warp.matrix)
    turn = torch.as_tensor(back[:-1, :-1], dtype=field.dtype, device=field.device)
    place = start
    for _ in range(_FIXED_POINT_STEPS):
        grid = _normalized(place, warp.size)
        here = F.grid_sample(field[None], grid, padding_mode="border", align_corners=False)[0]
        place = start - torch.einsum("ij,j...->i...", turn, here)
    return place


def _field(warp: Warp) -> Tensor:
    """Return the displacement on every voxel of the new grid."""
    field = warp.displacement
    if field is None or tuple(field.shape[1:]) == warp.size:
        return field if field is not None else torch.zeros(len(warp.size), *warp.size)
    return resample(field[None], size=warp.size, mode="cubic")[0]
