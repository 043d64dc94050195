"""Cases in memory and cases in a file, read alike."""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from ._crop import box_padded, crop_padded
from ._dataset import Case, CaseSource
from ._lazy_volume import LazyCase, LazyVolume, RegionSource, read_region
from ._volume import Volume

AnyCase = Case | LazyCase
AnySource = CaseSource | RegionSource


def case_of(dataset: AnySource, number: int) -> AnyCase:
    """Return a case, its voxels left in the file where the dataset can do that."""
    if isinstance(dataset, RegionSource):
        return dataset.lazy_case(number)
    if not callable(getattr(dataset, "case", None)):
        rule = "a VolumeDataset or another data set with a method case"
        raise TypeError(f"dataset must be {rule}; got {type(dataset).__name__}")
    return dataset.case(number)


def in_memory(case: AnyCase) -> Case:
    """Return a case with all of its voxels."""
    return case.read() if isinstance(case, LazyCase) else case


def patch_of(
    volume: Volume | LazyVolume,
    start: Sequence[int],
    size: Sequence[int],
    fill: float | None,
    dtype: torch.dtype,
) -> Shaped[Tensor, "channel d h w"]:
    """Return a box in memory of its own, filled where it sticks out."""
    if isinstance(volume, Volume):
        return crop_padded(volume.data, start, size, fill, dtype=dtype)
    return box_padded(
        volume.spatial_shape, start, size, fill, lambda box: part_of(volume, box, dtype)
    )


def part_of(
    volume: Volume | LazyVolume, box: Sequence[slice], dtype: torch.dtype | None = None
) -> Shaped[Tensor, "channel d h w"]:
    """Return a box that is inside a volume, perhaps as a view."""
    if isinstance(volume, Volume):
        return volume.data[:, *box] if dtype is None else volume.data[:, *box].to(dtype)
    start = [part.start for part in box]
    return read_region(volume, start, [part.stop - part.start for part in box], dtype)


def row_of(label: Volume | LazyVolume, d: int, h: int) -> Shaped[Tensor, " width"]:
    """Return one row of a label."""
    whole = slice(0, label.spatial_shape[2])
    return part_of(label, (slice(d, d + 1), slice(h, h + 1), whole))[0, 0, 0]
