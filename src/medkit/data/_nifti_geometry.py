"""From the orientation fields of a NIfTI header to one affine, and back."""

import numpy as np

from medkit._core.file_errors import GeometryError
from medkit.ops import affine_spacing, corner_indices, transform_points

from ._nifti_header import NiftiHeader
from ._notice import NO_ORIENTATION, Notice

_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # metre, millimetre, micrometre
_LAST_CODE = 5  # NIFTI_XFORM_TEMPLATE_OTHER
_QUATERNION_SLACK = 1e-5  # how far above 1 float32 rounding can put b^2 + c^2 + d^2
_SAME_VOXEL = 1e-2  # two affines are one when all corners agree to this fraction of a voxel


@np.errstate(over="ignore", invalid="ignore")  # numbers beyond float64 are refused by name
def nifti_affine(header: NiftiHeader, path: str) -> tuple[np.ndarray, tuple[Notice, ...]]:
    """Affine from (x, y, z) indices to RAS+ mm, and what to know about it.

    sform if ``sform_code`` > 0; else qform if ``qform_code`` > 0; else spacing only (method 1 of
    the standard: no rotation, no offset), with a notice.
    """
    for field, code in (("sform_code", header.sform_code), ("qform_code", header.qform_code)):
        if not 0 <= code <= _LAST_CODE:
            raise GeometryError(f"in 0..{_LAST_CODE}", path=path, field=field, value=code)
    notices: list[Notice] = []
    if header.sform_code > 0:
        affine = np.vstack([header.srow, [0, 0, 0, 1]])
    elif header.qform_code > 0:
        affine = _qform(header, _pixdim(header, path, notices), path)
    else:
        affine = np.diag([*_pixdim(header, path, notices), 1.0])
        notices.append(
            Notice(NO_ORIENTATION, "sform_code and qform_code are 0: axes and origin are unknown")
        )
    _check(affine, "srow" if header.sform_code > 0 else "qform", path)
    if header.sform_code > 0 and header.qform_code > 0 and _qform_differs(affine, header, path):
        notices.append(Notice("qform_differs", "sform and qform disagree; sform was used"))
    affine[:3] *= _MM_PER_UNIT.get(header.units, 1.0)
    _check(affine, "affine in mm", path)
    return affine, tuple(notices)


def quaternion_parts(
    affine_xyz: np.ndarray, shape: tuple[int, ...]
) -> tuple[float, tuple[float, float, float] | None]:
    """Return qfac and the quaternion of an affine, None if a quaternion cannot hold it."""
    spacing = np.array(affine_spacing(affine_xyz))
    rotation = affine_xyz[:3, :3] / spacing
    qfac = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    rotation = rotation * [1, 1, qfac]
    b, c, d = (float(np.float32(v)) for v in _quaternion(rotation))
    rebuilt = np.eye(4)
    rebuilt[:3, :3] = _rotation((b, c, d)) * [1, 1, qfac] * spacing
    rebuilt[:3, 3] = affine_xyz[:3, 3]
    return qfac, (b, c, d) if _coincide(rebuilt, affine_xyz, shape) else None


def _pixdim(header: NiftiHeader, path: str, notices: list[Notice]) -> tuple[float, float, float]:
    spacing: list[float] = []
    for axis in (1, 2, 3):
        size = header.pixdim[axis]
        flat = axis > len(header.shape) or header.shape[axis - 1] == 1
        if flat and size == 0:
            size = 1.0
            notices.append(Notice("no_thickness", f"pixdim[{axis}] of a flat axis is 0: 1 used"))
        if not (np.isfinite(size) and size > 0):
            raise GeometryError(
                "positive and finite",
                path=path,
                field=f"pixdim[{axis}]",
                value=size,
                remedy="Set the voxel size, or an sform.",
            )
        spacing.append(size)
    return spacing[0], spacing[1], spacing[2]


def _qform(header: NiftiHeader, pixdim: tuple[float, ...], path: str) -> np.ndarray:
    b, c, d = header.quatern
    square = b * b + c * c + d * d
    if not square <= 1 + _QUATERNION_SLACK:  # NaN fails too
        raise GeometryError(
            "a rotation: b^2 + c^2 + d^2 at most 1",
            path=path,
            field="quatern_b, c, d",
            value=f"{b:g}, {c:g}, {d:g}",
            remedy="Write an sform, or repair the quaternion.",
        )
    qfac = header.pixdim[0]
    if not (qfac == -1 or qfac >= 0):
        raise GeometryError("-1, 0 or 1 (qfac)", path=path, field="pixdim[0]", value=qfac)
    qfac = -1.0 if qfac < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = _rotation((b, c, d)) * [1, 1, qfac] * pixdim[:3]
    affine[:3, 3] = header.qoffset
    return affine


def _rotation(quatern: tuple[float, float, float]) -> np.ndarray:
    """Rotation matrix of the unit quaternion whose real part is positive (nifti1.h)."""
    b, c, d = quatern
    square = b * b + c * c + d * d
    if square > 1 - 1e-7:  # a half turn: the real part is lost in rounding
        b, c, d = (v / np.sqrt(square) for v in quatern)
    a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )


def _quaternion(rotation: np.ndarray) -> tuple[float, float, float]:
    """Vector part of the quaternion of the nearest rotation, real part positive (Bar-Itzhack)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation.tolist()
    k = np.array(
        [
            [xx - yy - zz, yx + xy, zx + xz, zy - yz],
            [yx + xy, yy - xx - zz, zy + yz, xz - zx],
            [zx + xz, zy + yz, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    vectors = np.linalg.eigh(k)[1]
    b, c, d, a = vectors[:, -1].tolist()
    return (b, c, d) if a >= 0 else (-b, -c, -d)


def _check(affine: np.ndarray, field: str, path: str) -> None:
    remedy = "Repair the header; the position of the voxels cannot be known without it."
    if not np.isfinite(affine).all():
        raise GeometryError(
            "finite", path=path, field=field, value=affine[:3].tolist(), remedy=remedy
        )
    lengths = np.sqrt(np.square(affine[:3, :3]).sum(axis=0))
    if not lengths.all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6:
        raise GeometryError(
            "invertible", path=path, field=field, value=affine[:3].tolist(), remedy=remedy
        )


def _qform_differs(affine: np.ndarray, header: NiftiHeader, path: str) -> bool:
    try:
        qform = _qform(header, _pixdim(header, path, []), path)
    except GeometryError:
        return True
    return not _coincide(qform, affine, header.shape)


def _coincide(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> bool:
    corners = corner_indices((*shape, 1, 1)[:3])
    distance = np.abs(transform_points(affine, corners) - transform_points(other, corners)).max()
    return bool(distance <= _SAME_VOXEL * min(affine_spacing(other)))
