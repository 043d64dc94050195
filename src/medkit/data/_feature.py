"""What a feature of a TFRecord file means: one declaration, from stored bytes to a tensor."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medkit._core import check
from medkit._core.file_errors import FormatError

from ._example import Values
from ._stored import to_tensor

_TEXT = "str"
_LAYOUTS = ("stored", "spatial", "channels_last")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """Declares one feature of the examples in a TFRecord file.

    Args:
        name: Name of the feature in the file.
        dtype: Type of the stored values: of the array whose raw bytes are stored, e.g. ``"uint8"``
            or ``">i2"``; ``"float32"`` or ``"int64"`` for a list of numbers; ``"str"`` for a text.
        shape: Sizes of the stored array, or the name of the feature that holds them; None leaves
            one axis, as long as it is.
        layout: ``"spatial"`` for an array without channels, such as (D, H, W), which gets one in
            front; ``"channels_last"`` moves the last axis to the front; ``"stored"`` changes
            nothing.
        to: dtype of the tensor, e.g. ``torch.float32`` for an image; None keeps the stored one,
            but uint16 becomes int32 and uint32 and uint64 become int64.

    Raises:
        ValueError: If a dtype or layout is unknown.

    Example:
        >>> image = Feature(name="image", dtype="uint8", shape="image_shape", layout="spatial")
        >>> example = parse_example(build_example({"image": bytes(24), "image_shape": [2, 3, 4]}))
        >>> image.decode(example).shape
        torch.Size([1, 2, 3, 4])
    """

    name: str
    dtype: str
    shape: str | Sequence[int] | None = None
    layout: Literal["stored", "spatial", "channels_last"] = "stored"
    to: torch.dtype | None = None

    def __post_init__(self) -> None:
        check.one_of("layout", self.layout, _LAYOUTS)
        if self.dtype != _TEXT and _dtype(self.dtype) is None:
            raise check.fail("dtype", "a numeric NumPy type or 'str'", repr(self.dtype))
        if self.shape is not None and not isinstance(self.shape, str):
            sizes = tuple(check.integer("shape", size, minimum=0) for size in self.shape)
            object.__setattr__(self, "shape", sizes)

    def decode(self, example: Mapping[str, Values]) -> Tensor | str:
        """Return the tensor or text that an example holds, after everything is checked.

        Args:
            example: As :func:`parse_example` gave it.

        Returns:
            The values; a tensor shares the memory of the record where type and layout allow.

        Raises:
            FormatError: If the feature is missing, of another kind, or does not fill its shape.

        Example:
            >>> example = parse_example(build_example({"spacing": [0.5, 1.0, 1.0]}))
            >>> Feature(name="spacing", dtype="float32", shape=(3,)).decode(example)
            tensor([0.5000, 1.0000, 1.0000])
        """
        values = self.stored(example)
        return values if isinstance(values, str) or self.to is None else values.to(self.to)

    def stored(self, example: Mapping[str, Values]) -> Tensor | str:
        """Return what :meth:`decode` does, before the conversion to the dtype ``to``.

        Args:
            example: As :func:`parse_example` gave it.

        Returns:
            The values, channels first.

        Raises:
            FormatError: As :meth:`decode`.

        Example:
            >>> label = Feature(name="label", dtype="uint8", to=torch.int64)
            >>> label.stored(parse_example(build_example({"label": b"abc"}))).dtype
            torch.uint8
        """
        values = self._values(_present(example, self.name))
        if isinstance(values, str):
            return values
        shape = self._shape(example, values)
        if math.prod(shape) != values.size:
            rule = f"{math.prod(shape)} values, as its shape is {shape}"
            raise self._wrong(rule, f"{values.size} of {self.dtype}")
        tensor = to_tensor(values.reshape(shape))
        if self.layout == "stored":
            return tensor
        if not shape:
            raise self._wrong("an array with axes", "one number")
        return tensor[None] if self.layout == "spatial" else tensor.movedim(-1, 0).contiguous()

    def _values(self, values: Values) -> np.ndarray | str:
        """Return the stored values as one axis, or the text."""
        if isinstance(values, np.ndarray):
            if values.dtype != self.dtype:
                raise self._wrong(f"of dtype {self.dtype}", f"a list of {values.dtype}")
            return values
        if values is None or len(values) != 1:
            raise self._wrong("one value", f"{len(values or ())} byte strings")
        raw = values[0]
        if self.dtype == _TEXT:
            try:
                return bytes(raw).decode()
            except UnicodeDecodeError as error:
                raise self._wrong("UTF-8", bytes(raw[:20])) from error
        dtype = np.dtype(self.dtype)
        if len(raw) % dtype.itemsize:
            raise self._wrong(f"a multiple of {dtype.itemsize} bytes", len(raw))
        if dtype.kind == "b" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
            raise self._wrong("bytes of 0 and 1", "others")
        return np.frombuffer(raw, dtype)

    def _shape(self, example: Mapping[str, Values], values: np.ndarray) -> tuple[int, ...]:
        if self.shape is None:
            return (values.size,)
        if not isinstance(self.shape, str):
            return tuple(self.shape)
        sizes = _present(example, self.shape)
        if not isinstance(sizes, np.ndarray) or sizes.dtype.kind != "i" or (sizes < 0).any():
            found = sizes.tolist() if isinstance(sizes, np.ndarray) else "byte strings or nothing"
            raise FormatError("sizes", field=f"feature {self.shape!r}", value=found)
        return tuple(sizes.tolist())

    def _wrong(self, rule: str, found: object) -> FormatError:
        return FormatError(
            rule,
            field=f"feature {self.name!r}",
            value=found,
            remedy="Declare it as it was written.",
        )


def _present(example: Mapping[str, Values], name: str) -> Values:
    if name not in example:
        raise FormatError(f"one of {', '.join(sorted(example))}", field="feature", value=name)
    return example[name]


def _dtype(name: str) -> np.dtype[np.generic] | None:
    try:
        dtype = np.dtype(name)
    except TypeError:
        return None
    return dtype if dtype.kind in "biufc" and dtype.names is None and not dtype.shape else None
