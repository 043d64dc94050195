"""A dataset in a file from which patches are read without the rest of their volume."""

import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import DataLoader, Dataset

from medkit._core import check
from medkit._core.file_errors import DataError, FormatError
from medkit._core.hdf5 import MAX_OBJECTS, Array, Laid, Written, open_hdf5, write_hdf5
from medkit._core.lock import exclusive

from ._cache_item import PackedItem, pack_case, pack_item
from ._cached_dataset import FORMAT, CachedDataset, item_group
from ._dataset import VolumeDataset
from ._fingerprint import Fingerprinted, Indexed
from ._hdf5 import HDF5_MAGIC

_CHUNK = (32, 32, 256)
_SMALL = 1 << 14  # bytes of an array that is stored in one piece


Items = Indexed[Mapping[str, object]]
"""A dataset of dicts."""


def cache(
    dataset: Items,
    path: str | os.PathLike[str],
    *,
    version: str = "",
    chunk: int | Sequence[int] = _CHUNK,
    checksum: bool = False,
    stale: Literal["error", "rebuild"] = "error",
    num_workers: int = 0,
) -> CachedDataset:
    """Write a dataset to one HDF5 file, unless it is there already, and return it from there.

    Reading, inflating and resampling are done once. Voxels are stored uncompressed in chunks, so
    that a patch costs little more than out of a memory map, and :class:`PatchDataset` reads
    nothing but patches. All processes share the pages that the system keeps in memory.

    Any number of workers and ranks may call this at the same time: one of them fills the file,
    the others wait for it, by a lock on a hidden file beside it. The file appears whole or not at
    all. Where ranks do not share a folder, each node fills its own; a file system without locks
    needs the file filled before, by one process.

    **What is kept.** Plain tensors and NumPy arrays of numbers, of any shape and dtype, strings,
    numbers, bools and None come back equal and of their type, but on the CPU and without
    gradient; anything else is an error that names item and key. Items may differ in shapes and
    keys. Cases of a :class:`VolumeDataset` are stored in their own dtype, e.g. int16, and
    converted when they are read.

    **When it is stale.** The file remembers what it was made from: the ``fingerprint()`` of the
    dataset, its length, ``version``, and the options here. A dataset without ``fingerprint()``
    needs a ``version``, which you change when its items change, since nothing else can tell.
    Random items are kept as they came: put random transforms behind the cache, not before.

    Args:
        dataset: Items by number: dicts with e.g. ``image``, ``label``, ``affine`` and ``id``.
        path: The file, e.g. ``"train.h5"``.
        version: A text of your own that is part of what the cache depends on.
        chunk: Most voxels of a chunk along d, h and w, or one number for all; chunks of one array
            are made equal. The default is as many as in a cube of 64 and has longer rows, which
            are faster to copy.
        checksum: Store a fletcher32 of each chunk, which is checked whenever it is read; patches
            then take several times as long.
        stale: What to do with a cache of other content, or a damaged one: ``"error"`` says what
            differs, ``"rebuild"`` writes it anew. A file that is no cache is never replaced.
        num_workers: Processes that make the items to be written; 0 makes them in this one.

    Returns:
        The dataset, read from the file.

    Raises:
        ValueError: If ``version`` is missing, or an option is unknown.
        TypeError: If an item holds something that cannot be kept.
        DataError: If the file is no cache, or a stale or damaged one.
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import Volume, VolumeDataset
        >>> dataset = VolumeDataset([{"image": Volume(torch.rand(1, 40, 40, 40), np.eye(4))}])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cached = cache(dataset, f"{folder}/train.h5")
        ...     torch.equal(cached[0]["image"], dataset[0]["image"])
        True
    """
    check.one_of("stale", stale, ("error", "rebuild"))
    workers = check.integer("num_workers", num_workers, minimum=0)
    edges = tuple(check.integer("chunk", n, minimum=1) for n in check.per_axis("chunk", chunk, 3))
    origin = _origin(dataset, version)
    wanted = origin | {"chunk": list(edges), "checksum": checksum}
    target = os.fspath(path)
    ready = _ready(target, wanted, stale)
    if ready is not None:
        return ready
    with exclusive(target):  # another process may have filled it in the meantime
        ready = _ready(target, wanted, stale)
        if ready is not None:
            return ready
        _remove_left_over(Path(os.path.realpath(target)))
        loader = DataLoader(
            _Packed(dataset, partial(_lay, edges=edges, checksum=checksum)),
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # else the global one is drawn from
        )
        _fill(target, wanted, loader)
    return CachedDataset(target)


