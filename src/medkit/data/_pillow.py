"""Pillow's decoders of single formats, without the guessing and the global limits around them."""

import warnings
from io import FileIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from medkit._core import optional
from medkit._core.file_errors import FormatError

if TYPE_CHECKING:
    import PIL.Image

_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I")
_ORIENTATION = 274


class Unpacked(NamedTuple):
    """Pixels (H, W) or (H, W, samples), and whether EXIF asks for them to be turned."""

    pixels: np.ndarray
    turned: bool


def unpack_picture(module: str, reader: str, file: FileIO, path: str) -> Unpacked:
    """Return the pixels of a picture whose size was checked before."""
    plugin = optional.require(module, extra="io")
    try:
        with warnings.catch_warnings(action="ignore"), getattr(plugin, reader)(file) as picture:
            mode: str = picture.mode
            unpacked = Unpacked(np.array(picture), _turned(picture))
    except MemoryError:
        raise
    except Exception as error:  # a damaged picture makes Pillow raise almost anything
        raise FormatError(
            "whole",
            path=path,
            field="picture",
            value=f"damage ({type(error).__name__}: {error})",
            remedy="The file was damaged after it was written; copy or download it again.",
        ) from error
    if mode not in _MODES:
        raise FormatError("grey or red, green and blue", path=path, field="colours", value=mode)
    return unpacked


def _turned(picture: "PIL.Image.Image") -> bool:
    try:
        return picture.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # noqa: BLE001  EXIF in any state of damage changes no pixel
        return True
