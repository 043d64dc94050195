"""The dataset in a file that ``cache`` has written."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medkit._core import check
from medkit._core.file_errors import DataError, FormatError, TruncatedError

from ._cache_item import Form, Value, given_dtype, unpack_forms
from ._dataset import Case
from ._hdf5 import geometry
from ._hdf5_arrays import Hdf5Arrays
from ._lazy_volume import LazyCase, LazyVolume
from ._limits import Limits
from ._notice import NO_ORIENTATION
from ._orientation import placed
from ._volume import Volume

FORMAT = "medkit cache 1"


class CachedDataset(Dataset[dict[str, Value]]):
    """A dataset in a file that :func:`cache` has written; give it to any ``DataLoader``.

    ``dataset[index]`` is the item as it was, in memory of its own. :meth:`lazy_case` reads regions
    of its volumes; :class:`PatchDataset` takes patches from there. It can be pickled and shared by
    workers started in any way: a process that reads maps the file for itself, and all of them use
    the same pages of memory.

    Args:
        path: The file.
        limits: Largest array or region to read at once; None means ``Limits()``.

    Attributes:
        path: The file.
        origin: What the file was made from.

    Raises:
        DataError: If the file is no cache or is damaged.
        OSError: If it cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import Volume, VolumeDataset, cache
        >>> volume = Volume(torch.zeros(1, 20, 30, 40, dtype=torch.int16), np.eye(4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = cache(VolumeDataset([{"image": volume, "id": "a"}]), f"{folder}/train.h5")
        ...     cached = CachedDataset(f"{folder}/train.h5")
        ...     cached[0]["image"].dtype, cached.case(0).image.data.dtype, cached[0]["id"]
        (torch.float32, torch.int16, 'a')
    """

    def __init__(self, path: str | os.PathLike[str], *, limits: Limits | None = None) -> None:
        self.path: str = os.fspath(path)
        self._arrays = Hdf5Arrays(self.path, limits or Limits())
        try:
            self.origin: Mapping[str, object] = _origin(self._arrays)
            count = check.integer("items", self.origin.get("items"), minimum=0)
            self._items: list[_Item] = [_look_at(self._arrays, number) for number in range(count)]
        except DataError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            value = f"damage ({error})"
            raise FormatError("readable", path=self.path, field="cache", value=value) from error
        self._arrays.close()  # what is mapped needs no open file, and forked workers inherit none

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Value]:
        number, item = self._item(index)
        return {key: self._value(number, key, form) for key, form in item.forms.items()}

    def lazy_case(self, index: int) -> LazyCase:
        """Return one case of which nothing is read until a region is asked for.

        Args:
            index: Number of the item, which holds an ``image`` (C, D, H, W) and perhaps a
                ``label`` (1, D, H, W).

        Returns:
            Image, label and name; voxels are of the dtype in which they are stored.

        Raises:
            IndexError: If there is no such item.
            ValueError: If it holds no volume.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> import torch
            >>> from medkit.data import Volume, VolumeDataset, cache
            >>> dataset = VolumeDataset([{"image": Volume(torch.ones(1, 9, 9, 9), np.eye(4))}])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     image = cache(dataset, f"{folder}/train.h5").lazy_case(0).image
            ...     image.read((1, 2, 3), (4, 4, 4)).shape
            (1, 4, 4, 4)
        """
        number, item = self._item(index)
        image = self._volume(number, item, "image")
        if image is None:
            raise check.fail(f"item {number}", "an image (C, D, H, W)", sorted(item.forms))
        name = item.forms["id"].value if "id" in item.forms else None
        label = self._volume(number, item, "label")
        return LazyCase(image, label, str(number if name is None else name))

    def case(self, index: int) -> Case:
        """Return one case as Volumes in memory, of the dtype in which they are stored.

        Args:
            index: Number of the item, as for :meth:`lazy_case`.

        Returns:
            Image, label and name.

        Raises:
            IndexError: If there is no such item.
            ValueError: If it holds no volume.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> import torch
            >>> from medkit.data import Volume, VolumeDataset, cache
            >>> dataset = VolumeDataset([{"image": Volume(torch.ones(1, 9, 9, 9), np.eye(4))}])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     cache(dataset, f"{folder}/train.h5").case(0).image
            Volume(1x9x9x9 float32, 1x1x1 mm, RAS)
        """
        return self.lazy_case(index).read()

    def _item(self, index: int) -> tuple[int, "_Item"]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}; got {index}")
        number = index % len(self)
        return number, self._items[number]

    def _value(self, number: int, key: str, form: Form) -> Value:
        """Return what the dataset gave under a key."""
        if form.kind == "value":
            return form.value
        name = f"{item_group(number)}/{key}"
        shape, dtype = self._arrays.stored[name]
        given = None if form.kind == "array" else given_dtype(form)
        wanted = dtype if given is None else _in_numpy(given)
        if 0 in shape:  # HDF5 has no place for it
            values = np.empty(shape, wanted)
        else:
            box = tuple(slice(0, n) for n in shape)
            values = self._arrays.read(name, box, None if wanted == dtype else wanted)
        values = values.reshape(()) if form.axes == 0 else values
        return values if given is None else torch.as_tensor(values).view(given)

    def _volume(self, number: int, item: "_Item", key: str) -> LazyVolume | None:
        if key not in item.places:
            return None
        name = f"{item_group(number)}/{key}"
        regions = _StoredRegions(self._arrays, name, item.forms[key].dtype == "bfloat16")
        return LazyVolume(regions, item.places[key], self._arrays.stored[name].shape)


class _Item(NamedTuple):
    """What the file says about an item, but for the arrays themselves."""

    forms: dict[str, Form]
    places: dict[str, Volume]
    """A voxel that knows where image and label are, as far as they are volumes."""


@dataclass(frozen=True)
class _StoredRegions:
    arrays: Hdf5Arrays
    name: str
    bfloat16: bool
    """Stored as int16, as NumPy and HDF5 have no such type."""

    def read_box(
        self, start: tuple[int, ...], size: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> Tensor:
        box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        if self.bfloat16:
            data = torch.as_tensor(self.arrays.read(self.name, box)).view(torch.bfloat16)
            return data if dtype is None else data.to(dtype)
        wanted = None if dtype is None else _in_numpy(dtype)
        return torch.as_tensor(self.arrays.read(self.name, box, wanted))


def item_group(number: int) -> str:
    """Return the path of the group that holds an item."""
    return f"items/{number:06d}"


def _origin(arrays: Hdf5Arrays) -> Mapping[str, object]:
    """Return what the file was made from."""
    if arrays.file().texts("", "format") != (FORMAT,):
        value = "an HDF5 file of another kind"
        raise FormatError(f"a {FORMAT}", path=arrays.path, field="file", value=value)
    (text,) = arrays.file().texts("", "origin") or ("",)
    return json.loads(text)


def _look_at(arrays: Hdf5Arrays, number: int) -> _Item:
    """Read what the file says about an item, and look up where its arrays are."""
    file, group = arrays.file(), item_group(number)
    if group not in file.groups:
        value = f"{number} items"
        raise TruncatedError("all items", path=arrays.path, field="cache", value=value)
    (text,) = file.texts(group, "item") or ("{}",)
    forms = unpack_forms(text)
    places: dict[str, Volume] = {}
    for key, form in forms.items():
        name = f"{group}/{key}"
        if form.kind == "value":
            continue
        shape = arrays.stored[name].shape
        if 0 not in shape:
            arrays.locate(name)
        if (
            key in ("image", "label")
            and form.kind == "tensor"
            and len(shape) == 4
            and 0 not in shape
        ):
            voxel = placed(torch.zeros(1, 1, 1, 1), form.source, *geometry(file, name))
            notices = (*voxel.warnings, *(n for n in form.notices if n.code != NO_ORIENTATION))
            places[key] = Volume(voxel.data, voxel.affine, form.source, notices)
    return _Item(forms, places)


@lru_cache
def _in_numpy(dtype: torch.dtype) -> np.dtype[Any]:
    dtype = torch.int16 if dtype == torch.bfloat16 else dtype
    return torch.empty(0, dtype=dtype).numpy().dtype
