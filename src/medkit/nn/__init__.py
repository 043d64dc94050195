"""Networks and their blocks, 2D and 3D."""

from medkit.nn._drop_path import DropPath
from medkit.nn._segformer import SegFormer3D

__all__ = ["DropPath", "SegFormer3D"]
