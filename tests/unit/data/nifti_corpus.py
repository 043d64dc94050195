"""Odd NIfTI files, each with what must come out: these voxels at these places, or this error."""

import gzip
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from medkit.data import (
    ChecksumError,
    DataError,
    FormatError,
    GeometryError,
    LimitError,
    Limits,
    TruncatedError,
)
from unit.data.nifti_bytes import (
    SROW,
    affine_of,
    flip_bit,
    gzip_with_every_header_field,
    members,
    nifti,
)

NAN, INF = float("nan"), float("inf")
SHEARED = (2, 0.5, 0, -10, 0, 3, 0.25, 5, 0, 0, 4, 7)
QFORM = {"sform_code": 0, "qform_code": 1, "qoffset": (10, 20, 30)}


@dataclass(frozen=True)
class Good:
    """A file that must be read, whatever it looks like."""

    name: str
    content: bytes
    voxels: np.ndarray
    """(C, D, H, W), of the dtype expected."""
    affine: np.ndarray = field(default_factory=lambda: affine_of(SROW))
    notices: tuple[str, ...] = ()
    suffix: str = ".nii"


@dataclass(frozen=True)
class Bad:
    """A file that must be refused, with words that the error must contain."""

    name: str
    content: bytes
    error: type[DataError]
    words: str
    limits: Limits | None = None
    suffix: str = ".nii"


def ramp(*shape: int, dtype: str = "i2") -> np.ndarray:
    """Voxels that all differ."""
    return (np.arange(np.prod(shape)) - 7).reshape(shape).astype(dtype)


V = ramp(3, 4, 5)
C = V[None]
PLAIN = nifti(V)
GZ = gzip.compress(PLAIN, mtime=0)
NOISE = np.random.default_rng(0).integers(-999, 999, (20, 30, 40)).astype("i2")
NOISY_GZ = gzip.compress(nifti(NOISE), mtime=0)


def good() -> Iterator[Good]:
    """Yield the files that must be read."""
    yield from _containers()
    yield from _layouts()
    yield from _dtypes()
    yield from _scalings()
    yield from _geometries()


def _containers() -> Iterator[Good]:
    yield Good("plain", PLAIN, C)
    yield Good("gzip", GZ, C, suffix=".nii.gz")
    yield Good("gzip named .nii", GZ, C)
    yield Good("plain named .nii.gz", PLAIN, C, suffix=".nii.gz")
    yield Good("no suffix", PLAIN, C, suffix="")
    yield Good("stored gzip", gzip.compress(PLAIN, 0, mtime=0), C, suffix=".nii.gz")
    yield Good("gzip members", members(PLAIN, 100), C, suffix=".nii.gz")
    yield Good("gzip members of 1 byte", members(PLAIN, 1), C, suffix=".nii.gz")
    yield Good("empty last member", GZ + gzip.compress(b""), C, suffix=".nii.gz")
    yield Good("empty first member", gzip.compress(b"") + GZ, C, suffix=".nii.gz")
    yield Good("zeros after gzip", GZ + bytes(300_000), C, suffix=".nii.gz")
    full = gzip_with_every_header_field(PLAIN)
    yield Good("gzip header with all fields", full, C, suffix=".nii.gz")
    extension = b"\1\0\0\0" + struct.pack("<ii", 32, 6) + b"comment".ljust(24, b"\0")
    yield Good("extension", nifti(V, between=extension), C)
    forged = b"\1\0\0\0" + struct.pack("<ii", 2**31 - 1, 6) + bytes(24)
    yield Good("extension of 2 GiB", nifti(V, between=forged), C)
    yield Good("extension of -1 byte", nifti(V, between=b"\1\0\0\0" + b"\xff" * 16), C)
    far = nifti(V, between=bytes(3_000_000))
    yield Good("far voxels in gzip", gzip.compress(far, mtime=0), C, suffix=".nii.gz")


def _layouts() -> Iterator[Good]:
    yield Good("big endian", nifti(V, order=">"), C)
    yield Good("nifti-2", nifti(V, version=2), C)
    two = gzip.compress(nifti(V, version=2, order=">"), mtime=0)
    yield Good("nifti-2 big endian gzip", two, C, suffix=".nii.gz")
    four = ramp(6, 3, 4, 5)
    yield Good("4-D", nifti(four), four)
    yield Good("4-D big endian", nifti(four, order=">"), four)
    yield Good("vector", nifti(ramp(3, 1, 3, 4, 5, dtype="f4")), ramp(3, 3, 4, 5, dtype="f4"))
    yield Good("7-D of one", nifti(ramp(1, 1, 1, 1, 3, 4, 5)), C)
    yield Good("2-D", nifti(ramp(4, 5)), ramp(1, 1, 4, 5))
    yield Good("1-D", nifti(ramp(5)), ramp(1, 1, 1, 5))
    yield Good("one voxel", nifti(ramp(1, 1, 1)), ramp(1, 1, 1, 1))
    yield Good("rubbish beyond dim[0]", nifti(V, {"dim": (3, 5, 4, 3, -1, 0, 99, -7)}), C)
    yield Good("rubbish in text", nifti(V, {"descrip": b"\xff" * 80}), C)


