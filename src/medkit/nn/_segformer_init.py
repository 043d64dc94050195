"""Initial weights of a SegFormer, as published or as Keras draws them."""

import math
from typing import Literal

from torch import nn

from ._depthwise_conv import DepthwiseConv
from ._pointwise_conv import PointwiseConv
from ._spatial_reduction_attention import SpatialReductionAttention

Layer = nn.Linear | nn.Conv2d | nn.Conv3d | DepthwiseConv | PointwiseConv
LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d, DepthwiseConv, PointwiseConv)


def init_weights(module: nn.Module, *, init: Literal["segformer3d", "glorot"]) -> None:
    """Draw the weights of all linear layers and convolutions anew, and set their biases to 0.

    ``"segformer3d"``: linear weights normal with standard deviation 0.02, convolutions normal
    with variance ``2 / fan_out`` (He et al. 2015), where ``fan_out`` counts one group.
    ``"glorot"``: all uniform with variance ``2 / (fan_in + fan_out)`` (Glorot and Bengio 2010),
    where key and value are two layers.
    """
    for part in module.modules():
        if isinstance(part, LAYERS):
            _init_layer(part, init=init)
    for part in module.modules():
        if isinstance(part, SpatialReductionAttention) and init == "glorot":
            for half in part.key_value.weight.chunk(2):
                nn.init.xavier_uniform_(half)


def _init_layer(
    layer: Layer,
    *,
    init: Literal["segformer3d", "glorot"],
) -> None:
    if init == "glorot":
        nn.init.xavier_uniform_(layer.weight)
    elif isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
    else:
        out_channels, _, *kernel = layer.weight.shape
        groups = out_channels if isinstance(layer, DepthwiseConv) else 1
        fan_out = out_channels * math.prod(kernel) / groups
        nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
