"""An image with its place in the body: a plain tensor and an affine that cannot drift apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float64, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import (
    affine_axcodes,
    affine_spacing,
    flip_affine,
    permute_affine,
    ras_to_lps,
    reorient,
    resample,
    rescale_affine,
    translate_affine,
)

from . import _adapters
from ._crop import crop_padded
from ._notice import Notice

if TYPE_CHECKING:
    import monai.data.meta_tensor
    import nibabel.nifti1
    import SimpleITK
    import torchio

_XYZ = (2, 1, 0)
_AXES = "dhw"
_FIELDS = ("data", "affine", "source", "warnings")
_SMALLEST_DETERMINANT = 1e-6  # of the directions, spacing divided out


@dataclass(frozen=True, eq=False, repr=False)
class Volume:
    r"""A frozen pair of voxels and affine; its methods are the only way to new geometry.

    ``data`` is a plain, contiguous tensor of shape (C, D, H, W) in the order of the file. A 2-D
    image has D = 1. ``affine`` maps indices of the array axes to millimetres in the patient:

    .. math:: (x, y, z, 1)^T = A \cdot (d, h, w, 1)^T

    with x growing to the Right, y to the Anterior, z to the Superior (RAS+). It is float64 and
    read-only; ``torch.tensor(v.affine)`` gives a copy as a tensor. Other programs index a voxel by
    (x, y, z) = (w, h, d): nibabel, MONAI and TorchIO want :attr:`affine_xyz` for an array
    transposed to (W, H, D); ITK and DICOM also count towards Left and Posterior, which is
    :attr:`affine_lps`.

    Tensor operations on ``data`` give ordinary tensors without geometry. A result on the same grid
    becomes a volume with :meth:`like`; :meth:`crop`, :meth:`flip`, :meth:`to_axcodes` and
    :meth:`resample` change grid and affine together, so every voxel keeps its world position.

    Args:
        data: Voxels (C, D, H, W), of any dtype and on any device.
        affine: Matrix from (d, h, w) to RAS+ mm; finite and invertible, last row 0 0 0 1.
        source: Where the voxels came from, usually a path.
        warnings: What the reader resolved by a rule; empty for an ordinary file.

    Raises:
        TypeError: If ``data`` is no tensor.
        ValueError: If ``data`` is not 4-D or empty, or the affine cannot be inverted.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> v = Volume(torch.zeros(1, 20, 30, 40), np.diag([3.0, 2.0, 1.0, 1.0]))
        >>> v.spacing, v.axcodes, v.shape
        ((3.0, 2.0, 1.0), 'RAS', (1, 20, 30, 40))
        >>> v.crop((5, 0, 0), (10, 30, 40)).affine[:3, 3].tolist()
        [15.0, 0.0, 0.0]
    """

    data: Shaped[Tensor, "channel depth height width"]
    affine: Float64[np.ndarray, "4 4"]
    source: str = ""
    warnings: tuple[Notice, ...] = ()

    def __post_init__(self) -> None:
        check.kind("data", self.data, Tensor, "a tensor (torch.from_numpy makes one)")
        if self.data.ndim != 4 or not self.data.numel():
            raise check.fail("data", "(C, D, H, W) with at least one voxel", tuple(self.data.shape))
        affine = np.array(self.affine, dtype=np.float64)
        _check_affine(affine)
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "data", self.data.contiguous())

    def __reduce__(self) -> tuple[type["Volume"], tuple[object, ...]]:
        return Volume, (self.data, self.affine, self.source, self.warnings)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        spacing = "x".join(f"{s:g}" for s in self.spacing)
        dtype = str(self.data.dtype).removeprefix("torch.")
        source = f", {self.source}" if self.source else ""
        return f"Volume({size} {dtype}, {spacing} mm, {self.axcodes}{source})"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Channels and voxels per array axis: (C, D, H, W)."""
        c, d, h, w = self.data.shape
        return c, d, h, w

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Voxels per array axis: (D, H, W)."""
        return self.shape[1:]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between voxels along d, h and w."""
        return affine_spacing(self.affine)

    @property
    def axcodes(self) -> str:
        """Direction in which d, h and w grow, one letter each, e.g. ``"SAR"``."""
        return affine_axcodes(self.affine)

    @property
    def affine_xyz(self) -> Float64[np.ndarray, "4 4"]:
        """Matrix from (w, h, d) to RAS+ mm, as nibabel, MONAI and TorchIO have it."""
        return permute_affine(self.affine, _XYZ)

    @property
    def affine_lps(self) -> Float64[np.ndarray, "4 4"]:
        """Matrix from (w, h, d) to LPS+ mm, as ITK and DICOM have it."""
        return ras_to_lps(self.affine_xyz)

    def like(self, data: Shaped[Tensor, "channel depth height width"]) -> "Volume":
        """Return other voxels on this grid, e.g. a prediction for this image.

        Args:
            data: Voxels (C, D, H, W) with any number of channels and this volume's D, H and W.

        Returns:
            A volume with ``data`` and this affine.

        Raises:
            ValueError: If the grid is not this volume's.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> v = Volume(torch.rand(1, 4, 4, 4), np.eye(4))
            >>> v.like(v.data > 0.5)
            Volume(1x4x4x4 bool, 1x1x1 mm, RAS)
        """
        if tuple(data.shape[1:]) != self.spatial_shape:
            rule = f"(C, {', '.join(map(str, self.spatial_shape))})"
            raise check.fail("shape of data", rule, tuple(data.shape))
        return Volume(data, self.affine, self.source, self.warnings)

    def crop(
        self, start: Sequence[int], size: Sequence[int], *, fill: float | None = None
    ) -> "Volume":
        """Return a box of voxels with the affine of that box; outside of the array is filled.

        Args:
            start: Index (d, h, w) of the first voxel; may be negative when ``fill`` is given.
            size: Voxels per axis of the result.
            fill: Value of voxels outside of the array; None makes a box that sticks out an error.

        Returns:
            The box as a copy; each voxel keeps its world position.

        Raises:
            ValueError: If the box sticks out and ``fill`` is None, or misses the array altogether.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> v = Volume(torch.ones(1, 4, 4, 4), np.eye(4))
            >>> v.crop((2, 0, 0), (4, 4, 4), fill=0).data.sum().item()
            32.0
        """
        data = crop_padded(self.data, _triple("start", start), _triple("size", size), fill)
        return Volume(data, translate_affine(self.affine, start), self.source, self.warnings)

    def flip(self, axes: str) -> "Volume":
        """Return the volume with some array axes reversed and every voxel where it was.

        Args:
            axes: Letters of the axes, out of ``"dhw"``, e.g. ``"w"`` or ``"dh"``.

        Returns:
            The reversed copy, with the affine that belongs to it.

        Raises:
            ValueError: If a letter is unknown or repeated.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> v = Volume(torch.rand(1, 2, 3, 4), np.eye(4))
            >>> v.axcodes, v.flip("w").axcodes
            ('RAS', 'RAI')
        """
        if not set(axes) <= set(_AXES) or len(set(axes)) != len(axes):
            raise check.fail("axes", "letters out of 'dhw', each once", repr(axes))
        numbers = [_AXES.index(letter) for letter in axes]
        data = self.data.flip([number + 1 for number in numbers])
        affine = flip_affine(self.affine, self.spatial_shape, numbers)
        return Volume(data, affine, self.source, self.warnings)

    def to_axcodes(self, axcodes: str) -> "Volume":
        """Return the volume with axes permuted and reversed towards the given directions.

        Nothing is interpolated; an oblique volume stays oblique. ``"SAR"`` gives the array order
        of an ordinary NIfTI file, ``"RAS"`` the order that MONAI and TorchIO use.

        Args:
            axcodes: Directions of d, h and w: one letter of each of R/L, A/P and S/I.

        Returns:
            A copy with ``axcodes`` as asked and every voxel where it was.

        Raises:
            ValueError: If ``axcodes`` does not name three different directions.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> v = Volume(torch.rand(1, 2, 3, 4), np.eye(4))
            >>> v.to_axcodes("SPL").shape
            (1, 4, 3, 2)
        """
        turned = reorient(self.data[None], self.affine, axcodes=axcodes)
        return Volume(turned.image[0], turned.affine, self.source, self.warnings)

    def resample(
        self,
        spacing: float | Sequence[float],
        *,
        mode: Literal["linear", "nearest"],
    ) -> "Volume":
        """Return the volume on a grid of another spacing, with the same directions and centre.

        The new size is the old extent divided by the new spacing, rounded; the spacing is exactly
        the one asked for. Beyond the outermost voxel centres the edge value is repeated. No
        smoothing is applied before voxels are dropped.

        Args:
            spacing: Distance between voxels in mm, one number or one each for d, h and w.
            mode: ``"linear"`` for images; integers become float32. ``"nearest"`` for labels: dtype
                and values are kept.

        Returns:
            The resampled volume.

        Raises:
            ValueError: If a spacing is not positive.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> v = Volume(torch.rand(1, 10, 10, 10), np.diag([3.0, 1.0, 1.0, 1.0]))
            >>> v.resample(1.0, mode="linear").shape
            (1, 30, 10, 10)
        """
        check.one_of("mode", mode, ("linear", "nearest"))
        new = tuple(check.positive("spacing", s) for s in check.per_axis("spacing", spacing, 3))
        size = tuple(
            max(1, round(count * old / wanted))
            for count, old, wanted in zip(self.spatial_shape, self.spacing, new, strict=True)
        )
        data = resample(
            self.data[None], size=size, spacing=self.spacing, new_spacing=new, mode=mode
        )
        affine = rescale_affine(self.affine, self.spatial_shape, size, new)
        return Volume(data[0], affine, self.source, self.warnings)

    def to_nibabel(self) -> "nibabel.nifti1.Nifti1Image":
        """Return a nibabel image (W, H, D) or (W, H, D, C); the voxels are shared where possible.

        Returns:
            The image, with sform and qform set as nibabel does.

        Raises:
            ImportError: If nibabel is not installed.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> Volume(torch.zeros(1, 2, 3, 4), np.eye(4)).to_nibabel().shape
            (4, 3, 2)
        """
        return _adapters.to_nibabel(self.data, self.affine_xyz)

    def to_sitk(self) -> "SimpleITK.Image":
        """Return a SimpleITK image of size (W, H, D); several channels become a vector image.

        Returns:
            A copy with origin, spacing and direction in LPS.

        Raises:
            ImportError: If SimpleITK is not installed.
            GeometryError: If the grid is sheared, which ITK cannot represent.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> Volume(torch.zeros(1, 2, 3, 4), np.eye(4)).to_sitk().GetSize()
            (4, 3, 2)
        """
        return _adapters.to_sitk(self.data, self.affine_lps)

    def to_monai(self) -> "monai.data.meta_tensor.MetaTensor":
        """Return a MONAI MetaTensor (C, W, H, D), a transposed view of the voxels.

        Returns:
            The tensor with ``affine`` from (w, h, d) to RAS+ mm.

        Raises:
            ImportError: If MONAI is not installed.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> tuple(Volume(torch.zeros(1, 2, 3, 4), np.eye(4)).to_monai().shape)
            (1, 4, 3, 2)
        """
        return _adapters.to_monai(self.data, self.affine_xyz)

    def to_torchio(self) -> "torchio.ScalarImage":
        """Return a TorchIO ScalarImage (C, W, H, D), a transposed view of the voxels.

        Returns:
            The image with ``affine`` from (w, h, d) to RAS+ mm.

        Raises:
            ImportError: If TorchIO is not installed.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> Volume(torch.zeros(1, 2, 3, 4), np.eye(4)).to_torchio().spatial_shape
            (4, 3, 2)
        """
        return _adapters.to_torchio(self.data, self.affine_xyz)


