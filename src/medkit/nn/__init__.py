"""Networks and their blocks, 2D and 3D."""

from medkit.nn._coordinate_mlp import CoordinateMLP
from medkit.nn._drop_path import DropPath
from medkit.nn._edges import sobel_magnitude
from medkit.nn._fourier_features import FourierFeatures
from medkit.nn._hybrid_attention_unet import HybridAttentionUNet
from medkit.nn._mix_transformer import MixTransformer3D
from medkit.nn._patch_embed import PatchEmbed3D
from medkit.nn._segformer import SegFormer2D, SegFormer3D
from medkit.nn._sine import Sine
from medkit.nn._unet import DeepSupervised, UNet2D, UNet3D

__all__ = [
    "CoordinateMLP",
    "DeepSupervised",
    "DropPath",
    "FourierFeatures",
    "HybridAttentionUNet",
    "MixTransformer3D",
    "PatchEmbed3D",
    "SegFormer2D",
    "SegFormer3D",
    "Sine",
    "UNet2D",
    "UNet3D",
    "sobel_magnitude",
]
