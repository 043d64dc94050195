"""The one door to HDF5: a file is looked through before anything in it is believed.

HDF5 can name data anywhere: links to other files, raw bytes outside the file, virtual arrays
made of other files' arrays. All of these are refused, on every part of every path, and an array
is read only when the bytes it declares are in the file.
"""

import io
import math
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

import h5py
import numpy as np
import numpy.typing as npt

from .atomic import atomic_file
from .chunk_map import ChunkMap, chunk_bytes
from .file_errors import (
    ChecksumError,
    CodecMissingError,
    DataError,
    FormatError,
    LimitError,
    TruncatedError,
    UnsafeReferenceError,
)
from .hdf5_chunks import chunk_map
from .hdf5_parts import Dataset, Group

Array = npt.NDArray[Any]

MAX_OBJECTS = 100_000
MAX_TEXTS = 100_000
_MAX_CHUNK = 1 << 26  # bytes of one chunk that may exceed its array
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
_WRECKED = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)
"""What h5py raises on a damaged file."""
_FILTER_FAILED = "filter returned failure"


class Stored(NamedTuple):
    """What a file declares about an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array in memory, exact however large the file says it is."""
        return math.prod(self.shape) * self.dtype.itemsize


class Laid(NamedTuple):
    """An array to write with attributes of its own, in chunks and with a checksum of each."""

    array: Array
    attributes: Mapping[str, Array]
    chunks: tuple[int, ...] | None = None
    fletcher32: bool = False


class Written(NamedTuple):
    """A group to write: its path, its attributes, and its arrays by name."""

    group: str
    attributes: Mapping[str, str | Sequence[str]]
    arrays: Mapping[str, Array | Laid]


