"""From the stored bytes of a NIfTI file to a tensor: byte order, slope, intercept, dtype."""

import math

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from medkit._core.file_errors import FormatError

from ._nifti_header import NiftiHeader
from ._notice import Notice
from ._stored import check_int64, tensor_dtype

_BLOCK = 1 << 18  # voxels per step: the float64 copy stays in the processor's cache
_SLOPE_IGNORED = Notice("slope_not_finite", "scl_slope is infinite: the voxels are not scaled")
_RGB_SCALED = Notice("rgb_not_scaled", "scl_slope does not apply to RGB: the voxels are as stored")


def scaling(header: NiftiHeader, path: str) -> tuple[float, float, tuple[Notice, ...]]:
    """Slope and intercept to apply, (1, 0) for none, and what to know about them.

    A slope of 0 means that the voxels are not scaled (nifti1.h), whatever the intercept says; so
    does NaN, which nibabel writes for it. RGB voxels are never scaled.
    """
    slope, inter = header.slope, header.inter
    if math.isnan(slope) or slope == 0:
        return 1.0, 0.0, ()
    if math.isinf(slope):
        return 1.0, 0.0, (_SLOPE_IGNORED,)
    if not math.isfinite(inter):
        raise FormatError(
            f"finite, as scl_slope is {slope:g}", path=path, field="scl_inter", value=inter
        )
    if header.dtype.shape:
        return 1.0, 0.0, () if (slope, inter) == (1, 0) else (_RGB_SCALED,)
    if header.dtype.kind == "c" and inter:
        raise FormatError("0 for complex voxels", path=path, field="scl_inter", value=inter)
    return slope, inter, ()


def result_dtype(stored: np.dtype[np.generic], slope: float, inter: float) -> np.dtype[np.generic]:
    """Dtype of the tensor, decided by the header alone and never by the voxels.

    Unscaled voxels keep their type; uint16 becomes int32, uint32 and uint64 become int64. Integers
    scaled by whole numbers stay integers (int32, or int64 where the range needs it). Other scaled
    voxels are float32 when they are stored in 8 or 16 bits and their range allows, else float64.
    """
    kind = stored.str[1:]
    if stored.shape:
        return np.dtype("u1")
    if (slope, inter) == (1, 0):
        return tensor_dtype(stored)
    if stored.kind == "c":
        return np.dtype("c16")
    if stored.kind == "f":
        return np.dtype("f8")
    info = np.iinfo(kind)
    if slope.is_integer() and inter.is_integer():
        ends = [int(value) * int(slope) + int(inter) for value in (info.min, info.max)]
        for whole in ("i4", "i8"):
            if np.iinfo(whole).min <= min(ends) and max(ends) <= np.iinfo(whole).max:
                return np.dtype(whole)
    largest = abs(slope) * max(abs(int(info.min)), int(info.max)) + abs(inter)
    single = np.finfo("f4")
    fits = largest < float(single.max) and abs(slope) > float(single.tiny)
    small = stored.itemsize <= 2 and fits
    return np.dtype("f4" if small else "f8")


def decode(
    raw: np.ndarray, header: NiftiHeader, slope: float, inter: float, path: str
) -> Shaped[Tensor, "channel depth height width"]:
    """Turn the stored bytes, which it may overwrite, into a tensor (C, D, H, W)."""
    shape = tensor_shape(header, path)
    stored = header.dtype
    if stored.shape:
        colours = stored.shape[0]
        pixels = torch.as_tensor(raw).reshape(*shape[1:], colours)
        return pixels.permute(3, 0, 1, 2).contiguous()
    return decode_values(raw.view(stored), slope, inter, path).reshape(shape)


def decode_values(values: np.ndarray, slope: float, inter: float, path: str) -> Tensor:
    """Turn stored numbers, which it may overwrite, into a tensor of their shape."""
    stored, shape = values.dtype, values.shape
    if not stored.isnative:
        values = values.byteswap(inplace=True).view(stored.newbyteorder("="))
    wanted = result_dtype(stored, slope, inter)
    if wanted.kind == "i":
        check_int64(values, path)
    if (slope, inter) != (1, 0):
        values = _scaled(values.reshape(-1), slope, inter, wanted)
    return torch.as_tensor(values.astype(wanted, copy=False)).reshape(shape)


def tensor_shape(header: NiftiHeader, path: str) -> tuple[int, int, int, int]:
    """(C, D, H, W) of the tensor; one axis beyond the third may be longer than 1.

    The voxels of RGB and RGBA files carry the channels themselves.
    """
    w, h, d = (*header.shape, 1, 1)[:3]
    more = [size for size in header.shape[3:] if size > 1]
    if header.dtype.shape:
        more.append(header.dtype.shape[0])
    if len(more) > 1:
        raise FormatError(
            "one axis of channels or time",
            path=path,
            field="dim[4:]",
            value=header.shape[3:],
            remedy="Split the file along one of these axes.",
        )
    return (more[0] if more else 1), d, h, w


def _scaled(
    values: np.ndarray, slope: float, inter: float, wanted: np.dtype[np.generic]
) -> np.ndarray:
    """Compute slope * value + inter in 64 bits, rounded once to the wanted dtype."""
    out = np.empty(values.shape, wanted)
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are voxels too
        for start in range(0, len(values), _BLOCK):
            block = values[start : start + _BLOCK]
            if wanted.kind == "i":
                out[start : start + _BLOCK] = block.astype("i8") * int(slope) + int(inter)
            else:
                wide = block.astype("c16" if wanted.kind == "c" else "f8")
                out[start : start + _BLOCK] = wide * slope + inter
    return out
