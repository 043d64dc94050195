"""Pure functions on tensors: no module, no state, no files."""

from medkit.ops._one_hot import class_index, one_hot
from medkit.ops._overlap import Overlap, overlap
from medkit.ops._window import gaussian_importance, patch_grid

__all__ = ["Overlap", "class_index", "gaussian_importance", "one_hot", "overlap", "patch_grid"]
