"""
Read a volume and keep its geometry
===================================

A :class:`~medkit.data.Volume` is a plain tensor and the affine that places it in the patient. Its
methods are the only things that change the affine, so a voxel keeps its place whatever is done to
the array.
"""

from importlib import resources

import numpy as np
import torch

from medkit.data import read
from medkit.plot import overlay

# %%
# The T1 template and the map of white matter that ship with nilearn: a real brain, the average of
# 152 people.
folder = resources.files("nilearn") / "datasets" / "data"
t1, white = (
    read(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz") for name in ("t1", "wm")
)
print(t1)

# %%
# Cut a box, resample it to another voxel size, turn it to other axes: the affine follows each time.
box = t1.crop((30, 40, 20), (120, 170, 157))
coarse = box.resample((2.0, 3.0, 1.5), mode="linear")
turned = coarse.to_axcodes("RAS")
print(turned)

# %%
# The first voxel of the box is where it was in the head.
assert np.allclose(box.affine @ [0, 0, 0, 1], t1.affine @ [30, 40, 20, 1])

# %%
# Where is white matter the most probable? The map has the grid of the image; ``like`` gives the
# answer its place, and the picture shows it in true proportions, with a scale bar in millimetres.
mask = white.like((white.data > 127).to(torch.uint8))
figure = overlay(t1, {"White matter": mask}, names={1: "white matter"})
figure
