"""The fields of a NIfTI header that decide voxels and geometry, read and written by the standard.

R. W. Cox et al., A (sort of) new image data format standard: NIfTI-1, Human Brain Mapping 2004;
field offsets and meaning after the header files nifti1.h and nifti2.h.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from medkit._core.file_errors import FormatError, TruncatedError

_NIFTI1 = np.dtype(
    {
        "names": [
            "sizeof_hdr", "dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope",
            "scl_inter", "xyzt_units", "qform_code", "sform_code", "quatern", "qoffset", "srow",
            "magic",
        ],
        "formats": [
            "i4", "8i2", "i2", "i2", "8f4", "f4", "f4",
            "f4", "u1", "i2", "i2", "3f4", "3f4", "(3,4)f4",
            "S4",
        ],
        "offsets": [0, 40, 70, 72, 76, 108, 112, 116, 123, 252, 254, 256, 268, 280, 344],
        "itemsize": 348,
    }
)  # fmt: skip
_NIFTI2 = np.dtype(
    {
        "names": [
            "sizeof_hdr", "magic", "datatype", "bitpix", "dim", "pixdim", "vox_offset",
            "scl_slope", "scl_inter", "qform_code", "sform_code", "quatern", "qoffset", "srow",
            "xyzt_units",
        ],
        "formats": [
            "i4", "S8", "i2", "i2", "8i8", "8f8", "i8",
            "f8", "f8", "i4", "i4", "3f8", "3f8", "(3,4)f8",
            "i4",
        ],
        "offsets": [0, 4, 12, 14, 16, 104, 168, 176, 184, 344, 348, 352, 376, 400, 500],
        "itemsize": 540,
    }
)  # fmt: skip

_VERSIONS: dict[bytes, tuple[Literal[1, 2], Literal["<", ">"]]] = {
    (348).to_bytes(4, "little"): (1, "<"),
    (348).to_bytes(4, "big"): (1, ">"),
    (540).to_bytes(4, "little"): (2, "<"),
    (540).to_bytes(4, "big"): (2, ">"),
}

HEADER_BYTES = 540
"""Bytes from the start of a file that are enough to parse either version."""

RGB = np.dtype(("u1", (3,)))
RGBA = np.dtype(("u1", (4,)))

DATATYPES: dict[int, np.dtype[np.generic]] = {
    2: np.dtype("u1"),
    4: np.dtype("i2"),
    8: np.dtype("i4"),
    16: np.dtype("f4"),
    32: np.dtype("c8"),
    64: np.dtype("f8"),
    128: RGB,
    256: np.dtype("i1"),
    512: np.dtype("u2"),
    768: np.dtype("u4"),
    1024: np.dtype("i8"),
    1280: np.dtype("u8"),
    1792: np.dtype("c16"),
    2304: RGBA,
}
"""NIfTI datatype codes and how their voxels are stored."""

_CODES: dict[str, int] = {
    dtype.str[1:]: code for code, dtype in DATATYPES.items() if not dtype.shape
}
"""The datatype code of a NumPy dtype, without byte order, e.g. ``"i2"``."""

_UNSUPPORTED = {
    0: "unknown",
    1: "1 bit per voxel",
    1536: "float128",
    2048: "complex256",
}
_MAX_DIMS = 7


@dataclass(frozen=True, kw_only=True)
class NiftiHeader:
    """What a NIfTI header says about voxels and their positions, checked for sense."""

    version: Literal[1, 2]
    byteorder: Literal["<", ">"]
    shape: tuple[int, ...]
    """Extents of the axes that are there: x, y, z, t, ..."""
    dtype: np.dtype[np.generic]
    """Stored type of a voxel, byte order included; RGB has shape (3,)."""
    vox_offset: int
    slope: float
    inter: float
    pixdim: tuple[float, ...]
    units: int
    qform_code: int
    sform_code: int
    quatern: tuple[float, float, float]
    qoffset: tuple[float, float, float]
    srow: np.ndarray

    @property
    def payload(self) -> int:
        """Number of bytes of the voxels, computed without overflow."""
        total = self.dtype.itemsize
        for size in self.shape:
            total *= size
        return total


def is_nifti(head: bytes) -> bool:
    """Return whether the first bytes of a file, after gzip, are those of a NIfTI header.

    The size of the header or its magic is enough, so that a header with one of the two damaged is
    reported as such.
    """
    magics = {head[344:347], head[4:7]}
    return head[:4] in _VERSIONS or bool(magics & {b"n+1", b"ni1", b"n+2", b"ni2"})


@np.errstate(invalid="ignore")  # signalling NaNs are refused by name
def parse_header(head: bytes, path: str) -> NiftiHeader:
    """Read the header at the start of ``head``; raise ``FormatError`` where it makes no sense."""
    version, byteorder = _version(head, path)
    layout = _NIFTI1 if version == 1 else _NIFTI2
    if len(head) < layout.itemsize:
        raise TruncatedError(
            f"at least {layout.itemsize} bytes", path=path, field="NIfTI header", value=len(head)
        )
    fields = np.frombuffer(head, layout.newbyteorder(byteorder), count=1)[0]
    _check_magic(bytes(head[344:348] if version == 1 else head[4:12]), version, path)
    return NiftiHeader(
        version=version,
        byteorder=byteorder,
        shape=_shape(fields["dim"].tolist(), path),
        dtype=_dtype(int(fields["datatype"]), int(fields["bitpix"]), path).newbyteorder(byteorder),
        vox_offset=_vox_offset(float(fields["vox_offset"]), layout.itemsize + 4, path),
        slope=float(fields["scl_slope"]),
        inter=float(fields["scl_inter"]),
        pixdim=tuple(fields["pixdim"].tolist()),
        units=int(fields["xyzt_units"]) & 7,
        qform_code=int(fields["qform_code"]),
        sform_code=int(fields["sform_code"]),
        quatern=_triple(fields["quatern"]),
        qoffset=_triple(fields["qoffset"]),
        srow=fields["srow"].astype(np.float64),
    )


def build_header(
    *,
    version: Literal[1, 2],
    shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    affine_xyz: np.ndarray,
    spacing_xyz: tuple[float, ...],
    qfac: float,
    quatern: tuple[float, float, float] | None,
    oriented: bool,
) -> bytes:
    """Return a little-endian header and its empty extension flag, ready to precede the voxels.

    ``quatern`` is None when the affine is no rotation with spacings; qform_code is then 0.
    Both codes are 0 unless ``oriented``: the spacing is then all that is said.
    """
    layout = _NIFTI1 if version == 1 else _NIFTI2
    record = np.zeros(1, layout.newbyteorder("<"))
    fields = record[0]
    fields["sizeof_hdr"] = layout.itemsize
    fields["magic"] = b"n+1" if version == 1 else b"n+2\0\r\n\x1a\n"
    fields["dim"] = [len(shape), *shape, *(1,) * (_MAX_DIMS - len(shape))]
    fields["datatype"] = _CODES[dtype.str[1:]]
    fields["bitpix"] = dtype.itemsize * 8
    fields["pixdim"] = [qfac, *spacing_xyz, 1, 1, 1, 1]
    fields["vox_offset"] = layout.itemsize + 4
    fields["scl_slope"] = 1
    fields["xyzt_units"] = 2
    if not oriented:
        return record.tobytes() + bytes(4)
    fields["sform_code"] = 1
    fields["srow"] = affine_xyz[:3]
    if quatern is not None:
        fields["qform_code"] = 1
        fields["quatern"] = quatern
        fields["qoffset"] = affine_xyz[:3, 3]
    return record.tobytes() + bytes(4)


def _version(head: bytes, path: str) -> tuple[Literal[1, 2], Literal["<", ">"]]:
    if head[:4] not in _VERSIONS:
        raise FormatError(
            "348 (NIfTI-1) or 540 (NIfTI-2)",
            path=path,
            field="sizeof_hdr",
            value=int.from_bytes(head[:4], "little"),
        )
    return _VERSIONS[head[:4]]


def _check_magic(magic: bytes, version: int, path: str) -> None:
    single, pair = (
        (b"n+1\0", b"ni1\0") if version == 1 else (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")
    )
    if magic == single:
        return
    remedy = ""
    if magic == pair:
        remedy = "Convert the .hdr/.img pair to a single .nii file."
    elif magic[:3] == b"\0\0\0":
        remedy = "This looks like ANALYZE 7.5, which stores no orientation; convert it to NIfTI."
    raise FormatError(repr(single), path=path, field="magic", value=repr(magic), remedy=remedy)


def _shape(dim: list[int], path: str) -> tuple[int, ...]:
    if not 1 <= dim[0] <= _MAX_DIMS:
        raise FormatError("in 1..7", path=path, field="dim[0]", value=dim[0])
    for axis in range(1, dim[0] + 1):
        if dim[axis] < 1:
            raise FormatError("at least 1", path=path, field=f"dim[{axis}]", value=dim[axis])
    return tuple(dim[1 : dim[0] + 1])


def _dtype(code: int, bitpix: int, path: str) -> np.dtype[np.generic]:
    if code not in DATATYPES:
        raise FormatError(
            f"one of {', '.join(map(str, DATATYPES))}",
            path=path,
            field="datatype",
            value=f"{code} ({_UNSUPPORTED.get(code, 'not in the standard')})",
            remedy="Convert the voxels to a type that a tensor can hold without loss.",
        )
    bits = DATATYPES[code].itemsize * 8
    if bitpix != bits:
        raise FormatError(f"{bits} for datatype {code}", path=path, field="bitpix", value=bitpix)
    return DATATYPES[code]


def _vox_offset(offset: float, smallest: int, path: str) -> int:
    if not (offset >= smallest and offset.is_integer()):  # NaN and infinity fail too
        raise FormatError(
            f"a whole number from {smallest}", path=path, field="vox_offset", value=offset
        )
    return int(offset)


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    a, b, c = values.astype(np.float64).tolist()
    return a, b, c
