"""Pure functions on tensors: no module, no state, no files."""

from ._affine import (
    affine_axcodes,
    affine_shear,
    affine_spacing,
    axes_towards,
    corner_indices,
    flip_affine,
    permute_affine,
    ras_to_lps,
    rescale_affine,
    transform_points,
    translate_affine,
)
from ._binary_morphology import (
    binary_closing,
    binary_dilation,
    binary_erosion,
    binary_opening,
)
from ._boundary import boundaries_to_mask, mask_to_boundaries, rescale_boundaries
from ._components import (
    connected_components,
    fill_holes,
    keep_largest_component,
    remove_small_components,
)
from ._distance import distance_transform
from ._hysteresis import hysteresis_threshold
from ._layer_decoding import (
    BoundaryPosterior,
    boundaries_from_probabilities,
    boundary_posterior,
)
from ._layout import channels_first, channels_last
from ._map_error import map_error
from ._morphology import soft_dilate, soft_erode, soft_open
from ._one_hot import ClassIndex, class_index, one_hot
from ._overlap import Overlap, hard_overlap
from ._reorient import Reoriented, reorient
from ._resample import resample, resample_to_grid
from ._scatter import GroupExtrema, scatter_max, scatter_mean, scatter_min, scatter_sum
from ._segment import segment_mean, segment_sum
from ._soft_skeleton import soft_skeletonize
from ._structuring_element import ball_element, box_element, cylinder_element
from ._voxel_scan import VoxelScan, voxel_scan
from ._window import gaussian_importance, patch_grid

__all__ = [
    "BoundaryPosterior",
    "ClassIndex",
    "GroupExtrema",
    "Overlap",
    "Reoriented",
    "VoxelScan",
    "affine_axcodes",
    "affine_shear",
    "affine_spacing",
    "axes_towards",
    "ball_element",
    "binary_closing",
    "binary_dilation",
    "binary_erosion",
    "binary_opening",
    "boundaries_from_probabilities",
    "boundaries_to_mask",
    "boundary_posterior",
    "box_element",
    "channels_first",
    "channels_last",
    "class_index",
    "connected_components",
    "corner_indices",
    "cylinder_element",
    "distance_transform",
    "fill_holes",
    "flip_affine",
    "gaussian_importance",
    "hard_overlap",
    "hysteresis_threshold",
    "keep_largest_component",
    "map_error",
    "mask_to_boundaries",
    "one_hot",
    "patch_grid",
    "permute_affine",
    "ras_to_lps",
    "remove_small_components",
    "reorient",
    "resample",
    "resample_to_grid",
    "rescale_affine",
    "rescale_boundaries",
    "scatter_max",
    "scatter_mean",
    "scatter_min",
    "scatter_sum",
    "segment_mean",
    "segment_sum",
    "soft_dilate",
    "soft_erode",
    "soft_open",
    "soft_skeletonize",
    "transform_points",
    "translate_affine",
    "voxel_scan",
]
