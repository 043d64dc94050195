"""Affine matrices between array indices and world millimetres, in float64 NumPy.

Every function takes the matrix that maps the indices of an array, in the order of its axes, to
world coordinates in mm that grow towards Right, Anterior and Superior (RAS+).
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import Float, Float64, Integer

from medkit._core import check

Affine = Float64[np.ndarray, "4 4"]

_POSITIVE = "RAS"
_NEGATIVE = "LPI"


def affine_spacing(affine: Affine) -> tuple[float, float, float]:
    r"""Distance in mm between neighbouring voxels along each array axis.

    The length of column ``i``: :math:`s_i = \sqrt{\sum_r A_{ri}^2}`. Correct for rotated and
    sheared affines too. Use it wherever a length or a surface distance is measured.

    Args:
        affine: Matrix from array indices to world mm.

    Returns:
        One positive length in mm for each array axis, in the order of the axes.

    Example:
        >>> import numpy as np
        >>> affine_spacing(np.diag([3.0, -2.0, 0.5, 1.0]))
        (3.0, 2.0, 0.5)
    """
    d, h, w = np.sqrt(np.square(affine[:3, :3]).sum(axis=0)).tolist()
    return d, h, w


def affine_axcodes(affine: Affine) -> str:
    """Three letters, one per array axis: the direction of the body in which its index grows.

    Axes are matched to the world axes one to one, closest first, so an oblique volume gets the
    letters of the nearest straight one. R, A and S stand for right, anterior and superior; L, P
    and I for their opposites. The letters follow the order of the array axes: the file that
    nibabel calls ``RAS`` is ``SAR`` here, because its array axes are read as (d, h, w).

    Args:
        affine: Matrix from array indices to world mm.

    Returns:
        Letters such as ``"SAR"``.

    Example:
        >>> import numpy as np
        >>> affine_axcodes(np.diag([1.0, 1.0, -1.0, 1.0]))
        'RAI'
    """
    codes = ["", "", ""]
    for axis, world, sign in _nearest_world_axes(affine):
        codes[axis] = (_POSITIVE if sign > 0 else _NEGATIVE)[world]
    return "".join(codes)


def affine_shear(affine: Affine) -> float:
    r"""Largest absolute cosine between two array axes; 0 when they meet at right angles.

    :math:`\max_{i \ne j} |a_i \cdot a_j| / (|a_i| |a_j|)` over the columns. A tilted CT gantry or
    an affine registration gives a sheared grid; formats and programs that store a rotation and
    three spacings cannot hold it.

    Args:
        affine: Matrix from array indices to world mm.

    Returns:
        A number in [0, 1]; 1 means that two axes are parallel.

    Example:
        >>> import numpy as np
        >>> sheared = np.eye(4)
        >>> sheared[0, 1] = 1.0
        >>> round(affine_shear(sheared), 4)
        0.7071
    """
    columns = affine[:3, :3] / np.array(affine_spacing(affine))
    cosines = np.abs(columns.T @ columns) - np.eye(3)
    return float(min(1.0, max(0.0, cosines.max())))


def axes_towards(affine: Affine, axcodes: str) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Which array axes to permute and then flip so that they point towards ``axcodes``.

    Args:
        affine: Matrix from array indices to world mm.
        axcodes: Wanted direction of each new array axis, e.g. ``"RAS"``; one letter of each of the
            pairs R/L, A/P and S/I.

    Returns:
        The permutation (the old axis behind each new axis), and the new axes to flip.

    Raises:
        ValueError: If ``axcodes`` does not name three different directions.

    Example:
        >>> import numpy as np
        >>> axes_towards(np.diag([1.0, 1.0, -1.0, 1.0]), "SAR")
        ((2, 1, 0), (0,))
    """
    if sorted(_NEGATIVE.find(c) + _POSITIVE.find(c) + 1 for c in axcodes) != [0, 1, 2]:
        raise check.fail("axcodes", "one letter of each of R/L, A/P and S/I", repr(axcodes))
    current = affine_axcodes(affine)
    pairs = ("RL", "AP", "SI")
    worlds = [next(p for p in pairs if code in p) for code in axcodes]
    a, b, c = (next(i for i, code in enumerate(current) if code in pair) for pair in worlds)
    flips = tuple(new for new, old in enumerate((a, b, c)) if current[old] != axcodes[new])
    return (a, b, c), flips


def translate_affine(affine: Affine, start: Sequence[float]) -> Affine:
    """Affine of the part of an array that begins at index ``start``.

    Use it after cropping (positive starts) or padding (negative starts): every voxel keeps its
    world position.

    Args:
        affine: Matrix of the whole array.
        start: Index of the first voxel kept, per array axis.

    Returns:
        Matrix of the part.

    Example:
        >>> import numpy as np
        >>> translate_affine(np.diag([2.0, 1.0, 1.0, 1.0]), (10, 0, -5))[:3, 3].tolist()
        [20.0, 0.0, -5.0]
    """
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ np.asarray(start, dtype=np.float64) + affine[:3, 3]
    return moved