def _dtypes() -> Iterator[Good]:
    same = ("u1", "i1", "i2", "i4", "i8", "f4", "f8", "c8", "c16")
    wider = {"u2": "i4", "u4": "i8", "u8": "i8"}
    for kind in (*same, *wider):
        for order in "<>":
            v = ramp(3, 4, 5, dtype=kind) if kind[0] != "u" else ramp(3, 4, 5).view("u2")
            v = v.astype(kind)
            expected = v[None].astype(wider.get(kind, kind))
            yield Good(f"{kind} {order}", nifti(v, order=order), expected)
    special = np.array([NAN, INF, -INF, -0.0], "f4").reshape(1, 1, 4)
    yield Good("not a number", nifti(special), special[None])
    colours = np.arange(3 * 4 * 5 * 3, dtype="u1").reshape(3, 4, 5, 3)
    rgb = {"dim": (3, 5, 4, 3, 1, 1, 1, 1), "datatype": 128, "bitpix": 24}
    channels = np.moveaxis(colours, -1, 0)
    yield Good("rgb", nifti(colours, rgb), channels)
    notice = ("rgb_not_scaled",)
    yield Good("rgb with slope", nifti(colours, {**rgb, "scl_slope": 2}), channels, notices=notice)
    colours = np.arange(3 * 4 * 5 * 4, dtype="u1").reshape(3, 4, 5, 4)
    rgba = {"dim": (3, 5, 4, 3, 1, 1, 1, 1), "datatype": 2304, "bitpix": 32}
    yield Good("rgba", nifti(colours, rgba), np.moveaxis(colours, -1, 0))


def _scalings() -> Iterator[Good]:
    def scaled(slope: float, inter: float, voxels: np.ndarray = V, version: int = 1) -> bytes:
        fields = {"scl_slope": slope, "scl_inter": inter}
        return nifti(voxels, fields, version=version)

    yield Good("slope 0, intercept 5", scaled(0, 5), C)
    yield Good("slope nan", scaled(NAN, NAN), C)
    yield Good("slope inf", scaled(INF, 0), C, notices=("slope_not_finite",))
    yield Good("slope 0, intercept nan", scaled(0, NAN), C)
    yield Good("whole scaling", scaled(2, -1024), (C * 2 - 1024).astype("i4"))
    yield Good("negative slope", scaled(-1, 0), (-C).astype("i4"))
    big = C.astype("i8") * 10**6
    yield Good("whole scaling beyond int32", scaled(1e6, 0), big)
    yield Good("whole scaling beyond int64", scaled(2.0**60, 0), (C * 2.0**60).astype("f4"))
    yield Good("fractional scaling", scaled(0.5, 0.25), (C * 0.5 + 0.25).astype("f4"))
    huge = float(np.float32(1e38))
    yield Good("scaling beyond float32", scaled(huge, 0), C * huge)
    wide = V.astype("i4") * 1000
    yield Good("scaled int32", scaled(0.5, 0, wide), wide[None] * 0.5)
    small = scaled(1e-300, 0, version=2)
    yield Good("scaling below float32", small, C * 1e-300)
    real = V.astype("f4") / 3
    yield Good("scaled float32", scaled(2.5, 1, real), real[None].astype("f8") * 2.5 + 1)
    both = (V + 1j * V).astype("c8")
    yield Good("scaled complex", scaled(2, 0, both), both[None].astype("c16") * 2)
    unsigned = V.view("u2")
    yield Good("intercept only", scaled(1, 0.5, unsigned), (unsigned[None] + 0.5).astype("f4"))


