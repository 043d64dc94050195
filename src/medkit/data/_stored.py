"""Stored arrays of any byte order and type as tensors that torch can compute with."""

import numpy as np
import torch
from torch import Tensor

from medkit._core import check
from medkit._core.file_errors import FormatError

WIDER = {"u2": np.dtype("i4"), "u4": np.dtype("i8"), "u8": np.dtype("i8")}
"""Unsigned types that torch computes with only in part, and the signed type that holds them."""


def tensor_dtype(stored: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """Return the type that holds every value of ``stored`` in a tensor, in the machine's order."""
    return WIDER.get(stored.str[1:], stored.newbyteorder("="))


def to_tensor(values: np.ndarray, path: str = "") -> Tensor:
    """Return the values as a tensor, which shares their memory where type and layout allow."""
    check_int64(values, path)
    wanted = np.require(values, tensor_dtype(values.dtype), ["A", "C", "W"])
    return torch.as_tensor(wanted).reshape(values.shape)


def check_int64(values: np.ndarray, path: str) -> None:
    """Raise if unsigned integers are too large for the signed type that will hold them."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 8 and values.size:
        largest = int(values.max())
        if largest > np.iinfo("i8").max:
            rule = "at most 2^63 - 1, the largest int64"
            raise FormatError(rule, path=path, field="voxel", value=largest)


def exact(array: np.ndarray, dtype: str | None, what: object) -> np.ndarray:
    """Return the array in another type that holds its every value, contiguous and little-endian."""
    wanted = array.dtype if dtype is None else np.dtype(dtype)
    if wanted != array.dtype:
        with np.errstate(invalid="ignore", over="ignore"):
            converted = array.astype(wanted)
        back = converted.astype(array.dtype)
        if not np.array_equal(back, array, equal_nan=array.dtype.kind in "fc"):
            raise check.fail("dtype", f"able to hold every voxel of {what!r}", str(wanted))
        array = converted
    return np.ascontiguousarray(array, dtype=wanted.newbyteorder("<"))
