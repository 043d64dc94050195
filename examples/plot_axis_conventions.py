"""
One head, four ways to index it
===============================

medkit, nibabel, MONAI, TorchIO and ITK store the same voxels in arrays of different axes, and two
of them count towards other sides of the body. A :class:`~medkit.data.Volume` knows all of them.
"""

from importlib import resources

import matplotlib.pyplot as plt
import numpy as np

from medkit.data import from_nibabel, read
from medkit.ops import affine_axcodes

# %%
# The T1 template that ships with nilearn. Its file has the axes (x, y, z) of every NIfTI file, the
# first one fastest: as an array in C order that is (D, H, W), and no voxel has to be moved.
folder = resources.files("nilearn") / "datasets" / "data"
t1 = read(folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
print(t1.spatial_shape, t1.axcodes)

# %%
# A voxel in the left frontal lobe, at (d, h, w) = (100, 150, 60). nibabel, MONAI and TorchIO call
# it (w, h, d), and their affine takes it so; ITK and DICOM also count towards Left and Posterior.
# All of them mean the same place.
d, h, w = 100, 150, 60
image = t1.to_nibabel()
place = t1.affine @ (d, h, w, 1)
assert np.asarray(image.dataobj)[w, h, d] == t1.data[0, d, h, w]
assert np.allclose(image.affine @ (w, h, d, 1), place)
assert np.allclose(t1.affine_lps @ (w, h, d, 1), place * (-1, -1, 1, 1))

# %%
# The way back gives the same volume. ``from_monai``, ``from_torchio`` and ``from_sitk`` do so for
# the images of those libraries.
again = from_nibabel(image)
assert np.allclose(again.affine, t1.affine)
assert again.data.equal(t1.data)

# %%
# What ``imshow`` draws of one slice tells the conventions apart. It puts the first axis downwards
# and the second to the right, so nibabel's array lies on its side. The letters say where each axis
# grows: Right, Left, Anterior, Posterior.
grey = t1.data[0, d].numpy()
codes, codes_lps = t1.axcodes, affine_axcodes(t1.affine_lps)
opposite = {"R": "L", "A": "P", "S": "I"}
panels = [
    ("medkit\nvolume.data[0, d]", grey, ("h", codes[1]), ("w", codes[2]), "RAS+"),
    ("nibabel\narray[:, :, k]", grey.T, ("i", codes[2]), ("j", codes[1]), "RAS+"),
    ("MONAI, TorchIO\ntensor[0, :, :, k]", grey.T, ("i", codes[2]), ("j", codes[1]), "RAS+"),
    ("SimpleITK\narray[k]", grey, ("j", codes[1]), ("i", codes[2]), "LPS+"),
]
figure, axes = plt.subplots(1, 4, figsize=(13, 5), layout="constrained")
for panel, (title, picture, (down, to_down), (right, to_right), world) in zip(
    axes, panels, strict=True
):
    panel.imshow(picture, cmap="gray")
    row, column = (h, w) if picture is grey else (w, h)
    panel.plot(column, row, "o", color="tab:orange")
    panel.set_title(title)
    panel.set_xlabel(f"{right} grows to {to_right} →\nworld in {world} mm")
    panel.set_ylabel(f"← {down} grows to {to_down}")
    panel.set_xticks([0, picture.shape[1] - 1], [opposite[to_right], to_right])
    panel.set_yticks([0, picture.shape[0] - 1], [opposite[to_down], to_down])
figure