def _geometries() -> Iterator[Good]:
    def file(fields: dict[str, object], voxels: np.ndarray = V, version: int = 1) -> bytes:
        return nifti(voxels, fields, version=version)

    straight = affine_of((2, 0, 0, 10, 0, 3, 0, 20, 0, 0, 4, 30))
    yield Good("sheared sform", file({"srow": SHEARED}), C, affine_of(SHEARED))
    yield Good("qform only", file(QFORM), C, straight)
    left = {**QFORM, "pixdim": (-1, 2, 3, 4, 1, 1, 1, 1)}
    left_affine = affine_of((2, 0, 0, 10, 0, 3, 0, 20, 0, 0, -4, 30))
    yield Good("qform with qfac -1", file(left), C, left_affine)
    yield Good("qfac 0 is 1", file({**QFORM, "pixdim": (0, 2, 3, 4, 1, 1, 1, 1)}), C, straight)
    turned = affine_of((-2, 0, 0, 10, 0, -3, 0, 20, 0, 0, 4, 30))
    yield Good("half turn", file({**QFORM, "quatern": (0, 0, 1)}), C, turned)
    above = {**QFORM, "quatern": (0, 0, 1.000001)}
    yield Good("quaternion 1e-6 above 1", file(above), C, turned)
    third = affine_of((0, 0, 4, 10, 2, 0, 0, 20, 0, 3, 0, 30))
    quarter = {**QFORM, "quatern": (0.5, 0.5, 0.5)}
    yield Good("axes in a ring", file(quarter), C, third)
    both = {**QFORM, "sform_code": 2}
    yield Good("sform and qform disagree", file(both), C, notices=("qform_differs",))
    odd = {**both, "quatern": (3, 0, 0)}
    yield Good("sform beside an impossible qform", file(odd), C, notices=("qform_differs",))
    none = {"sform_code": 0}
    spacing = affine_of((2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4, 0))
    yield Good("no orientation", file(none), C, spacing, ("no_orientation",))
    flat = {**QFORM, "pixdim": (1, 2, 3, 0, 0, 0, 0, 0)}
    thin = affine_of((2, 0, 0, 10, 0, 3, 0, 20, 0, 0, 1, 30))
    yield Good(
        "2-D without thickness", file(flat, ramp(4, 5)), ramp(1, 1, 4, 5), thin, ("no_thickness",)
    )
    for name, code, unit in (("metre", 1, 1000.0), ("micrometre", 3, 0.001), ("unknown", 0, 1.0)):
        in_unit = affine_of(SROW, unit)
        yield Good(f"unit {name}", file({"xyzt_units": code | 8}), C, in_unit)
    tiny = tuple(v * 1e-6 for v in SROW)
    yield Good("nanometres", file({"srow": tiny}, version=2), C, affine_of(tiny))


def bad() -> Iterator[Bad]:
    """Yield the files that must be refused."""
    yield from _damaged()
    yield from _too_big()
    yield from _nonsense()
    yield from _impossible_places()


