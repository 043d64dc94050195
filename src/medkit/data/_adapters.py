"""The same voxels at the same world positions in the image types of other libraries."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medkit._core import optional
from medkit._core.file_errors import GeometryError
from medkit.ops import affine_shear, affine_spacing

if TYPE_CHECKING:
    import monai.data.meta_tensor
    import nibabel.nifti1
    import SimpleITK
    import torchio

_LARGEST_SHEAR = 1e-6
_NO_NUMPY_PEER = {
    torch.bool: torch.uint8,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.complex32: torch.complex64,
}


def plain_array(data: Tensor) -> np.ndarray:
    """Return the voxels as an array of a type that image files have; nothing is rounded."""
    return data.detach().cpu().to(_NO_NUMPY_PEER.get(data.dtype, data.dtype)).numpy()


def to_nibabel(data: Tensor, affine_xyz: np.ndarray) -> "nibabel.nifti1.Nifti1Image":
    """Build a nibabel image (W, H, D[, C])."""
    nibabel_nifti1 = optional.require("nibabel.nifti1", extra="peers")
    array = plain_array(data).transpose(3, 2, 1, 0)
    array = array[..., 0] if array.shape[-1] == 1 else array
    image = nibabel_nifti1.Nifti1Image(array, affine_xyz, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    return image


def to_sitk(data: Tensor, affine_lps: np.ndarray) -> "SimpleITK.Image":
    """Build a SimpleITK image of size (W, H, D)."""
    sitk = optional.require("SimpleITK", extra="peers")
    if affine_shear(affine_lps) > _LARGEST_SHEAR:
        raise GeometryError(
            "at right angles for SimpleITK",
            field="axes of the affine",
            value=f"a shear of {affine_shear(affine_lps):.2g}",
            remedy="Resample to a straight grid first.",
        )
    array = plain_array(data)
    several = array.shape[0] > 1
    image = sitk.GetImageFromArray(np.moveaxis(array, 0, -1) if several else array[0], several)
    spacing = affine_spacing(affine_lps)
    image.SetSpacing(spacing)
    image.SetOrigin(affine_lps[:3, 3].tolist())
    image.SetDirection((affine_lps[:3, :3] / np.array(spacing)).ravel().tolist())
    return image


def to_monai(data: Tensor, affine_xyz: np.ndarray) -> "monai.data.meta_tensor.MetaTensor":
    """Build a MONAI MetaTensor (C, W, H, D)."""
    meta_tensor = optional.require("monai.data.meta_tensor", extra="peers")
    return meta_tensor.MetaTensor(data.permute(0, 3, 2, 1), affine=torch.as_tensor(affine_xyz))


def to_torchio(data: Tensor, affine_xyz: np.ndarray) -> "torchio.ScalarImage":
    """Build a TorchIO ScalarImage (C, W, H, D)."""
    torchio = optional.require("torchio", extra="peers")
    return torchio.ScalarImage(tensor=data.permute(0, 3, 2, 1), affine=affine_xyz)
