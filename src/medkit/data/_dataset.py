"""Cases on disk or in memory as items of an ordinary DataLoader."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medkit._core import check
from medkit._core.file_errors import GeometryError
from medkit.ops import corner_indices, transform_points

from ._fingerprint import digest, function_fingerprint, part_fingerprint
from ._limits import Limits
from ._read import read
from ._volume import Volume

_FILES = {"image", "label"}
_KEYS = _FILES | {"id"}
Source = str | os.PathLike[str] | Volume


class Item(TypedDict, total=False):
    """What a dataset gives: plain tensors and a name, ready for the default collation."""

    image: Tensor
    """float32 (C, D, H, W)."""
    label: Tensor
    """int64 (1, D, H, W); missing when the case has none."""
    affine: Tensor
    """float64 (4, 4), from (d, h, w) of these tensors to RAS+ mm."""
    id: str
    """Name of the case."""


class Case(NamedTuple):
    """One case as it was read: an image, its label on the same grid, and a name.

    Args:
        image: The image, of its own dtype.
        label: Class numbers on the grid of the image, or None.
        id: Name of the case, used in messages and items.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> Case(Volume(torch.zeros(1, 2, 3, 4), np.eye(4)), None, "a").id
        'a'
    """

    image: Volume
    label: Volume | None
    id: str


@runtime_checkable
class CaseSource(Protocol):
    """Anything that gives cases by number, such as :class:`VolumeDataset`."""

    def __len__(self) -> int:
        """Return the number of cases."""
        ...

    def case(self, index: int) -> Case:
        """Return one case."""
        ...


class VolumeDataset(Dataset[Item]):
    """Whole volumes, one item per case, for the ordinary ``DataLoader``.

    An item is a plain dict: ``image`` float32 (C, D, H, W), ``label`` int64 (1, D, H, W),
    ``affine`` float64 (4, 4) and ``id``. :meth:`case` gives the same case as ``Volume``s of their
    own dtype. Image and label must lie on one grid: equal sizes, and corners that agree to
    ``tolerance`` of a voxel.

    Args:
        cases: One mapping per case: ``image`` and, if there is one, ``label`` are paths or
            Volumes; an image in several files, such as the sequences of an MR examination, is a
            list of them, whose channels follow each other. ``id`` is a name, by default the file
            name of the image without its ending, or its whole path where file names coincide.
        prepare: Called once on every case that was read, e.g. to reorient, resample or normalize;
            takes and returns a :class:`Case`. A named function, so that workers can be started by
            spawn.
        cache: Keep cases in memory after the first reading, each worker its own unless they were
            read before the workers start.
        tolerance: Largest distance between corresponding corner voxels of image and label, in
            voxels; smaller differences are taken for rounding and the image's affine is used.
        limits: Largest sizes to accept when reading; None means ``Limits()``.
        verify: Check every checksum and length when reading.

    Raises:
        ValueError: If a case has unknown keys or no image, or two cases have one id.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> image = Volume(torch.rand(1, 8, 8, 8), np.eye(4))
        >>> dataset = VolumeDataset([{"image": image, "label": image.like(image.data > 0.5)}])
        >>> {key: getattr(value, "dtype", value) for key, value in dataset[0].items()}
        {'image': torch.float32, 'affine': torch.float64, 'id': 'case 0', 'label': torch.int64}
    """

    def __init__(
        self,
        cases: Sequence[Mapping[str, Source | Sequence[Source]]],
        *,
        prepare: Callable[[Case], Case] | None = None,
        cache: bool = False,
        tolerance: float = 0.1,
        limits: Limits | None = None,
        verify: bool = True,
    ) -> None:
        for index, case in enumerate(cases):
            rule = "a mapping with 'image' and perhaps 'label' and 'id'"
            check.kind(f"cases[{index}]", case, Mapping, rule)
            if "image" not in case or not set(case) <= _KEYS:
                raise check.fail(f"cases[{index}]", rule, sorted(case))
            if not _parts(case["image"]):
                raise check.fail(f"cases[{index}]['image']", "at least one file", "none")
        self._cases = [dict(case) for case in cases]
        self.ids: tuple[str, ...] = _names(self._cases)
        self._prepare = prepare
        self._cache: dict[int, Case] | None = {} if cache else None
        self._tolerance = check.non_negative("tolerance", tolerance)
        self._limits = limits
        self._verify = verify

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> Item:
        case = self.case(index)
        item = Item(
            image=case.image.data.to(torch.float32),
            affine=torch.tensor(case.image.affine),
            id=case.id,
        )
        if case.label is not None:
            item["label"] = case.label.data.to(torch.int64)
        return item

    def case(self, index: int) -> Case:
        """Return one case as Volumes of their own dtype, prepared and checked.

        Args:
            index: Number of the case.

        Returns:
            Image, label and name; the label's voxels are whole numbers of an integer type.

        Raises:
            IndexError: If there is no such case.
            DataError: If a file cannot be read exactly, image and label lie on different grids
                (``GeometryError``), or the label is no class map.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> image = Volume(torch.zeros(1, 8, 8, 8, dtype=torch.uint8), np.eye(4))
            >>> VolumeDataset([{"image": image, "id": "a"}]).case(0).image
            Volume(1x8x8x8 uint8, 1x1x1 mm, RAS)
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}; got {index}")
        index %= len(self)
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        entry = self._cases[index]
        name = self.ids[index]
        image = self._volume(entry["image"], name)
        label = self._volume(entry["label"], name) if "label" in entry else None
        case = Case(image, None if label is None else _class_map(label, name), name)
        if self._prepare is not None:
            case = self._prepare(case)
        if case.label is not None:
            _check_grid(case.image, case.label, f"the label of {case.id!r}", self._tolerance)
        if self._cache is not None:
            self._cache[index] = case
        return case

    def fingerprint(self) -> str:
        """Return a text that differs when an item may: a file, an option or ``prepare`` changed.

        Files are told apart by size and time of change, those that a header names too, volumes in
        memory by their voxels, and ``prepare`` by its source and what is bound to it, not by the
        functions that it calls.

        Returns:
            32 letters and digits.

        Raises:
            OSError: If a file is missing.
            DataError: If the header that names a file cannot be read.
            ValueError: If ``prepare`` cannot be pickled.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> zeros = Volume(torch.zeros(1, 2, 3, 4), np.eye(4))
            >>> one, other = ([{"image": zeros, "id": name}] for name in "ab")
            >>> VolumeDataset(one).fingerprint() == VolumeDataset(other).fingerprint()
            False
        """
        cases = [
            {
                key: [part_fingerprint(part) for part in _parts(case[key])]
                for key in _FILES & set(case)
            }
            for case in self._cases
        ]
        prepare = None if self._prepare is None else function_fingerprint(self._prepare)
        return digest(cases, self.ids, prepare, self._tolerance)

    def _volume(self, entry: Source | Sequence[Source], name: str) -> Volume:
        first, *others = (
            part
            if isinstance(part, Volume)
            else read(part, limits=self._limits, verify=self._verify)
            for part in _parts(entry)
        )
        for other in others:
            _check_grid(first, other, f"another channel of {name!r}", self._tolerance)
        if not others:
            return first
        return first.like(torch.cat([first.data, *(other.data for other in others)]))


