"""TFRecord files as a map-style dataset for the ordinary DataLoader."""

import os
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import Dataset

from medkit._core import check
from medkit._core.file_errors import DataError, FormatError

from ._dataset import Case
from ._example import Values, parse_example
from ._feature import Feature
from ._limits import Limits
from ._orientation import unoriented
from ._tfrecord_index import open_index
from ._volume import Volume

_NO_PLACE = "the file states no geometry: 1 mm and the axes of the array"


class TFRecordDataset(Dataset[dict[str, Tensor | str]]):
    """Examples of TFRecord files by number, decoded by a schema that stands in one place.

    An item is a plain dict: one entry per entry of ``schema``, and ``id``, the name of the file and
    the number of the record in it unless the schema has an ``id``. Any order and any sampler do:
    with a ``DataLoader``, each record comes once per epoch whatever the number of workers; with
    several ranks, give each its :meth:`shard`.

    The records are found once, when the dataset is built. No file stays open: an item is read by
    one call at its place and checked there, so the dataset can be pickled and its workers started
    by fork, forkserver or spawn. Files that change afterwards are an error.

    :meth:`case` makes it a source for :class:`PatchDataset`.

    Args:
        paths: Files, plain and not compressed, in the order of their records.
        schema: What an item holds: names of its entries and where they come from.
        store_index: Keep the places of the records in ``<file>.index``, to be used next time if
            size and time of change of the file are still the same. Worth it for files of very many
            small records: 60 records of 4 MB are found in a tenth of a millisecond anyway.
        limits: Largest record to accept; None means ``Limits()``.
        verify: Check both checksums of each record that is read. False saves little time, and **a
            damaged file can then give wrong items.**

    Raises:
        ValueError: If there are no files or the schema is empty.
        DataError: If a file is damaged, cut or compressed.

    Example:
        >>> import tempfile
        >>> import torch
        >>> schema = {
        ...     "image": Feature(name="image", dtype="uint8", shape="size", layout="spatial"),
        ...     "label": Feature(name="grade", dtype="int64", shape=()),
        ... }
        >>> record = build_example({"image": bytes(24), "size": [2, 3, 4], "grade": 7})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tfrecord([record], f"{folder}/a.tfrecord")
        ...     item = TFRecordDataset([f"{folder}/a.tfrecord"], schema)[0]
        >>> item["image"].shape, item["label"], item["id"]
        (torch.Size([1, 2, 3, 4]), tensor(7), 'a:0')
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        schema: Mapping[str, Feature],
        *,
        store_index: bool = False,
        limits: Limits | None = None,
        verify: bool = True,
    ) -> None:
        if isinstance(paths, str | os.PathLike) or not paths:
            raise check.fail("paths", "a sequence of files", paths)
        if not schema:
            raise check.fail("schema", "a mapping with at least one Feature", dict(schema))
        self.schema: dict[str, Feature] = dict(schema)
        self._indices = [
            open_index(path, limits=limits or Limits(), verify=verify, store=store_index)
            for path in paths
        ]
        self._names = _names([index.path for index in self._indices])
        self._ends: npt.NDArray[np.int64] = np.cumsum([len(index) for index in self._indices])
        self._records = range(int(self._ends[-1]))
        self._verify = verify

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        where, example = self._example(index)
        item: dict[str, Tensor | str] = {"id": where}
        with _named(where):
            for name, feature in self.schema.items():
                item[name] = feature.decode(example)
        return item

    def example(self, index: int) -> dict[str, Values]:
        """Return all the features of a record as they are stored, e.g. to write a schema.

        Args:
            index: Number of the item.

        Returns:
            What :func:`parse_example` gives.

        Raises:
            IndexError: If there is no such item.
            DataError: If the record is damaged.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     write_tfrecord([build_example({"grade": 7})], f"{folder}/a.tfrecord")
            ...     schema = {"label": Feature(name="grade", dtype="int64")}
            ...     TFRecordDataset([f"{folder}/a.tfrecord"], schema).example(0)
            {'grade': array([7])}
        """
        return self._example(index)[1]

    def case(self, index: int) -> Case:
        """Return the entries ``image`` and ``label`` of an item as Volumes of their stored dtype.

        The files know no geometry: spacing is 1 mm, the axes are those of the array, and the
        volumes carry the notice ``"no_orientation"``.

        Args:
            index: Number of the item.

        Returns:
            Image, label (None if the schema has none) and id.

        Raises:
            IndexError: If there is no such item.
            DataError: If the record is damaged, or an entry is not (C, D, H, W).

        Example:
            >>> import tempfile
            >>> record = build_example({"image": bytes(24)})
            >>> image = Feature(name="image", dtype="uint8", shape=(2, 3, 4), layout="spatial")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     write_tfrecord([record], f"{folder}/a.tfrecord")
            ...     TFRecordDataset([f"{folder}/a.tfrecord"], {"image": image}).case(0).image
            Volume(1x2x3x4 uint8, 1x1x1 mm, SAR, a:0)
        """
        where, example = self._example(index)
        with _named(where):
            volumes = {
                name: _volume(name, self.schema[name].stored(example), where)
                for name in ("image", "label")
                if name in self.schema
            }
            name = self.schema["id"].decode(example) if "id" in self.schema else where
        if "image" not in volumes:
            raise check.fail("schema", "one with 'image' for cases", sorted(self.schema))
        return Case(volumes["image"], volumes.get("label"), str(name))

    def shard(self, rank: int, num_ranks: int) -> "TFRecordDataset":
        """Return every ``num_ranks``-th item, from number ``rank`` on, as a dataset of its own.

        The shards of all ranks together hold each item once; their lengths differ by one at most.
        ``DistributedSampler`` repeats items instead, to make them equal.

        Args:
            rank: Number of this process, from 0.
            num_ranks: Number of processes.

        Returns:
            A dataset that shares the index of this one.

        Raises:
            ValueError: If ``rank`` is not below ``num_ranks``.

        Example:
            >>> import tempfile
            >>> schema = {"label": Feature(name="grade", dtype="int64", shape=())}
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     records = [build_example({"grade": number}) for number in range(5)]
            ...     write_tfrecord(records, f"{folder}/a.tfrecord")
            ...     shard = TFRecordDataset([f"{folder}/a.tfrecord"], schema).shard(1, 2)
            ...     [int(item["label"]) for item in shard]
            [1, 3]
        """
        check.integer("num_ranks", num_ranks, minimum=1)
        if check.integer("rank", rank, minimum=0) >= num_ranks:
            raise check.fail("rank", f"below {num_ranks}", rank)
        part = object.__new__(TFRecordDataset)
        vars(part).update(vars(self), _records=self._records[rank::num_ranks])
        return part

    def _example(self, index: int) -> tuple[str, dict[str, Values]]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}; got {index}")
        record = self._records[index]
        file = int(np.searchsorted(self._ends, record, side="right"))
        number = record - (int(self._ends[file - 1]) if file else 0)
        content = self._indices[file].read(number, verify=self._verify)
        where = f"{self._names[file]}:{number}"
        with _named(where):
            return where, parse_example(content)


@contextmanager
def _named(where: str) -> Generator[None]:
    """Say in which record an error was found."""
    try:
        yield
    except DataError as error:
        raise type(error)(str(error), path=where) from error


def _volume(name: str, data: Tensor | str, where: str) -> Volume:
    if isinstance(data, str) or data.ndim != 4 or not data.numel():
        found = data if isinstance(data, str) else tuple(data.shape)
        raise FormatError("(C, D, H, W) with voxels for a case", field=name, value=found)
    return unoriented(data, where, why=_NO_PLACE)


def _names(paths: Sequence[str]) -> list[str]:
    """Return the file names without their endings, or whole paths where these coincide."""
    stems = [Path(path).stem for path in paths]
    return stems if max(Counter(stems).values()) == 1 else list(paths)
