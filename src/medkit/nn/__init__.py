"""Networks and their blocks, 2D and 3D."""

from ._attention_gate import AttentionGate2D, AttentionGate3D
from ._axial_attention import AxialAttention2D, AxialAttention3D
from ._cbam import CBAM2D, CBAM3D
from ._coordinate_mlp import CoordinateMLP
from ._depthwise_separable_conv import DepthwiseSeparableConv2D, DepthwiseSeparableConv3D
from ._drop_path import DropPath
from ._edges import sobel_magnitude
from ._efficient_channel_attention import (
    EfficientChannelAttention2D,
    EfficientChannelAttention3D,
)
from ._fourier_features import FourierFeatures
from ._fused_mbconv import FusedMBConv2D, FusedMBConv3D
from ._hybrid_attention_unet import HybridAttentionUNet
from ._hybrid_encoder_block import HybridEncoderBlock2D, HybridEncoderBlock3D
from ._hybrid_unet import HybridUNet3D
from ._inflate import inflate_weights
from ._keras_resnet_v2 import KerasResNetV2
from ._mbconv import MBConv2D, MBConv3D
from ._mix_transformer import MixTransformer2D, MixTransformer3D
from ._multi_head_self_attention import MultiHeadSelfAttention2D, MultiHeadSelfAttention3D
from ._patch_embed import PatchEmbed2D, PatchEmbed3D
from ._segformer import SegFormer2D, SegFormer3D
from ._shuffle_attention import ShuffleAttention2D, ShuffleAttention3D
from ._sine import Sine
from ._spatial_reduction_attention import (
    SpatialReductionAttention2D,
    SpatialReductionAttention3D,
)
from ._squeeze_excite import SqueezeExcite2D, SqueezeExcite3D
from ._timm import TimmUNet, timm_encoder
from ._unet import DeepSupervised, UNet2D, UNet3D
from ._window_attention import WindowAttention2D, WindowAttention3D

__all__ = [
    "CBAM2D",
    "CBAM3D",
    "AttentionGate2D",
    "AttentionGate3D",
    "AxialAttention2D",
    "AxialAttention3D",
    "CoordinateMLP",
    "DeepSupervised",
    "DepthwiseSeparableConv2D",
    "DepthwiseSeparableConv3D",
    "DropPath",
    "EfficientChannelAttention2D",
    "EfficientChannelAttention3D",
    "FourierFeatures",
    "FusedMBConv2D",
    "FusedMBConv3D",
    "HybridAttentionUNet",
    "HybridEncoderBlock2D",
    "HybridEncoderBlock3D",
    "HybridUNet3D",
    "KerasResNetV2",
    "MBConv2D",
    "MBConv3D",
    "MixTransformer2D",
    "MixTransformer3D",
    "MultiHeadSelfAttention2D",
    "MultiHeadSelfAttention3D",
    "PatchEmbed2D",
    "PatchEmbed3D",
    "SegFormer2D",
    "SegFormer3D",
    "ShuffleAttention2D",
    "ShuffleAttention3D",
    "Sine",
    "SpatialReductionAttention2D",
    "SpatialReductionAttention3D",
    "SqueezeExcite2D",
    "SqueezeExcite3D",
    "TimmUNet",
    "UNet2D",
    "UNet3D",
    "WindowAttention2D",
    "WindowAttention3D",
    "inflate_weights",
    "sobel_magnitude",
    "timm_encoder",
]