def _names(cases: Sequence[Mapping[str, Source | Sequence[Source]]]) -> tuple[str, ...]:
    """Return the id of each case, its file name, or its path where file names coincide."""
    sources = [_source(case["image"]) for case in cases]
    short = [Path(source.removesuffix(".gz")).stem for source in sources]
    count = Counter(short)
    names = [
        str(case["id"]) if "id" in case else name if count[name] == 1 else source
        for case, name, source in zip(cases, short, sources, strict=True)
    ]
    names = [name or f"case {index}" for index, name in enumerate(names)]
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise check.fail("id of cases", "different for each case", twice)
    return tuple(names)


def _parts(image: Source | Sequence[Source]) -> Sequence[Source]:
    """Return what an image is made of, itself where it is one file or volume."""
    if isinstance(image, str | os.PathLike | Volume):
        return [image]
    check.kind("image and label", image, Sequence, "paths or Volumes")
    return image


def _source(image: Source | Sequence[Source]) -> str:
    first = _parts(image)[0]
    return first.source if isinstance(first, Volume) else str(first)


def _class_map(label: Volume, name: str) -> Volume:
    """Return the label with an integer dtype; floats must be whole numbers."""
    if label.shape[0] != 1:
        raise check.fail(f"label of {name!r}", "a class map with one channel", label.shape)
    if label.data.is_floating_point():
        whole = label.data.to(torch.int32)
        if not torch.equal(whole.to(label.data.dtype), label.data):
            raise check.fail(f"label of {name!r}", "whole numbers", str(label.data.dtype))
        return label.like(whole)
    if label.data.is_complex():
        raise check.fail(f"label of {name!r}", "whole numbers", str(label.data.dtype))
    return label.like(label.data.to(torch.uint8)) if label.data.dtype == torch.bool else label


def _check_grid(image: Volume, other: Volume, what: str, tolerance: float) -> None:
    if image.spatial_shape != other.spatial_shape:
        raise GeometryError(
            f"{image.spatial_shape} like the image",
            path=other.source,
            field=f"shape of {what}",
            value=other.spatial_shape,
            remedy="Resample it to the grid of the image.",
        )
    corners = corner_indices(image.spatial_shape)
    gap = transform_points(image.affine, corners) - transform_points(other.affine, corners)
    distance = float(np.sqrt(np.square(gap).sum(axis=1)).max())
    if distance > tolerance * min(image.spacing):
        raise GeometryError(
            f"where the image's are, to {tolerance:g} voxel",
            path=other.source,
            field=f"corners of {what}",
            value=f"a distance of {distance:.4g} mm",
            remedy="Resample it to the grid of the image, or raise tolerance.",
        )
