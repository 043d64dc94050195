"""NIfTI files as bytes, laid out by hand after nifti1.h and nifti2.h; no reader is involved."""

import gzip
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

FIELDS_1 = {
    "sizeof_hdr": (0, "i"), "dim": (40, "8h"), "datatype": (70, "h"), "bitpix": (72, "h"),
    "pixdim": (76, "8f"), "vox_offset": (108, "f"), "scl_slope": (112, "f"),
    "scl_inter": (116, "f"), "xyzt_units": (123, "B"), "descrip": (148, "80s"),
    "qform_code": (252, "h"), "sform_code": (254, "h"), "quatern": (256, "3f"),
    "qoffset": (268, "3f"), "srow": (280, "12f"), "magic": (344, "4s"),
}  # fmt: skip
FIELDS_2 = {
    "sizeof_hdr": (0, "i"), "magic": (4, "8s"), "datatype": (12, "h"), "bitpix": (14, "h"),
    "dim": (16, "8q"), "pixdim": (104, "8d"), "vox_offset": (168, "q"), "scl_slope": (176, "d"),
    "scl_inter": (184, "d"), "descrip": (240, "80s"), "qform_code": (344, "i"),
    "sform_code": (348, "i"), "quatern": (352, "3d"), "qoffset": (376, "3d"), "srow": (400, "12d"),
    "xyzt_units": (500, "i"),
}  # fmt: skip
DATATYPE = {
    "u1": 2, "i2": 4, "i4": 8, "f4": 16, "c8": 32, "f8": 64, "i1": 256, "u2": 512, "u4": 768,
    "i8": 1024, "u8": 1280, "c16": 1792,
}  # fmt: skip
SROW = (-2, 0, 0, 90, 0, 3, 0, -126, 0, 0, 4, -72)
"""A left-handed affine of (x, y, z) with spacing 2, 3, 4."""


def affine_of(srow: Sequence[float], unit: float = 1.0) -> np.ndarray:
    """Affine from (d, h, w) to mm for the 12 numbers of srow_x, srow_y and srow_z."""
    xyz = np.vstack([np.reshape(srow, (3, 4)) * unit, [0, 0, 0, 1]]).astype(float)
    return xyz[:, [2, 1, 0, 3]]


def nifti(
    voxels: np.ndarray,
    fields: Mapping[str, object] | None = None,
    *,
    version: int = 1,
    order: str = "<",
    between: bytes = bytes(4),
) -> bytes:
    """Return a file with ``voxels`` indexed (..., t, z, y, x); ``fields`` replace header fields.

    ``between`` is what lies between header and voxels: the extension flag and extensions.
    """
    layout = FIELDS_1 if version == 1 else FIELDS_2
    size = 348 if version == 1 else 540
    kind = voxels.dtype.str[1:]
    values: dict[str, object] = {
        "sizeof_hdr": size,
        "dim": (voxels.ndim, *voxels.shape[::-1], *(1,) * (7 - voxels.ndim)),
        "datatype": DATATYPE[kind],
        "bitpix": voxels.dtype.itemsize * 8,
        "pixdim": (1, 2, 3, 4, 1, 1, 1, 1),
        "vox_offset": size + len(between),
        "scl_slope": 1,
        "scl_inter": 0,
        "xyzt_units": 2,
        "sform_code": 1,
        "srow": SROW,
        "magic": b"n+1\0" if version == 1 else b"n+2\0\r\n\x1a\n",
        **(fields or {}),
    }
    header = bytearray(size)
    for name, value in values.items():
        offset, form = layout[name]
        several = value if isinstance(value, tuple) else (value,)
        struct.pack_into(order + form, header, offset, *several)
    return bytes(header) + between + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes()


def members(content: bytes, size: int) -> bytes:
    """Compress ``content`` as several gzip members of ``size`` bytes."""
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(gzip.compress(part, mtime=0) for part in parts)


def gzip_with_every_header_field(content: bytes) -> bytes:
    """Compress ``content`` with extra field, name, comment and header checksum (RFC 1952)."""
    head = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\x04\0abcd" + b"name\0" + b"comment\0"
    head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    return head + gzip.compress(content, mtime=0)[10:]


def flip_bit(content: bytes, at: int, bit: int = 3) -> bytes:
    """Return ``content`` with one bit changed; ``at`` may be negative."""
    changed = bytearray(content)
    changed[at] ^= 1 << bit
    return bytes(changed)


QFORM_UNITS = (0, 1, 2, 3, 1 | 8, 2 | 16)
"""Values of xyzt_units: unknown, metre, millimetre, micrometre; some with a unit of time."""