def _origin(dataset: Items, version: str) -> dict[str, object]:
    """Return what the items depend on, as far as it can be known."""
    check.kind("version", version, str, "a text")
    known = dataset.fingerprint() if isinstance(dataset, Fingerprinted) else ""
    if not known and not version:
        rule = f"given, as a {type(dataset).__name__} has no fingerprint() to tell when it changes"
        raise check.fail("version", rule, repr(version))
    return {"dataset": known, "items": len(dataset), "version": version}


def _ready(path: str, wanted: Mapping[str, object], stale: str) -> CachedDataset | None:
    """Return the cache if it can be used, None if it must be written, or raise."""
    if not Path(path).exists():
        return None
    try:
        found = CachedDataset(path)
    except DataError as error:
        if stale == "rebuild" and _is_damaged_cache(path):
            return None
        error.add_note("stale='rebuild' replaces a damaged cache, and nothing but a cache.")
        raise
    other = [key for key in wanted if found.origin.get(key) != wanted[key]]
    if not other:
        return found
    if stale == "rebuild":
        return None
    differences = [
        "other files, options or functions"
        if key == "dataset"
        else f"{key} {found.origin.get(key)!r}, not {wanted[key]!r}"
        for key in other
    ]
    raise FormatError(
        "made from this dataset with these options",
        path=path,
        field="cache",
        value="; ".join(differences),
        remedy="Pass stale='rebuild' to write it anew, or another path.",
    )


def _is_damaged_cache(path: str) -> bool:
    """Return whether a file may have been a cache, and not one of another kind."""
    with Path(path).open("rb") as file:
        head = file.read(len(HDF5_MAGIC))
    if head != HDF5_MAGIC[: len(head)]:
        return False
    try:
        with open_hdf5(path) as file:
            return file.texts("", "format") == (FORMAT,)
    except DataError:
        return True


def _remove_left_over(target: Path) -> None:
    """Remove what writers that were killed have left; nobody else writes while we hold the lock."""
    for file in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        file.unlink(missing_ok=True)


def _fill(path: str, origin: Mapping[str, object], items: Iterable[PackedItem]) -> None:
    """Write the file, one item after the other."""

    def groups() -> Iterator[Written]:
        yield Written("", {"format": FORMAT, "origin": json.dumps(origin)}, {})
        objects = 1
        for number, item in enumerate(items):
            objects += 1 + len(item.arrays)
            if objects > MAX_OBJECTS:
                rule = f"at most {MAX_OBJECTS} items and arrays, what one file may hold"
                raise check.fail("dataset", rule, f"more than that after {number} items")
            yield Written(item_group(number), {"item": item.text}, item.arrays)

    write_hdf5(path, groups(), checked=True)


class _Packed(Dataset[PackedItem]):
    """A dataset of what is written."""

    def __init__(self, dataset: Items, lay: Callable[[Array, Mapping[str, Array]], Laid]) -> None:
        self._dataset = dataset
        self._lay = lay

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> PackedItem:
        try:
            if type(self._dataset) is VolumeDataset:
                return pack_case(self._dataset.case(index), self._lay)
            return pack_item(self._dataset[index], self._lay)
        except Exception as error:
            error.add_note(f"in item {index} of the dataset to cache")
            raise


def _lay(
    array: Array, attributes: Mapping[str, Array], *, edges: tuple[int, ...], checksum: bool
) -> Laid:
    """Cut an array into chunks along its last three axes, and those before if there is room."""
    if array.ndim < 3 or array.nbytes <= _SMALL:
        whole = array.shape if checksum and array.size else None
        return Laid(array, attributes, whole, checksum and bool(array.size))
    chunks = [_even(n, edge) for n, edge in zip(array.shape[-3:], edges, strict=True)]
    room = prod(edges) // prod(chunks)
    for size in reversed(array.shape[:-3]):
        chunks.insert(0, max(1, min(size, room)))
        room //= chunks[0]
    return Laid(array, attributes, tuple(chunks), checksum)


def _even(size: int, edge: int) -> int:
    """Return the edge, at most ``edge``, of as many chunks that stick out as little as possible."""
    return -(-size // -(-size // edge))


def _as_it_is(item: object) -> object:
    return item
