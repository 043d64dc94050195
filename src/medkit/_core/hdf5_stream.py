"""HDF5 files whose arrays grow while they are written, and that appear whole or not at all."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import h5py
import numpy.typing as npt

from . import check
from .atomic import atomic_file
from .hdf5_parts import Attributes

Array = npt.NDArray[Any]
Value = str | float | int | Array
"""What an attribute may hold."""


class _Growing(Protocol):
    attrs: Attributes
    shape: tuple[int, ...]

    def resize(self, size: int, /, *, axis: int) -> None: ...
    def __setitem__(self, key: object, value: Array, /) -> None: ...


class Hdf5Stream:
    """A file that is being written."""

    def __init__(self, root: object) -> None:
        self._root = cast("Any", root)  # h5py is untyped
        self._arrays: dict[str, _Growing] = {}

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each array so far."""
        return {name: tuple(array.shape) for name, array in self._arrays.items()}

    def append(
        self, name: str, values: Array, *, axis: int = 0, chunks: Sequence[int] | None = None
    ) -> None:
        """Add values to the end of an array along an axis; the first ones make it.

        Args:
            name: Path of the array.
            values: Of one type and size, but for the axis, in all calls.
            axis: Along which it grows.
            chunks: Size of the pieces that are compressed, each with a checksum; None makes them
                of one index of the axis.
        """
        if name not in self._arrays:
            empty, longest = list(values.shape), list[int | None](values.shape)
            empty[axis], longest[axis] = 0, None
            pieces = [1 if a == axis else max(n, 1) for a, n in enumerate(values.shape)]
            self._arrays[name] = self._root.create_dataset(
                name,
                shape=tuple(empty),
                maxshape=tuple(longest),
                dtype=values.dtype,
                chunks=tuple(chunks or pieces),
                compression="gzip",
                shuffle=True,
                fletcher32=True,
            )
        array = self._arrays[name]
        old = array.shape[axis]
        before, now = list(array.shape), list(values.shape)
        before[axis : axis + 1] = now[axis : axis + 1]
        if now != before:
            raise check.fail(name, f"of shape {tuple(before)}, as before", f"{tuple(now)}")
        array.resize(old + values.shape[axis], axis=axis)
        array[(*[slice(None)] * axis, slice(old, None))] = values

    def describe(self, path: str, attributes: Mapping[str, Value]) -> None:
        """Set attributes of an array, or of a group, which is made where there is none."""
        thing = self._arrays[path] if path in self._arrays else self._root.require_group(path)
        for name, value in attributes.items():
            thing.attrs[name] = value


@contextmanager
def stream_hdf5(path: str | os.PathLike[str]) -> Generator[Hdf5Stream]:
    """Give a file to write that takes the place of ``path`` when the block ends without error."""
    with atomic_file(path) as stream, h5py.File(stream, "w") as file:
        yield Hdf5Stream(file)
