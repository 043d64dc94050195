"""Volumes of files that say nothing about the directions of their axes."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from medkit._core.file_errors import GeometryError
from medkit.ops import affine_spacing, permute_affine

from ._notice import NO_ORIENTATION, Notice
from ._volume import Volume


def placed(
    data: Tensor, source: str, affine: np.ndarray | None, spacing: np.ndarray | None
) -> Volume:
    """Return the volume of a file that holds its geometry in arrays, or none.

    ``affine`` maps (d, h, w) to RAS+ mm; ``spacing`` alone is the mm between voxels along them.
    """
    if affine is not None:
        if affine.shape != (4, 4) or affine.dtype.kind not in "iuf":
            raise GeometryError("a 4 x 4 matrix", path=source, field="affine", value=affine.shape)
        try:
            return Volume(data, affine.astype(np.float64), source)
        except ValueError as error:
            raise GeometryError(str(error), path=source) from error
    why = "the file holds no affine: axes and origin are unknown"
    if spacing is None:
        return unoriented(data, source, why=why)
    if spacing.shape != (3,) or spacing.dtype.kind not in "iuf":
        raise GeometryError("three lengths", path=source, field="spacing", value=spacing.shape)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise GeometryError("positive", path=source, field="spacing", value=spacing.tolist())
    return unoriented(data, source, spacing.tolist(), why=why)


def unoriented(
    data: Tensor, source: str, spacing: Sequence[float] = (1, 1, 1), *, why: str
) -> Volume:
    """Return a volume that has a spacing (d, h, w) at most, with the notice that says so.

    Its axes are called S, A and R, as those of a NIfTI file without orientation.
    """
    affine = permute_affine(np.diag([*reversed(spacing), 1.0]), (2, 1, 0))
    return Volume(data, affine, source, (Notice(NO_ORIENTATION, why),))


def is_oriented(affine_xyz: np.ndarray, notices: tuple[Notice, ...]) -> bool:
    """Return whether an affine says more than the spacing of a file without orientation."""
    spacing = np.diag([*affine_spacing(affine_xyz), 1.0])
    unknown = any(notice.code == NO_ORIENTATION for notice in notices)
    return not (unknown and np.array_equal(affine_xyz, spacing))
