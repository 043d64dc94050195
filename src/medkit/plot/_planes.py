"""The three orthogonal planes through a volume, turned as a reader expects them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from medkit._core import check
from medkit.data import Volume

AXES = "dhw"
_OPPOSITE = dict(zip("RASLPI", "LPIRAS", strict=True))
_ANATOMY = {"sagittal": ("R", "S", "A"), "coronal": ("A", "S", "R"), "axial": ("S", "A", "R")}


@dataclass(frozen=True)
class Plane:
    """A plane of the array: the axis it cuts, and how the other two lie on the page.

    ``up_down`` and ``left_right`` are array axes; where ``flips`` says so, they are reversed so
    that the first row is the top of the picture and the first column its left.
    """

    name: str
    through: int
    up_down: int
    left_right: int
    flips: tuple[bool, bool]
    letters: tuple[str, str, str, str] | None
    """What lies at the top, bottom, left and right: one of R, L, A, P, S, I each."""

    def cut(self, array: np.ndarray, index: int) -> np.ndarray:
        """Return the rows and columns of the plane at ``index``."""
        image = np.take(array, index, axis=self.through)
        if self.up_down > self.left_right:
            image = image.T
        rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return image[rows, columns]

    def size(self, lengths: Sequence[float | int]) -> tuple[float, float]:
        """Return height and width, from lengths along the array axes."""
        return float(lengths[self.up_down]), float(lengths[self.left_right])

    def span(
        self, start: Sequence[int], stop: Sequence[int], shape: Sequence[int]
    ) -> tuple[int, int, int, int]:
        """Return first row, first column, rows and columns of a box of the array."""
        corner: list[int] = []
        for axis, flip in zip((self.up_down, self.left_right), self.flips, strict=True):
            corner.append(shape[axis] - stop[axis] if flip else start[axis])
        rows, columns = (stop[axis] - start[axis] for axis in (self.up_down, self.left_right))
        return corner[0], corner[1], rows, columns


def planes(axcodes: str | None, *, radiological: bool) -> tuple[Plane, ...]:
    """Return the sagittal, coronal and axial plane, or those along d, h, w without directions."""
    if axcodes is None:
        inside = ((1, 2), (0, 2), (0, 1))
        return tuple(
            Plane("", through, rows, columns, (False, False), None)
            for through, (rows, columns) in enumerate(inside)
        )
    axis = {positive: _axis(axcodes, positive) for positive in "RAS"}
    found: list[Plane] = []
    for name, (through, up, across) in _ANATOMY.items():
        right = _OPPOSITE[across] if radiological else across
        left_right = axis[across]
        found.append(
            Plane(
                name,
                axis[through],
                axis[up],
                left_right,
                (axcodes[axis[up]] == up, axcodes[left_right] != right),
                (up, _OPPOSITE[up], _OPPOSITE[right], right),
            )
        )
    return tuple(found)


def as_array(name: str, image: Volume | Tensor | np.ndarray) -> np.ndarray:
    """Return the voxels (D, H, W) of a volume, tensor or array with one channel."""
    check.kind(name, image, (Volume, Tensor, np.ndarray), "a volume, a tensor or an array")
    data = image.data if isinstance(image, Volume) else image
    array = data.detach().cpu().numpy() if isinstance(data, Tensor) else np.asarray(data)
    if array.ndim == 2:
        return array[None]
    if array.ndim == 4 and len(array) == 1:
        return array[0]
    if array.ndim != 3:
        raise check.fail(name, "(D, H, W), (1, D, H, W) or (H, W)", f"shape {array.shape}")
    return array


def centres(length: float, count: int, *, beyond: int = 0) -> np.ndarray:
    """Return where the pixels of a row lie, and ``beyond`` more at both ends."""
    step = length / count
    return np.linspace((0.5 - beyond) * step, length - (0.5 - beyond) * step, count + 2 * beyond)


def as_labels(name: str, image: Volume | Tensor | np.ndarray) -> np.ndarray:
    """Return the labels (D, H, W) of a map of integers or booleans."""
    array = as_array(name, image)
    if array.dtype.kind not in "iub":
        raise TypeError(f"{name} must be labels, integers or booleans; got {array.dtype}")
    return array


def _axis(axcodes: str, positive: str) -> int:
    """Find the array axis that runs along a direction, either way."""
    return next(i for i, code in enumerate(axcodes) if code in (positive, _OPPOSITE[positive]))