def permute_affine(affine: Affine, axes: Sequence[int]) -> Affine:
    """Affine after the array axes were permuted, e.g. ``(2, 1, 0)`` between (d,h,w) and (x,y,z).

    Args:
        affine: Matrix of the array before.
        axes: The old axis behind each new axis, as in ``numpy.transpose``.

    Returns:
        Matrix of the permuted array: the same columns in the new order.

    Example:
        >>> import numpy as np
        >>> affine_spacing(permute_affine(np.diag([3.0, 2.0, 1.0, 1.0]), (2, 1, 0)))
        (1.0, 2.0, 3.0)
    """
    return affine[:, [*axes, 3]].copy()


def flip_affine(affine: Affine, shape: Sequence[int], axes: Sequence[int]) -> Affine:
    """Affine after an array was reversed along some axes.

    Column ``i`` changes sign and the origin moves to the voxel that was last on axis ``i``.

    Args:
        affine: Matrix of the array before.
        shape: Number of voxels per array axis.
        axes: Axes that were reversed.

    Returns:
        Matrix of the reversed array.

    Example:
        >>> import numpy as np
        >>> flip_affine(np.eye(4), (10, 20, 30), (0,))[0].tolist()
        [-1.0, 0.0, 0.0, 9.0]
    """
    last = [shape[axis] - 1 if axis in axes else 0 for axis in range(3)]
    flipped = translate_affine(affine, last)
    for axis in axes:
        flipped[:3, axis] = -affine[:3, axis]
    return flipped


def rescale_affine(
    affine: Affine,
    shape: Sequence[int],
    new_shape: Sequence[int],
    spacing: Sequence[float],
) -> Affine:
    """Affine of a grid with other spacing and size, the same directions and the same centre.

    Args:
        affine: Matrix of the array before.
        shape: Its number of voxels per axis.
        new_shape: Number of voxels per axis of the new grid.
        spacing: Distance in mm between its voxels, per axis.

    Returns:
        Matrix of the new grid.

    Example:
        >>> import numpy as np
        >>> rescale_affine(np.eye(4), (4, 4, 4), (2, 2, 2), (2.0, 2.0, 2.0))[:3, 3].tolist()
        [0.5, 0.5, 0.5]
    """
    scaled = affine.copy()
    scaled[:3, :3] = affine[:3, :3] / np.array(affine_spacing(affine)) * np.asarray(spacing)
    centre = (np.asarray(shape) - 1) / 2
    new_centre = (np.asarray(new_shape) - 1) / 2
    scaled[:3, 3] = affine[:3, 3] + affine[:3, :3] @ centre - scaled[:3, :3] @ new_centre
    return scaled


def ras_to_lps(affine: Affine) -> Affine:
    """The same affine with world axes towards Left, Posterior, Superior (ITK, DICOM), or back.

    The first two rows change sign; the function is its own inverse.

    Args:
        affine: Matrix from array indices to RAS+ mm (or to LPS+ mm).

    Returns:
        Matrix to LPS+ mm (or to RAS+ mm).

    Example:
        >>> import numpy as np
        >>> np.diag(ras_to_lps(np.eye(4))).tolist()
        [-1.0, -1.0, 1.0, 1.0]
    """
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def transform_points(
    affine: Affine, points: Float[np.ndarray, "*batch 3"] | Integer[np.ndarray, "*batch 3"]
) -> Float64[np.ndarray, "*batch 3"]:
    """World positions in mm of array indices.

    Args:
        affine: Matrix from array indices to world mm.
        points: Indices in the order of the array axes; fractions lie between voxels.

    Returns:
        Positions in mm, the last axis is (x, y, z) in RAS+.

    Example:
        >>> import numpy as np
        >>> transform_points(np.diag([2.0, 1.0, 1.0, 1.0]), np.array([[1, 2, 3]])).tolist()
        [[2.0, 2.0, 3.0]]
    """
    return np.asarray(points, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]


def corner_indices(shape: Sequence[int]) -> Integer[np.ndarray, "8 3"]:
    """Indices of the eight corner voxels of an array.

    Two grids of one shape coincide where their corners do, so comparing corners compares affines
    in mm instead of in matrix entries.

    Args:
        shape: Number of voxels per array axis.

    Returns:
        Eight rows of indices.

    Example:
        >>> corner_indices((2, 3, 4))[-1].tolist()
        [1, 2, 3]
    """
    return np.array(list(product(*((0, size - 1) for size in shape))))


def _nearest_world_axes(affine: Affine) -> list[tuple[int, int, float]]:
    """Pair array axes with world axes, the best aligned pair first: (array, world, sign)."""
    cosines = affine[:3, :3] / np.array(affine_spacing(affine))
    left = np.abs(cosines)
    pairs: list[tuple[int, int, float]] = []
    for _ in range(3):
        world, axis = divmod(int(left.argmax()), 3)
        pairs.append((axis, world, float(cosines[world, axis])))
        left[world, :] = -1
        left[:, axis] = -1
    return pairs