def _damaged() -> Iterator[Bad]:
    yield Bad("empty", b"", FormatError, "known format")
    yield Bad("text", b"sub,age\n1,50\n" * 99, FormatError, "known format")
    yield Bad("gif", b"GIF89a" + bytes(600), FormatError, "known format")
    yield Bad("cut in the header", PLAIN[:300], TruncatedError, "NIfTI header")
    yield Bad("nifti-2 cut in the header", nifti(V, version=2)[:500], TruncatedError, "header")
    yield Bad("cut by one byte", PLAIN[:-1], TruncatedError, "can hold")
    yield Bad("header only", PLAIN[:352], TruncatedError, "can hold")
    yield Bad("gzip of a cut file", gzip.compress(PLAIN[:-1]), TruncatedError, "voxels")
    yield Bad("gzip of a header", gzip.compress(PLAIN[:352]), TruncatedError, "voxels")
    yield Bad("gzip cut in the voxels", NOISY_GZ[: len(NOISY_GZ) // 2], TruncatedError, "gzip")
    yield Bad("gzip cut in the checksum", GZ[:-3], TruncatedError, "gzip")
    yield Bad("gzip cut before the checksum", GZ[:-8], TruncatedError, "gzip")
    yield Bad("gzip cut in its header", GZ[:6], TruncatedError, "gzip")
    yield Bad("gzip magic only", GZ[:2], TruncatedError, "gzip")
    yield Bad("second member cut", (GZ + gzip.compress(b""))[:-5], TruncatedError, "gzip")
    yield Bad("bit in the CRC", flip_bit(GZ, -6), ChecksumError, "CRC-32")
    yield Bad("bit in the length", flip_bit(GZ, -2), ChecksumError, "length")
    stored = gzip.compress(PLAIN, 0, mtime=0)
    yield Bad("bit in a voxel", flip_bit(stored, -20), ChecksumError, "CRC-32")
    early = members(PLAIN, 400)
    at = len(gzip.compress(PLAIN[:400], mtime=0)) - 6
    yield Bad("CRC of the first member", flip_bit(early, at), ChecksumError, "CRC-32")
    yield Bad("gzip method 9", GZ[:2] + b"\x09" + GZ[3:], FormatError, "method 9")
    yield Bad("gzip reserved flag", GZ[:3] + b"\x20" + GZ[4:], FormatError, "flags 0x20")
    yield Bad("deflate block of no type", GZ[:10] + b"\xff" + GZ[11:], FormatError, "deflate")
    yield Bad("bytes after the voxels", PLAIN + b"x", FormatError, "last voxel")
    yield Bad("gzip with bytes after the voxels", gzip.compress(PLAIN + b"x"), FormatError, "last")
    yield Bad("rubbish after gzip", GZ + b"rubbish", FormatError, "gzip header")
    yield Bad("further member", GZ + gzip.compress(b"x"), FormatError, "last voxel")
    yield from _damaged_far_from_the_header()


def _damaged_far_from_the_header() -> Iterator[Bad]:
    more = gzip.compress(nifti(NOISE) + b"x")
    stored = gzip.compress(nifti(NOISE), 0, mtime=0)
    two = NOISY_GZ + gzip.compress(b"x")
    yield Bad("large, bytes after the voxels", more, FormatError, "last voxel")
    yield Bad("large, further member", two, FormatError, "last voxel")
    yield Bad("large, rubbish after gzip", NOISY_GZ + b"rubbish", FormatError, "gzip header")
    yield Bad("large, CRC", flip_bit(NOISY_GZ, -6), ChecksumError, "CRC-32")
    yield Bad("large, length", flip_bit(NOISY_GZ, -2), ChecksumError, "length")
    yield Bad("large, voxel", flip_bit(stored, 9000), ChecksumError, "CRC-32")
    yield Bad("large, checksum cut", NOISY_GZ[:-3], TruncatedError, "gzip")
    yield Bad("large, no checksum", NOISY_GZ[:-8], TruncatedError, "gzip")


def _too_big() -> Iterator[Bad]:
    largest = {"dim": (3, 32767, 32767, 32767, 1, 1, 1, 1)}
    eight = V.astype("f8")
    small = Limits(max_bytes=2**20)
    yield Bad("32767^3 float64", nifti(eight, largest), LimitError, "size of the voxels")
    yield Bad("32767^3 in gzip", gzip.compress(nifti(eight, largest)), LimitError, "size")
    four = {"dim": (3, 1625, 1625, 1625, 1, 1, 1, 1)}
    forged = nifti(NOISE.astype("u1"), four)
    yield Bad("4 GB declared, 24 kB there", forged, TruncatedError, "can hold")
    yield Bad("4 GB declared in gzip", gzip.compress(forged), TruncatedError, "can hold")
    bomb = gzip.compress(nifti(np.zeros((128, 128, 128), "u1")))
    yield Bad("bomb", bomb, LimitError, "max_bytes", small)
    grows = nifti(np.zeros((64, 64, 128), "u2"))
    yield Bad("small until widened", grows, LimitError, "max_bytes", small)
    seven = {"dim": (7, *(32767,) * 7)}
    yield Bad("2^105 voxels", nifti(V, seven), FormatError, "dim[4:]")
    nine = {"dim": (4, *(2**62,) * 4, 1, 1, 1)}
    yield Bad("2^248 voxels", nifti(V, nine, version=2), LimitError, "size of the voxels")
    yield Bad("voxels at 1 GB", nifti(V, {"vox_offset": 1e9}), TruncatedError, "can hold")
    yield Bad(
        "voxels at 1 GB of gzip", gzip.compress(nifti(V, {"vox_offset": 1e9})), TruncatedError, ""
    )
    beyond = gzip.compress(nifti(V, {"vox_offset": 9000}))
    yield Bad("voxels beyond the end of gzip", beyond, TruncatedError, "voxels must be 120 bytes")
    far = gzip.compress(nifti(V, between=bytes(99_996)))
    close = Limits(max_header_bytes=50_000)
    yield Bad("padding bomb", far, LimitError, "vox_offset", close)


def _nonsense() -> Iterator[Bad]:
    def file(**fields: object) -> bytes:
        return nifti(V, fields)

    yield Bad("voxels in the header", file(vox_offset=0), FormatError, "vox_offset")
    yield Bad("voxels in the extension flag", file(vox_offset=348), FormatError, "vox_offset")
    yield Bad("voxels between bytes", file(vox_offset=352.5), FormatError, "vox_offset")
    yield Bad("voxels nowhere", file(vox_offset=NAN), FormatError, "vox_offset")
    yield Bad("voxels at infinity", file(vox_offset=INF), FormatError, "vox_offset")
    yield Bad("voxels before the file", file(vox_offset=-352), FormatError, "vox_offset")
    for count in (0, 8, -1):
        yield Bad(
            f"{count} dimensions", file(dim=(count, 5, 4, 3, 1, 1, 1, 1)), FormatError, "dim[0]"
        )
    yield Bad("no rows", file(dim=(3, 5, 0, 3, 1, 1, 1, 1)), FormatError, "dim[2]")
    yield Bad("-3 slices", file(dim=(3, 5, 4, -3, 1, 1, 1, 1)), FormatError, "dim[3]")
    twice = nifti(ramp(2, 2, 3, 4, 5))
    yield Bad("time and vector", twice, FormatError, "dim[4:]")
    for code, name in ((0, "unknown"), (1, "1 bit"), (1536, "float128"), (2048, "complex256")):
        yield Bad(f"datatype {name}", file(datatype=code), FormatError, name)
    yield Bad("datatype 9999", file(datatype=9999), FormatError, "not in the standard")
    yield Bad("bitpix 8 for int16", file(bitpix=8), FormatError, "bitpix")
    yield Bad("pair of files", file(magic=b"ni1\0"), FormatError, ".hdr/.img")
    yield Bad("analyze", file(magic=bytes(4)), FormatError, "ANALYZE")
    yield Bad("magic n+3", file(magic=b"n+3\0"), FormatError, "magic")
    yield Bad("magic without its zero", file(magic=b"n+1x"), FormatError, "magic")
    yield Bad("header size 347", file(sizeof_hdr=347), FormatError, "sizeof_hdr")
    text_mode = nifti(V, {"magic": b"n+2\0\n\x1a\n"}, version=2)
    yield Bad("nifti-2 sent as text", text_mode, FormatError, "magic")
    yield Bad("slope without intercept", file(scl_slope=2, scl_inter=NAN), FormatError, "scl_inter")
    yield Bad("infinite intercept", file(scl_slope=1, scl_inter=INF), FormatError, "scl_inter")
    number = nifti(V.astype("c8"), {"scl_slope": 2, "scl_inter": 1})
    yield Bad("complex intercept", number, FormatError, "scl_inter")
    beyond = np.full((1, 1, 2), 2**63, "u8")
    yield Bad("uint64 beyond int64", nifti(beyond), FormatError, "2^63")


def _impossible_places() -> Iterator[Bad]:
    def file(**fields: object) -> bytes:
        return nifti(V, fields)

    not_there = (NAN, *SROW[1:])
    yield Bad("sform nan", file(srow=not_there), GeometryError, "finite")
    yield Bad("sform inf", file(srow=(*SROW[:11], INF)), GeometryError, "finite")
    yield Bad("sform zero", file(srow=(0,) * 12), GeometryError, "invertible")
    vast = tuple(np.diag([1e200, 1e200, 1e200, 1])[:3].ravel())
    yield Bad("sform beyond squares", nifti(V, {"srow": vast}, version=2), GeometryError, "invert")
    metres = {"srow": (*SROW[:11], 1e306), "xyzt_units": 1}
    yield Bad("sform of metres", nifti(V, metres, version=2), GeometryError, "affine in mm")
    flat = (1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0)
    yield Bad("sform of parallel axes", file(srow=flat), GeometryError, "invertible")
    yield Bad("quaternion of 2", file(**QFORM, quatern=(2, 0, 0)), GeometryError, "quatern")
    yield Bad("quaternion nan", file(**QFORM, quatern=(NAN, 0, 0)), GeometryError, "quatern")
    for value in (0, -2, NAN, INF):
        pixdim = (1, value, 3, 4, 1, 1, 1, 1)
        yield Bad(
            f"qform with {value} mm", file(**QFORM, pixdim=pixdim), GeometryError, "pixdim[1]"
        )
    yield Bad("sform code 6", file(sform_code=6), GeometryError, "sform_code must be in 0..5")
    yield Bad("qform code -1", file(qform_code=-1), GeometryError, "qform_code must be in 0..5")
    half = {**QFORM, "pixdim": (-0.5, 2, 3, 4, 1, 1, 1, 1)}
    yield Bad("qfac -0.5", file(**half), GeometryError, "pixdim[0] must be -1, 0 or 1")
    nowhere = {**QFORM, "qoffset": (NAN, 0, 0)}
    yield Bad("qform nowhere", file(**nowhere), GeometryError, "finite")
    size = (1, 2, 3, 0, 1, 1, 1, 1)
    yield Bad("no size at all", file(sform_code=0, pixdim=size), GeometryError, "pixdim[3]")
