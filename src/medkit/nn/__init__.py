"""Networks and their blocks, 2D and 3D."""

from medkit.nn._drop_path import DropPath
from medkit.nn._mix_transformer import MixTransformer3D
from medkit.nn._patch_embed import PatchEmbed3D
from medkit.nn._segformer import SegFormer3D

__all__ = ["DropPath", "MixTransformer3D", "PatchEmbed3D", "SegFormer3D"]
