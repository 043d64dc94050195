"""Pure functions on tensors: no module, no state, no files."""

from medkit.ops._one_hot import class_index, one_hot
from medkit.ops._overlap import Overlap, overlap
from medkit.ops._scatter import GroupExtrema, scatter_max, scatter_mean, scatter_min, scatter_sum
from medkit.ops._segment import segment_mean, segment_sum
from medkit.ops._window import gaussian_importance, patch_grid

__all__ = [
    "GroupExtrema",
    "Overlap",
    "class_index",
    "gaussian_importance",
    "one_hot",
    "overlap",
    "patch_grid",
    "scatter_max",
    "scatter_mean",
    "scatter_min",
    "scatter_sum",
    "segment_mean",
    "segment_sum",
]
