"""The U-Net with edge and spatial attention on its skip connections, for layers of the retina."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._edges import sobel_magnitude
from ._factory import Factory
from ._image import check_image
from ._on_grid import on_grid
from ._recompute import run
from ._skip_attention import EdgeAttention, SpatialAttention

LEVELS = 5
SMALLEST = 16


class EncoderMaps(NamedTuple):
    """Maps of the encoder at 1, 1/2, 1/4, 1/8 and 1/16 of the resolution."""

    e1: Float[Tensor, "batch c1 h1 w1"]
    e2: Float[Tensor, "batch c2 h2 w2"]
    e3: Float[Tensor, "batch c3 h3 w3"]
    e4: Float[Tensor, "batch c4 h4 w4"]
    bottleneck: Float[Tensor, "batch c5 h5 w5"]


class HybridAttentionUNet(nn.Module):
    r"""Segments layers of the retina with edge attention on fine skips, spatial on coarse ones.

    Five levels of two 3x3 convolutions with batch normalisation and ReLU, of ``base_channels``
    times 1, 2, 4, 8 and 16 channels. The skip ``x`` of each level meets the coarser map ``g`` of
    the decoder in a gate before the two are joined:

    .. math::
        a = x \cdot \sigma\bigl(\psi\, \mathrm{ReLU}(\mathrm{Up}(W_g g) + W_x x)\bigr), \qquad
        \text{edge: } \mathrm{Conv}_3[a, E(x)], \qquad
        \text{spatial: } x + \mathrm{Conv}_3 \mathrm{Conv}_3\, a

    with edge attention on the two finest levels, ``E`` being an image of edges, and spatial
    attention on the two below. Use it for B-scans of optical coherence tomography, with
    ``medkit.losses.LayerBoundaryLoss``. Parameters: 9,429,839 with 32 base channels, 37,688,975
    with 64; 90 and 359 billion multiply-adds for 480 x 768 pixels.

    Height and width may be anything from 16 on: pooling rounds sizes up, and what comes back up
    is cropped to its skip. While training, a batch of one needs more than 16 along an axis.

    Tensors are named as in the published program, whose checkpoints load with
    ``load_state_dict``. It differs in ``E``: there, OpenCV's Canny filter on the first channel of
    each map, which passes no gradient and runs on the CPU. A checkpoint trained so wants such an
    image here too: pass a function of your own as ``edges``.

    Args:
        in_channels: Channels of the input, 1 for B-scans.
        num_classes: Channels of the output.
        base_channels: Channels of the first level; 64 as published, 32 in its smaller setting.
        edges: Function from a map ``(batch, channel, height, width)`` to its edge image
            ``(batch, 1, height, width)``, called on the maps of the two finest levels; None takes
            ``sobel_magnitude``.
        dropout: Probability of dropping a channel of the bottleneck and of the decoder's maps at
            1/8 and 1/4 of the resolution, in [0, 1), for samples of an uncertainty.
        checkpoint: Whether to keep only the inputs of each block while training and to compute
            the block again in the backward pass: less memory for more time, the same numbers.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels or is smaller than 16 along an axis.

    Example:
        >>> import torch
        >>> model = HybridAttentionUNet(in_channels=1, num_classes=3, base_channels=32).eval()
        >>> model(torch.zeros(1, 1, 62, 96)).shape
        torch.Size([1, 3, 62, 96])
        >>> sum(parameter.numel() for parameter in model.parameters())
        9429839

    References:
        P. K. Karn, W. H. Abdulla. Advancing Ocular Imaging: A Hybrid Attention Mechanism-Based
        U-Net Model for Precise Segmentation of Sub-Retinal Layers in OCT Images. Bioengineering
        11(3):240, 2024, section 3.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 3,
        *,
        base_channels: int = 64,
        edges: Callable[[Tensor], Tensor] | None = None,
        dropout: float = 0.0,
        checkpoint: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: Factory = {"device": device, "dtype": dtype}
        self.in_channels: int = check.integer("in_channels", in_channels, minimum=1)
        base = check.integer("base_channels", base_channels, minimum=1)
        classes = check.integer("num_classes", num_classes, minimum=1)
        c = [base * 2**level for level in range(LEVELS)]
        self.edges: Callable[[Tensor], Tensor] = sobel_magnitude if edges is None else edges
        self.checkpoint = checkpoint
        for level in range(1, LEVELS):
            below = self.in_channels if level == 1 else c[level - 2]
            self.add_module(f"encoder{level}", DoubleConv(below, c[level - 1], factory))
        self.bottleneck: DoubleConv = DoubleConv(c[3], c[4], factory)
        for level in range(LEVELS - 1, 0, -1):
            here, coarser = c[level - 1], c[level]
            self.add_module(f"upconv{level}", UpConv(coarser, here, factory))
            self.add_module(f"decoder{level}", DoubleConv(coarser, here, factory))
        self.edge_att1: EdgeAttention = EdgeAttention(c[0], c[1], factory)
        self.edge_att2: EdgeAttention = EdgeAttention(c[1], c[2], factory)
        self.spatial_att3: SpatialAttention = SpatialAttention(c[2], c[3], factory)
        self.spatial_att4: SpatialAttention = SpatialAttention(c[3], c[4], factory)
        self.final_conv: nn.Conv2d = nn.Conv2d(c[0], classes, 1, **factory)
        self.pool: nn.MaxPool2d = nn.MaxPool2d(2, ceil_mode=True)
        self.dropout: nn.Dropout2d = nn.Dropout2d(
            check.fraction("dropout", dropout, below_one=True)
        )
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        input: Float[Tensor, "batch in_channels height width"],
        *,
        edges: Float[Tensor, "batch 1 height width"] | None = None,
    ) -> Float[Tensor, "batch num_classes height width"]:
        """Return the logits of every class at every pixel.

        Args:
            input: B-scans of at least 16 pixels along both axes.
            edges: Edge image made beforehand, resized to both levels instead of calling the
                function; None calls it.
        """
        maps = self.features(input)
        output = self.dropout(maps.bottleneck)
        for level in (4, 3, 2, 1):
            output = self._join(level, maps[level - 1], output, edges)
            if level > 2:
                output = self.dropout(output)
        return self.final_conv(output)

    def features(self, input: Float[Tensor, "batch in_channels height width"]) -> EncoderMaps:
        """Return the encoder's maps at 1, 1/2, 1/4, 1/8 and 1/16 of the resolution.

        Args:
            input: As in ``forward``.
        """
        check_image(input, channels=self.in_channels, dims=2, minimum=SMALLEST)
        maps: list[Tensor] = []
        output = input
        for name in ("encoder1", "encoder2", "encoder3", "encoder4", "bottleneck"):
            output = self.pool(output) if maps else output
            output = run(self.get_submodule(name), output, recompute=self.checkpoint)
            maps.append(output)
        return EncoderMaps(*maps)

    def _join(self, level: int, skip: Tensor, coarser: Tensor, edges: Tensor | None) -> Tensor:
        """Return the decoder's map of a level, from the encoder's and from the coarser one."""
        height, width = skip.shape[2:]
        up = on_grid(self.get_submodule(f"upconv{level}")(coarser), (height, width))
        attention = self.get_submodule(f"{'edge' if level < 3 else 'spatial'}_att{level}")
        more: tuple[Tensor, ...] = ()
        if level < 3:
            more = (self.edges(skip) if edges is None else _resize(edges, height, width),)
        attended = run(attention, skip, coarser, *more, recompute=self.checkpoint)
        joined = torch.cat((up, attended), 1)
        return run(self.get_submodule(f"decoder{level}"), joined, recompute=self.checkpoint)


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, factory: Factory) -> None:
        super().__init__()
        self.conv_block: nn.Sequential = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, **factory),
            nn.BatchNorm2d(out_channels, **factory),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, **factory),
            nn.BatchNorm2d(out_channels, **factory),
            nn.ReLU(inplace=True),
        )

    def forward(
        self, input: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Return the map of the level."""
        return self.conv_block(input)


class UpConv(nn.Module):
    """A transposed 2x2 convolution to twice the size."""

    def __init__(self, in_channels: int, out_channels: int, factory: Factory) -> None:
        super().__init__()
        self.up: nn.ConvTranspose2d = nn.ConvTranspose2d(
            in_channels, out_channels, 2, stride=2, **factory
        )

    def forward(
        self, input: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels double_height double_width"]:
        """Return the map at twice the size."""
        return self.up(input)


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(image, size=(height, width), mode="bilinear")
