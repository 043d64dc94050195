"""The parts of h5py that medkit uses, with the types that h5py does not give them."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Declared(Protocol):
    """What an attribute says before it is read."""

    shape: tuple[int, ...]


@runtime_checkable
class Attributes(Protocol):
    """The attributes of a group."""

    def __contains__(self, name: object, /) -> bool: ...
    def __getitem__(self, name: str, /) -> object: ...
    def __setitem__(self, name: str, value: object, /) -> None: ...
    def get_id(self, name: str, /) -> Declared: ...


@runtime_checkable
class Group(Protocol):
    """A group, or the root of a file."""

    id: object
    attrs: Attributes

    def __iter__(self) -> Iterator[str]: ...
    def __getitem__(self, name: str, /) -> object: ...
    def get(self, name: str, /, *, getlink: bool) -> object: ...
    def require_group(self, name: str, /) -> "Group": ...
    def create_dataset(
        self,
        name: str,
        /,
        *,
        data: object,
        chunks: tuple[int, ...] | None,
        fletcher32: bool | None,
    ) -> "Dataset": ...


@runtime_checkable
class Filters(Protocol):
    """How an array is compressed."""

    def get_nfilters(self) -> int: ...
    def get_filter(self, index: int, /) -> tuple[int, ...]: ...


@runtime_checkable
class Chunk(Protocol):
    """Where a chunk is in the file."""

    chunk_offset: tuple[int, ...]
    """Index of its first element in the array."""
    filter_mask: int
    byte_offset: int | None
    size: int


@runtime_checkable
class Storage(Protocol):
    """Where an array is in the file."""

    def chunk_iter(self, visit: Callable[[Chunk], object], /) -> object: ...
    def get_type(self) -> object: ...

    def get_storage_size(self) -> int: ...
    def get_offset(self) -> int | None: ...
    def get_num_chunks(self) -> int: ...
    def get_create_plist(self) -> Filters: ...


@runtime_checkable
class Dataset(Protocol):
    """An array."""

    id: Storage
    attrs: Attributes
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    external: list[tuple[str, int, int]] | None
    is_virtual: bool

    def __getitem__(self, key: object, /) -> object: ...
