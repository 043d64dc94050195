"""The voxels of a file behind its header: sizes held against limits first, then read in one go."""

import numpy as np
import numpy.typing as npt

from medkit._core.file_errors import LimitError, TruncatedError

from ._limits import Limits
from ._source import ByteSource


def check_payload(
    nbytes: int, capacity: int, path: str, limits: Limits, declared: object = ""
) -> None:
    """Raise if the voxels are more than the limits allow or than the file can hold."""
    if nbytes > limits.max_bytes:
        raise LimitError(
            f"at most {limits.max_bytes} bytes",
            path=path,
            field="size of the voxels",
            value=f"{nbytes} ({declared})" if declared else nbytes,
            remedy="Pass limits=Limits(max_bytes=...) if you trust the file.",
        )
    if nbytes > capacity:
        raise TruncatedError(
            f"at most {capacity} bytes, all that the file can hold",
            path=path,
            field="size of the voxels",
            value=nbytes,
            remedy="The file is cut short or its header is wrong.",
        )


def read_payload(source: ByteSource, nbytes: int) -> npt.NDArray[np.uint8]:
    """Return the next bytes of a file as one array of just their size."""
    raw = allocate(nbytes, source.path)
    got = source.fill(raw.data)
    if got < nbytes:
        raise cut(source.path, nbytes, got)
    return raw


def allocate(nbytes: int, path: str) -> npt.NDArray[np.uint8]:
    """Return memory for the voxels, or say that there is none."""
    try:
        return np.empty(nbytes, np.uint8)
    except MemoryError as error:
        raise LimitError(
            "available memory",
            path=path,
            field="size of the voxels",
            value=f"{nbytes} bytes",
            remedy="Read it on a machine with more memory.",
        ) from error


def cut(path: str, wanted: int, got: int) -> TruncatedError:
    """Return the error for voxels that end too early."""
    return TruncatedError(
        f"{wanted} bytes",
        path=path,
        field="voxels",
        value=got,
        remedy="The file is cut short; copy or download it again.",
    )
