"""Networks and their blocks, 2D and 3D."""

from medkit.nn._coordinate_mlp import CoordinateMLP
from medkit.nn._drop_path import DropPath
from medkit.nn._fourier_features import FourierFeatures
from medkit.nn._mix_transformer import MixTransformer3D
from medkit.nn._patch_embed import PatchEmbed3D
from medkit.nn._segformer import SegFormer2D, SegFormer3D
from medkit.nn._sine import Sine

__all__ = [
    "CoordinateMLP",
    "DropPath",
    "FourierFeatures",
    "MixTransformer3D",
    "PatchEmbed3D",
    "SegFormer2D",
    "SegFormer3D",
    "Sine",
]
