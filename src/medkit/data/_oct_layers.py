"""B-scans of the retina and the lines between its layers, from one HDF5 file."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from medkit._core import check
from medkit._core.file_errors import FormatError

from ._hdf5_reader import HDF5Reader
from ._limits import Limits


class OctItem(TypedDict):
    """One B-scan as a plain dict, ready for transforms and the default collation."""

    image: Tensor
    """float32 (1, H, W), intensities as stored."""
    boundaries: Tensor
    """float32 (boundary, W), rows from top to bottom; NaN where nobody annotated."""
    id: str
    """Name of the file and number of the B-scan in it."""
    patient: NotRequired[int]
    """Number of the patient, where the file has it."""


class OctLayerDataset(Dataset[OctItem]):
    """B-scans of an HDF5 file with their annotated boundaries, one item per B-scan.

    The file holds ``images`` (N, H, W), the row of a boundary in every column in ``layers/<name>``
    (N, W), NaN where nobody annotated, and perhaps ``patients`` (N,), whole numbers. An item is a
    plain dict: ``image`` float32 (1, H, W), ``boundaries`` float32 (boundary, W), ``id``, and
    ``patient`` where it is known. Transforms of :mod:`medkit.transforms` take the boundaries along.

    Nothing but the numbers of the patients is read before an item is asked for, and each process
    opens the file for itself (:class:`HDF5Reader`). Divide B-scans among training and test with
    :func:`group_split` and ``patients``: neighbouring B-scans of one eye are nearly the same image.

    Args:
        path: The file.
        boundaries: Names of the boundaries in ``layers``, from top to bottom.
        prepare: Called on each item, e.g. to resize it; takes and returns a dict. A named function
            or a transform, so that workers can be started by spawn.
        limits: Largest array to read at once; None means ``Limits()``.

    Attributes:
        boundaries: Names of the boundaries.
        image_shape: Height and width of the stored B-scans.
        patients: Patient of each B-scan, or None if the file does not say.

    Raises:
        ValueError: If ``boundaries`` is empty or names one twice.
        DataError: If it is no HDF5 file, lacks an array, or the shapes do not fit.

    Example:
        >>> import tempfile
        >>> import h5py
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with h5py.File(f"{folder}/eyes.h5", "w") as file:
        ...         file["images"] = np.zeros((2, 62, 96), np.uint8)
        ...         file["layers/ILM"], file["layers/BM"] = np.ones((2, 96)), np.full((2, 96), 9.0)
        ...         file["patients"] = [7, 8]
        ...     dataset = OctLayerDataset(f"{folder}/eyes.h5")
        ...     item = dataset[1]
        >>> item["image"].shape, item["boundaries"][:, 0].tolist(), item["id"], item["patient"]
        (torch.Size([1, 62, 96]), [1.0, 9.0], 'eyes:1', 8)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        boundaries: Sequence[str] = ("ILM", "BM"),
        prepare: Callable[[OctItem], object] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.boundaries: tuple[str, ...] = tuple(boundaries)
        if not self.boundaries or len(set(self.boundaries)) < len(self.boundaries):
            raise check.fail("boundaries", "one or more different names", boundaries)
        self._reader = HDF5Reader(path, limits=limits)
        self._prepare = prepare
        shape = self._reader.shape("images")
        if len(shape) != 3 or 0 in shape:
            raise self._wrong("(B-scan, height, width)", "images", shape)
        self._count, height, width = shape
        self.image_shape: tuple[int, int] = height, width
        for name in self.boundaries:
            self._check_layer(f"layers/{name}", (self._count, width))
        self.patients: tuple[int, ...] | None = self._read_patients()
        self._name = Path(path).stem

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> OctItem:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}; got {index}")
        index %= len(self)
        height, width = self.image_shape
        read = self._reader.read
        lines = [
            read(f"layers/{name}", start=(index, 0), size=(1, width)) for name in self.boundaries
        ]
        item = OctItem(
            image=read("images", start=(index, 0, 0), size=(1, height, width)).float(),
            boundaries=torch.cat(lines).float(),
            id=f"{self._name}:{index}",
        )
        if self.patients is not None:
            item["patient"] = self.patients[index]
        return item if self._prepare is None else cast("OctItem", self._prepare(item))

    def _check_layer(self, name: str, wanted: tuple[int, int]) -> None:
        shape = self._reader.shape(name)
        if shape != wanted:
            raise self._wrong(f"of shape {wanted}, one row for each column of images", name, shape)

    def _read_patients(self) -> tuple[int, ...] | None:
        try:
            self._reader.shape("patients")
        except FormatError:
            return None
        numbers = self._reader.read("patients")
        if tuple(numbers.shape) != (len(self),) or numbers.is_floating_point():
            rule = f"{len(self)} whole numbers, one for each B-scan"
            raise self._wrong(rule, "patients", f"{tuple(numbers.shape)}, {numbers.dtype}")
        return tuple(int(number) for number in numbers)

    def _wrong(self, rule: str, field: str, value: object) -> FormatError:
        return FormatError(rule, path=self._reader.path, field=field, value=value)