class Hdf5File:
    """An open file without ways out of it.

    Attributes:
        path: Its name, for messages.
        arrays: What it declares about every array, by path without a leading slash.
        groups: The path of every group but the root.
    """

    def __init__(self, root: Group, path: str, size: int) -> None:
        self.path = path
        self._root = root
        self._size = size
        self.arrays: dict[str, Stored] = {}
        self.groups: tuple[str, ...] = ()
        with self._named_damage():
            self._look_through()

    def read(self, name: str, *, max_bytes: int, region: tuple[slice, ...] | None = None) -> Array:
        """Return an array of numbers, after checking that the file holds all of it.

        Args:
            name: One of ``arrays``.
            max_bytes: Largest size to allocate.
            region: A box to read, one slice with start and stop inside the array for each axis;
                None reads the whole array.
        """
        stored = self.arrays[name]
        check_size(self.path, name, stored, max_bytes, region)
        with self._named_damage(name):
            dataset = cast("Dataset", self._root[name])
            self._check_storage(name, dataset, stored)
            return np.asarray(dataset[() if region is None else region])

    def chunk_map(self, name: str) -> ChunkMap | None:
        """Return where the bytes of an array are, or None if only HDF5 can make sense of them.

        That is so for arrays with a checksum or compression, for types of number that NumPy does
        not have as they are stored, and for files that begin with something else.

        Args:
            name: One of ``arrays``.
        """
        stored = self.arrays[name]
        with self._named_damage(name):
            dataset = cast("Dataset", self._root[name])
            self._check_storage(name, dataset, stored)
            if getattr(self._root, "userblock_size", 0):
                return None
            found = chunk_map(dataset, stored.dtype)
            if found is None:
                return None
            end = int(found.offsets.max()) + chunk_bytes(found.chunks, found.dtype)
        if end > self._size:
            value = f"its end at {end}, in a file of {self._size}"
            raise self._wrong(TruncatedError, name, "inside the file", value)
        return found

    def numbers(self, name: str, attribute: str, *, max_items: int) -> Array | None:
        """Return the numbers in an attribute of an array, or None where there is none.

        Args:
            name: One of ``arrays``.
            attribute: Its name.
            max_items: Largest count to read.
        """
        field = f"{name}@{attribute}"
        with self._named_damage(field):
            attributes = cast("Group", self._root[name]).attrs
            if attribute not in attributes:
                return None
            declared = attributes.get_id(attribute)
            if math.prod(declared.shape) > max_items:
                rule = f"at most {max_items} numbers"
                raise self._wrong(LimitError, field, rule, f"shape {declared.shape}")
            values = np.asarray(attributes[attribute])
        if values.dtype.kind not in "iuf":
            raise self._wrong(FormatError, field, "numbers", values.dtype)
        return values

    def texts(self, group: str, attribute: str) -> tuple[str, ...] | None:
        """Return the text or texts of an attribute, or None where there is none.

        Args:
            group: One of ``groups``, or the empty string for the root.
            attribute: Its name.
        """
        field = f"{group}@{attribute}"
        with self._named_damage(field):
            attributes = (cast("Group", self._root[group]) if group else self._root).attrs
            if attribute not in attributes:
                return None
            declared = attributes.get_id(attribute)
            if math.prod(declared.shape) > MAX_TEXTS:
                rule = f"at most {MAX_TEXTS} texts"
                raise self._wrong(LimitError, field, rule, f"shape {declared.shape}")
            values = np.asarray(attributes[attribute])
        if values.size == 0:
            return ()
        if values.dtype.kind not in "SUO":
            raise self._wrong(FormatError, field, "text", values.dtype)
        return tuple(_text(value) for value in values.ravel().tolist())

    def _look_through(self) -> None:
        """Visit every object once, through hard links only."""
        seen = {_address(self._root)}
        groups: list[str] = []
        waiting = [("", self._root)]
        while waiting:
            prefix, group = waiting.pop()
            for name in group:
                path = f"{prefix}{name}"
                child = self._follow(group, name, path)
                address = _address(child)
                if address in seen:
                    raise self._wrong(FormatError, path, "an object with one name", "a second name")
                seen.add(address)
                if len(seen) > MAX_OBJECTS:
                    raise self._wrong(LimitError, path, f"one of {MAX_OBJECTS} objects", "one more")
                if isinstance(child, h5py.Group):
                    groups.append(path)
                    waiting.append((f"{path}/", cast("Group", child)))
                else:
                    self.arrays[path] = self._declared(path, cast("Dataset", child))
        self.groups = tuple(groups)

    def _follow(self, group: Group, name: str, path: str) -> object:
        link: object = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise self._wrong(UnsafeReferenceError, path, "a part of this file", _describe(link))
        child: object = group[name]
        if not isinstance(child, h5py.Group | h5py.Dataset):
            raise self._wrong(FormatError, path, "a group or an array", type(child).__name__)
        return child

    def _declared(self, path: str, dataset: Dataset) -> Stored:
        if dataset.external:
            value = f"bytes in {dataset.external[0][0]!r}"
            raise self._wrong(UnsafeReferenceError, path, "stored in this file", value)
        if dataset.is_virtual:
            raise self._wrong(UnsafeReferenceError, path, "stored in this file", "a virtual array")
        if dataset.shape is None:
            raise self._wrong(FormatError, path, "an array", "an empty dataspace")
        return Stored(tuple(dataset.shape), dataset.dtype)

    def _check_storage(self, name: str, dataset: Dataset, stored: Stored) -> None:
        """Raise unless every byte of an array is in the file."""
        if dataset.chunks is not None:
            self._check_chunks(name, dataset, stored)
            return
        size, offset = dataset.id.get_storage_size(), dataset.id.get_offset()
        if size != stored.nbytes:
            value = f"{size} of {stored.nbytes} bytes"
            raise self._wrong(TruncatedError, name, "stored in full", value)
        if offset is not None and offset + size > self._size:
            value = f"{size} bytes at {offset}, in a file of {self._size}"
            raise self._wrong(TruncatedError, name, "inside the file", value)

    def _check_chunks(self, name: str, dataset: Dataset, stored: Stored) -> None:
        filters = dataset.id.get_create_plist()
        for index in range(filters.get_nfilters()):
            number = filters.get_filter(index)[0]
            if number not in _FILTERS:
                rule = f"compressed with {', '.join(_FILTERS.values())} or not at all"
                raise self._wrong(CodecMissingError, name, rule, f"filter {number}")
        chunks = dataset.chunks or ()
        if math.prod(chunks) * stored.dtype.itemsize > max(stored.nbytes, _MAX_CHUNK):
            rule = f"in chunks of its own size or {_MAX_CHUNK} bytes"
            raise self._wrong(LimitError, name, rule, f"chunks {chunks}")
        sizes = zip(stored.shape, chunks, strict=True)
        whole = math.prod(-(-size // chunk) for size, chunk in sizes)
        if dataset.id.get_num_chunks() != whole:
            value = f"{dataset.id.get_num_chunks()} of {whole} chunks"
            raise self._wrong(TruncatedError, name, "stored in full", value)

    def _wrong(self, kind: type[DataError], field: str, rule: str, value: object) -> DataError:
        return kind(rule, path=self.path, field=field, value=value)

    @contextmanager
    def _named_damage(self, field: str = "file") -> Generator[None]:
        """Say which part of the file h5py stumbled over; our own errors pass."""
        try:
            yield
        except DataError:
            raise
        except _WRECKED as error:
            if _FILTER_FAILED in str(error):
                rule, value = "what its checksum or compression expects", "other bytes"
                raise self._wrong(ChecksumError, field, rule, value) from error
            raise self._wrong(
                FormatError, field, "readable as HDF5", f"damage ({error})"
            ) from error


@contextmanager
def open_hdf5(source: str | os.PathLike[str] | io.IOBase, *, path: str = "") -> Generator[Hdf5File]:
    """Open a file that may come from anyone, read-only and without a lock.

    Args:
        source: The path, or an open binary file.
        path: What messages call it, where ``source`` is an open file.

    Raises:
        DataError: If it is no HDF5 file, is cut short or damaged, or points outside itself.
        OSError: If it cannot be opened.
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else path
    size = _size(source)
    try:
        file = h5py.File(source, "r", locking=False)
    except OSError as error:
        if "truncated file" in str(error):
            rule, value = "as long as its header says", f"{size} bytes"
            raise TruncatedError(rule, path=name, field="file", value=value) from error
        raise FormatError(
            "an HDF5 file", path=name, field="file", value=f"something else ({error})"
        ) from error
    with file:
        yield Hdf5File(cast("Group", file), name, size)


def write_hdf5(
    path: str | os.PathLike[str], groups: Iterable[Written], *, checked: bool = False
) -> None:
    """Write groups with their arrays to a file that appears whole or not at all.

    Arrays are uncompressed, and contiguous unless they are laid out otherwise. They can be made
    while they are asked for, one group at a time.

    Args:
        path: Where to; an existing file is replaced at the end.
        groups: In any order; parents need not be listed.
        checked: Use the layout of HDF5 1.10, which puts a checksum on all that is not voxels;
            older programs cannot read it.
    """
    libver = ("v110", "v110") if checked else None
    with atomic_file(path) as stream, h5py.File(stream, "w", libver=libver) as file:
        root = cast("Group", file)
        for written in groups:
            group = root.require_group(written.group) if written.group else root
            for name, value in written.attributes.items():
                group.attrs[name] = (
                    value if isinstance(value, str) else np.array([v.encode() for v in value], "S")
                )
            for name, value in written.arrays.items():
                laid = value if isinstance(value, Laid) else Laid(value, {})
                dataset = group.create_dataset(
                    name,
                    data=laid.array,
                    chunks=laid.chunks,
                    fletcher32=laid.fletcher32 or None,
                )
                for attribute, numbers in laid.attributes.items():
                    dataset.attrs[attribute] = numbers


def check_size(
    path: str,
    name: str,
    stored: Stored,
    max_bytes: int,
    region: tuple[slice, ...] | None = None,
) -> None:
    """Raise unless an array is one of numbers and the region of it is not too large."""
    if stored.dtype.kind not in "biufc":
        raise FormatError("an array of numbers", path=path, field=name, value=stored.dtype)
    shape = stored.shape if region is None else tuple(s.stop - s.start for s in region)
    if Stored(shape, stored.dtype).nbytes > max_bytes:
        rule, value = f"at most {max_bytes} bytes", f"shape {shape}, {stored.dtype}"
        raise LimitError(rule, path=path, field=name, value=value)


def _size(source: str | os.PathLike[str] | io.IOBase) -> int:
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as stream:
            return os.fstat(stream.fileno()).st_size
    return source.seek(0, os.SEEK_END)


def _address(thing: object) -> int:
    """Return where in the file an object begins."""
    low_level = cast("ModuleType", h5py.h5o)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  untyped
    address: object = low_level.get_info(cast("Group", thing).id).addr
    return cast("int", address)


def _describe(link: object) -> str:
    if isinstance(link, h5py.ExternalLink):
        return f"a link to {link.path!r} in {link.filename!r}"
    if isinstance(link, h5py.SoftLink):
        return f"a link to {link.path!r}"
    return type(link).__name__


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