def _triple(name: str, values: Sequence[int]) -> tuple[int, int, int]:
    if len(values) != 3:
        raise check.fail(name, "three whole numbers (d, h, w)", values)
    d, h, w = (check.integer(name, value) for value in values)
    return d, h, w


def trusted_volume(
    data: Shaped[Tensor, "channel depth height width"],
    affine: Float64[np.ndarray, "4 4"],
    source: str,
    warnings: tuple[Notice, ...],
) -> Volume:
    """Return a volume of contiguous voxels and an affine of its own that need no check."""
    volume = object.__new__(Volume)
    affine.flags.writeable = False
    for name, value in zip(_FIELDS, (data, affine, source, warnings), strict=True):
        object.__setattr__(volume, name, value)
    return volume


def _check_affine(affine: np.ndarray) -> None:
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise check.fail("affine", "a finite 4 x 4 matrix", affine.tolist())
    if affine[3].tolist() != [0, 0, 0, 1]:
        raise check.fail("last row of affine", "0 0 0 1", affine[3].tolist())
    lengths = np.sqrt(np.square(affine[:3, :3]).sum(axis=0))
    directions = affine[:3, :3] / np.where(lengths > 0, lengths, 1)
    if abs(np.linalg.det(directions)) < _SMALLEST_DETERMINANT:
        raise check.fail("affine", "invertible", affine.tolist())
