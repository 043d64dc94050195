"""Volumes that stay on the disk: geometry at once, voxels by region."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import affine_spacing, translate_affine

from ._dataset import Case
from ._notice import Notice
from ._volume import Volume, trusted_volume


@runtime_checkable
class Regions(Protocol):
    """An array on the disk of which boxes can be read."""

    def read_box(
        self, start: tuple[int, ...], size: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return a box in memory of its own, of four numbers each for (C, D, H, W).

        None keeps the stored type as tensors have it.
        """
        ...


class LazyVolume:
    """A volume on the disk, as :func:`open` gives it: read a region, not the file.

    It can be pickled and shared by workers started in any way: a process that reads opens the
    file for itself.

    Args:
        regions: Where boxes are read from.
        like: A volume with the geometry.
        shape: Channels and voxels per array axis: (C, D, H, W).

    Attributes:
        regions: Where boxes are read from.
        affine: Matrix from (d, h, w) to RAS+ mm.
        source: The file.
        warnings: What the reader resolved by a rule.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import open, write_hdf5
        >>> v = Volume(torch.arange(24).reshape(1, 2, 3, 4), np.diag([3.0, 2.0, 1.0, 1.0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_hdf5(v, f"{folder}/a.h5")
        ...     lazy = open(f"{folder}/a.h5")
        ...     lazy.shape, lazy.read((1, 1, 0), (1, 2, 4)).affine[:3, 3].tolist()
        ((1, 2, 3, 4), [3.0, 2.0, 0.0])
    """

    def __init__(self, regions: Regions, like: Volume, shape: tuple[int, ...]) -> None:
        c, d, h, w = shape
        self.shape: tuple[int, int, int, int] = (c, d, h, w)
        self.affine: Float64[np.ndarray, "4 4"] = like.affine
        self.source: str = like.source
        self.warnings: tuple[Notice, ...] = like.warnings
        self.regions: Regions = regions

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"LazyVolume({size}, {self.source})"

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Voxels per array axis: (D, H, W)."""
        return self.shape[1:]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between voxels along d, h and w."""
        return affine_spacing(self.affine)

    @property
    def data(self) -> Tensor:
        """All voxels (C, D, H, W), read anew each time."""
        return read_region(self, (0, 0, 0), self.spatial_shape)

    def read(self, start: Sequence[int], size: Sequence[int]) -> Volume:
        """Return a box of voxels of all channels, as ``read(path).crop(start, size)`` would.

        Args:
            start: Index (d, h, w) of the first voxel.
            size: Voxels per axis.

        Returns:
            The box, each voxel at its world position.

        Raises:
            ValueError: If the box is not inside the volume.
            DataError: If the file is damaged or changed after it was opened.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> from medkit.data import open
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     np.save(f"{folder}/a.npy", np.arange(24).reshape(2, 3, 4))
            ...     open(f"{folder}/a.npy").read((1, 2, 0), (1, 1, 4)).data.tolist()
            [[[[20, 21, 22, 23]]]]
        """
        if len(start) != 3 or len(size) != 3:
            raise check.fail("start and size", "three numbers (d, h, w)", f"{start} and {size}")
        first = tuple(check.integer("start", a) for a in start)
        extent = tuple(check.integer("size", n) for n in size)
        for a, length, n in zip(first, extent, self.spatial_shape, strict=True):
            if a < 0 or length < 1 or a + length > n:
                rule = f"a box inside {self.spatial_shape}"
                raise check.fail("start and size", rule, f"{start} and {size}")
        data = read_region(self, first, extent)
        affine = translate_affine(self.affine, first)
        return trusted_volume(data, affine, self.source, self.warnings)


def read_region(
    volume: LazyVolume,
    start: Sequence[int],
    size: Sequence[int],
    dtype: torch.dtype | None = None,
) -> Shaped[Tensor, "channel d h w"]:
    """Return a box inside of a volume, in memory of its own and of the dtype that is asked for."""
    return volume.regions.read_box((0, *start), (volume.shape[0], *size), dtype)


class LazyCase(NamedTuple):
    """A case whose voxels stay on the disk, as a dataset in a file gives it.

    Args:
        image: The image, of its own dtype.
        label: Class numbers on the grid of the image, or None.
        id: Name of the case, used in messages and items.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from medkit.data import open
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.zeros((2, 3, 4)))
        ...     LazyCase(open(f"{folder}/a.npy"), None, "a").image.shape
        (1, 2, 3, 4)
    """

    image: LazyVolume
    label: LazyVolume | None
    id: str

    def read(self) -> Case:
        """Return the case with all of its voxels in memory.

        Returns:
            Image, label and name.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> from medkit.data import open
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     np.save(f"{folder}/a.npy", np.zeros((2, 3, 4)))
            ...     LazyCase(open(f"{folder}/a.npy"), None, "a").read().image.shape
            (1, 2, 3, 4)
        """
        whole = (0, 0, 0)
        image = self.image.read(whole, self.image.spatial_shape)
        label = None if self.label is None else self.label.read(whole, self.label.spatial_shape)
        return Case(image, label, self.id)


@runtime_checkable
class RegionSource(Protocol):
    """A dataset that can give cases without reading their voxels, such as a cache on the disk."""

    def __len__(self) -> int:
        """Return the number of cases."""
        ...

    def lazy_case(self, index: int) -> LazyCase:
        """Return one case, nothing of it read."""
        ...
