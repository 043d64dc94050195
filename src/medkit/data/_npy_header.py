"""The header of a .npy file, parsed by its grammar: nothing in it is evaluated.

NumPy enhancement proposal 1, https://numpy.org/neps/nep-0001-npy-format.html.
"""

import math
import re
from typing import NamedTuple

import numpy as np

from medkit._core.file_errors import FormatError, TruncatedError

NPY_MAGIC = b"\x93NUMPY"

_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
_LONGEST = 10_000  # characters; NumPy's own limit
_ITEM = re.compile(
    r"'(descr|fortran_order|shape)'[ \t]*:[ \t]*('[^']*'|True|False|\([0-9, \tL]*\))"
    r"[ \t]*(?:,|(?=\}))[ \t]*"
)
_TYPE = re.compile(r"[<>|=]?(\?|[biufcO][0-9]{0,3})|(bool|u?int|float|complex)[0-9]{0,3}")
_SIZE = re.compile("0|[1-9][0-9]*")
_MOST_AXES = 32


class NpyHeader(NamedTuple):
    """What a .npy file says about its array."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the array, exact however large the header says it is."""
        return math.prod(self.shape) * self.dtype.itemsize


def npy_header_length(head: bytes, path: str) -> tuple[int, int]:
    """Return where the text of the header begins and ends, from the first 12 bytes of a file."""
    if head[: len(NPY_MAGIC)] != NPY_MAGIC:
        raise _wrong(path, "magic", "\\x93NUMPY", head[: len(NPY_MAGIC)])
    if len(head) < 12:
        raise TruncatedError("at least 12 bytes", path=path, field="npy header", value=len(head))
    major, minor = head[6], head[7]
    if major not in _LENGTH_BYTES or minor:
        raise _wrong(path, "version", "1.0, 2.0 or 3.0", f"{major}.{minor}")
    start = 8 + _LENGTH_BYTES[major]
    length = int.from_bytes(head[8:start], "little")
    if length > _LONGEST:
        raise _wrong(path, "length of the header", f"at most {_LONGEST}", length)
    return start, start + length


def parse_npy_header(text: bytes, path: str) -> NpyHeader:
    """Return what the text of a header declares; arrays of Python objects are refused."""
    items = _items(text, path)
    if set(items) != {"descr", "fortran_order", "shape"}:
        raise _wrong(path, "npy header", "a dict of descr, fortran_order and shape", text[:80])
    return NpyHeader(
        dtype=_dtype(items["descr"], path),
        shape=_shape(items["shape"], path),
        fortran_order=_flag(items["fortran_order"], path),
    )


def _items(text: bytes, path: str) -> dict[str, str]:
    """Return the items of the dict as they are written, each key once."""
    body = text.decode("latin-1").strip(" \t\n")
    items: dict[str, str] = {}
    if body[:1] == "{" and body[-1:] == "}":
        at = len(body) - len(body[1:].lstrip(" \t"))
        while at < len(body) - 1:
            found = _ITEM.match(body, at)
            if found is None or found[1] in items:
                break
            items[found[1]] = found[2]
            at = found.end()
        else:
            return items
    raise _wrong(path, "npy header", "a dict of descr, fortran_order and shape", text[:80])


def _dtype(text: str, path: str) -> np.dtype[np.generic]:
    name = text.strip("'")
    try:
        dtype = np.dtype(name) if _TYPE.fullmatch(name) else None
    except TypeError:
        dtype = None
    if text[0] != "'" or dtype is None or dtype.kind not in "biufc" or dtype.itemsize > 16:
        remedy = "Objects would have to be unpickled, which can run any code; save plain numbers."
        raise _wrong(path, "descr", "a type of numbers", name, remedy if "O" in name else "")
    if dtype.str[1:] in ("f16", "c32"):
        raise _wrong(path, "descr", "a type of at most 8 bytes per number", name)
    return dtype


def _shape(text: str, path: str) -> tuple[int, ...]:
    parts = [part.strip().removesuffix("L") for part in text.strip("()").split(",")]
    if parts[-1] == "":
        parts.pop()
    if text[0] != "(" or not all(map(_SIZE.fullmatch, parts)) or len(parts) > _MOST_AXES:
        raise _wrong(path, "shape", f"a tuple of up to {_MOST_AXES} sizes", text[:80])
    if any(len(part) > 20 for part in parts):
        raise _wrong(path, "shape", "sizes below 2^63", text[:80])
    return tuple(int(part) for part in parts)


def _flag(text: str, path: str) -> bool:
    if text not in ("True", "False"):
        raise _wrong(path, "fortran_order", "True or False", text[:80])
    return text == "True"


def _wrong(path: str, field: str, rule: str, found: object, remedy: str = "") -> FormatError:
    return FormatError(rule, path=path, field=field, value=found, remedy=remedy)
