"""Images of other libraries as volumes: the same voxels at the same world positions."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from medkit._core import check, optional
from medkit._core.file_errors import GeometryError
from medkit.ops import permute_affine, ras_to_lps

from ._stored import to_tensor
from ._volume import Volume

if TYPE_CHECKING:
    import torchio
    from monai.data.meta_tensor import MetaTensor

_DHW = (2, 1, 0)


@runtime_checkable
class _NibabelImage(Protocol):
    """An image of nibabel: voxels behind ``dataobj``, and an affine."""

    @property
    def dataobj(self) -> object: ...
    @property
    def affine(self) -> np.ndarray | None: ...


@runtime_checkable
class _SitkImage(Protocol):
    """An image of SimpleITK."""

    def GetDimension(self) -> int: ...  # noqa: N802
    def GetNumberOfComponentsPerPixel(self) -> int: ...  # noqa: N802
    def GetDirection(self) -> tuple[float, ...]: ...  # noqa: N802
    def GetOrigin(self) -> tuple[float, ...]: ...  # noqa: N802
    def GetSpacing(self) -> tuple[float, ...]: ...  # noqa: N802


def from_nibabel(image: _NibabelImage) -> Volume:
    """Return a nibabel image (W, H, D) or (W, H, D, C) as a volume (C, D, H, W).

    The affine is taken as it is, from voxels (w, h, d) to RAS+ mm, and the voxels as nibabel scales
    them. A length-1 axis of time before vectors, as NIfTI has it, is dropped.

    Args:
        image: Any image of nibabel with an affine.

    Returns:
        The volume; uint16 becomes int32, uint32 and uint64 become int64.

    Raises:
        ValueError: If the image has another number of axes.
        GeometryError: If its affine is missing or cannot be inverted.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> v = Volume(torch.rand(2, 3, 4, 5), np.eye(4))
        >>> torch.equal(from_nibabel(v.to_nibabel()).data, v.data)
        True
    """
    array = np.asanyarray(image.dataobj)
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.ndim not in (3, 4):
        raise check.fail("image", "of axes (W, H, D) or (W, H, D, C)", f"shape {array.shape}")
    array = array if array.ndim == 4 else array[..., None]
    if image.affine is None:
        raise GeometryError("there", field="affine of the image", value="none")
    return _placed(to_tensor(np.ascontiguousarray(array.transpose(3, 2, 1, 0))), image.affine)


def from_sitk(image: _SitkImage) -> Volume:
    """Return a SimpleITK image of three axes as a volume (C, D, H, W).

    Origin, spacing and direction, in LPS mm, become an affine to RAS+; the components of a vector
    image become channels.

    Args:
        image: The image.

    Returns:
        A copy; uint16 becomes int32, uint32 and uint64 become int64.

    Raises:
        ValueError: If the image has not three axes.
        ImportError: If SimpleITK is not installed.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> v = Volume(torch.rand(2, 3, 4, 5), np.diag([3.0, 2.0, 1.0, 1.0]))
        >>> from_sitk(v.to_sitk()).spacing
        (3.0, 2.0, 1.0)
    """
    sitk = optional.require("SimpleITK", extra="peers")
    if image.GetDimension() != 3:
        raise check.fail("image", "of three axes", f"{image.GetDimension()} axes")
    array: np.ndarray = sitk.GetArrayFromImage(image)
    several = image.GetNumberOfComponentsPerPixel() > 1
    array = np.moveaxis(array, -1, 0) if several else array[None]
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return _placed(to_tensor(np.ascontiguousarray(array)), ras_to_lps(affine))


def from_monai(image: "MetaTensor") -> Volume:
    """Return a MONAI MetaTensor (C, W, H, D) as a volume (C, D, H, W).

    Args:
        image: The tensor, with ``affine`` from (w, h, d) to RAS+ mm, on any device.

    Returns:
        The volume, of the same dtype and on the same device.

    Raises:
        ValueError: If the tensor has not four axes.
        GeometryError: If its affine cannot be inverted.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> v = Volume(torch.rand(2, 3, 4, 5), np.eye(4))
        >>> torch.equal(from_monai(v.to_monai()).data, v.data)
        True
    """
    return _transposed(image.as_tensor(), image.affine)


def from_torchio(image: "torchio.Image") -> Volume:
    """Return a TorchIO image (C, W, H, D) as a volume (C, D, H, W).

    Args:
        image: A ScalarImage or LabelMap, with ``affine`` from (w, h, d) to RAS+ mm.

    Returns:
        The volume, of the same dtype.

    Raises:
        GeometryError: If its affine cannot be inverted.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> v = Volume(torch.rand(2, 3, 4, 5), np.eye(4))
        >>> torch.equal(from_torchio(v.to_torchio()).data, v.data)
        True
    """
    return _transposed(image.data, image.affine)


def _transposed(data: Tensor, affine: "Tensor | np.ndarray") -> Volume:
    if data.ndim != 4:
        raise check.fail("image", "of axes (C, W, H, D)", f"shape {tuple(data.shape)}")
    matrix = torch.as_tensor(affine).detach().cpu().double().numpy()
    return _placed(data.permute(0, 3, 2, 1), matrix)


def _placed(data: Tensor, affine_xyz: np.ndarray) -> Volume:
    """Return the volume of an affine from (w, h, d) to RAS+ mm."""
    matrix = np.asarray(affine_xyz, np.float64)
    if matrix.shape != (4, 4):
        raise GeometryError("a 4 x 4 matrix", field="affine of the image", value=matrix.shape)
    try:
        return Volume(data, permute_affine(matrix, _DHW))
    except ValueError as error:
        raise GeometryError(str(error)) from error
