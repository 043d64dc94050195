"""A U-Net of inverted bottlenecks, with transformers where its maps are coarse."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._drop_path import DropPath
from ._factory import Factory
from ._hybrid_encoder_block import HybridEncoderBlock3D, Transformer
from ._image import check_image
from ._norm import INSTANCE_NORM
from ._on_grid import on_grid
from ._recompute import run

Attention = Literal["axial", "window", "reduced"]

BASE_CHANNELS = {"s": 16, "m": 32, "l": 48}
LEVELS = 5
ATTENDED = 2
"""Level of the first transformer: its grid is 4 times coarser along each axis."""
SHUFFLE_GROUPS = 8


class _Layers(NamedTuple):
    """What the layers of the network are made with."""

    attention: Attention
    norm: Callable[..., nn.Module]
    activation: Callable[[], nn.Module]
    factory: Factory

    def conv(self, in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
        """Return a 3x3x3 convolution with norm and activation."""
        return nn.Sequential(
            nn.Conv3d(
                in_channels, out_channels, 3, stride=stride, padding=1, bias=False, **self.factory
            ),
            self.norm(out_channels, **self.factory),
            self.activation(),
        )

    def block(
        self, in_channels: int, out_channels: int, *, level: int, attends: bool, rate: float
    ) -> HybridEncoderBlock3D:
        """Return the block of a level."""
        kind: Transformer = self.attention if level == ATTENDED else "full"
        return HybridEncoderBlock3D(
            in_channels,
            out_channels,
            transformer=kind if attends else None,
            sr_ratio=4,
            shuffle_groups=math.gcd(SHUFFLE_GROUPS, out_channels // 2),
            expand_ratio=4 * out_channels // in_channels,
            norm=self.norm,
            activation=self.activation,
            drop=partial(DropPath, rate),
            **self.factory,
        )


class HybridUNet3D(nn.Module):
    r"""Segments volumes with a U-Net of inverted bottlenecks and, at coarse levels, transformers.

    Five levels of ``base_channels`` times 1, 2, 4, 8 and 16 channels, each a
    ``HybridEncoderBlock3D``: two MBConv blocks and shuffle attention, and from the third level on
    a transformer between them. Its attention is "axial", "window" or "reduced" on the third level
    and full on the coarser ones. Strided convolutions lead down; transposed ones lead up, where a
    block takes the map and the skip connection, with a transformer on the coarsest of them.

    =======  =============  ==========  =============  =============================
    variant  base channels  parameters  multiply-adds  memory to train
    =======  =============  ==========  =============  =============================
    "s"      16              5,175,123     76 billion   4 GB (12 without checkpoint)
    "m"      32             20,325,539    244 billion   8 GB (23 without checkpoint)
    "l"      48             45,451,251    505 billion  12 GB (34 without checkpoint)
    =======  =============  ==========  =============  =============================

    The last two columns are for one volume of 4 x 128^3. Memory is counted, not measured, for
    bfloat16 activations and ``checkpoint=True``: weights, gradients and the two moments of an
    optimiser in float32, what is kept for the backward pass, and what the largest part needs
    while it is computed again. No matrix of all pairs of voxels is ever built on the third
    level: for 8 heads it alone would take 17 GB.

    Any size works: strides round up, and what comes back up is cropped to its skip. While
    training, a volume needs more than 16 voxels along an axis. ``deep_supervision`` adds heads on
    the maps at 1/2, 1/4 and 1/8 of the resolution, which ``DeepSupervised(model)`` returns beside
    the logits of ``forward``. Dropout follows the bottleneck and every block of the decoder, so
    that samples with dropout left on differ wherever the network is unsure, and not in the stem.

    The design follows a brain tumour network whose published settings do not run. Differences:
    attention that fits in memory; squeeze and excitation and channel shuffle as in their papers;
    drop path reaches ``drop_path_rate`` in the bottleneck; heads of one convolution; the
    bottlenecks of the decoder expand their input twice, those of the encoder four times.

    Args:
        in_channels: Channels of the input, e.g. MR sequences.
        num_classes: Channels of the output.
        variant: Size of the network.
        base_channels: Channels of the first level, an even number; None takes the variant's.
        attention: Attention of the third level.
        deep_supervision: Number of heads on coarser maps of the decoder, at most 3.
        norm: Makes the norm after a convolution, called with the number of channels, ``device``
            and ``dtype``; None is instance norm with a learned scale and shift.
        activation: Makes the activations.
        dropout: Probability of dropping a channel after a block of the decoder, in [0, 1).
        drop_path_rate: Probability of dropping the branches of the bottleneck for a sample while
            training, in [0, 1); it grows linearly from 0 at the first level, and each level of
            the decoder has that of its encoder.
        checkpoint: Whether to keep only the inputs of each bottleneck and transformer while
            training and to compute it again in the backward pass: less memory for more time, the
            same numbers.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> model = HybridUNet3D(in_channels=4, num_classes=3, base_channels=4).eval()
        >>> model(torch.zeros(1, 4, 32, 30, 17)).shape
        torch.Size([1, 3, 32, 30, 17])

    References:
        M. Tan, Q. V. Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks.
        ICML 2019, section 4 (MBConv).
        J. Ho, N. Kalchbrenner, D. Weissenborn, T. Salimans. Axial Attention in Multidimensional
        Transformers. arXiv:1912.12180, 2019, section 3.
        Q.-L. Zhang, Y.-B. Yang. SA-Net: Shuffle Attention for Deep Convolutional Neural Networks.
        ICASSP 2021, section 3.
    """

    def __init__(
        self,
        in_channels: int = 4,
        num_classes: int = 3,
        *,
        variant: Literal["s", "m", "l"] = "m",
        base_channels: int | None = None,
        attention: Attention = "axial",
        deep_supervision: int = 0,
        norm: Callable[..., nn.Module] | None = None,
        activation: Callable[[], nn.Module] = nn.SiLU,
        dropout: float = 0.1,
        drop_path_rate: float = 0.1,
        checkpoint: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels: int = check.integer("in_channels", in_channels, minimum=1)
        check.one_of("variant", variant, BASE_CHANNELS)
        check.one_of("attention", attention, ("axial", "window", "reduced"))
        base = BASE_CHANNELS[variant] if base_channels is None else base_channels
        if check.integer("base_channels", base, minimum=2) % 2:
            raise check.fail("base_channels", "even", base)
        rate = check.fraction("drop_path_rate", drop_path_rate, below_one=True)
        self.checkpoint = checkpoint
        layers = _Layers(
            attention,
            INSTANCE_NORM[3] if norm is None else norm,
            activation,
            {"device": device, "dtype": dtype},
        )
        channels = [base * 2**level for level in range(LEVELS)]
        rates = [rate * level / (LEVELS - 1) for level in range(LEVELS)]
        self._add_encoder(channels, rates, layers)
        self._add_decoder(channels, rates, layers)
        self.dropout: nn.Dropout3d = nn.Dropout3d(
            check.fraction("dropout", dropout, below_one=True)
        )
        coarser = check.integer("deep_supervision", deep_supervision, minimum=0)
        if coarser > LEVELS - 2:
            raise check.fail("deep_supervision", f"at most {LEVELS - 2}", coarser)
        classes = check.integer("num_classes", num_classes, minimum=1)
        self.heads: nn.ModuleList = nn.ModuleList(
            nn.Conv3d(width, classes, 1, **layers.factory) for width in channels[: coarser + 1]
        )

    def _add_encoder(self, channels: list[int], rates: list[float], layers: _Layers) -> None:
        self.downs: nn.ModuleList = nn.ModuleList()
        self.encoder: nn.ModuleList = nn.ModuleList()
        before = self.in_channels
        for level, width in enumerate(channels):
            self.downs.append(layers.conv(before, width, stride=2 if level else 1))
            attends = level >= ATTENDED
            self.encoder.append(
                layers.block(width, width, level=level, attends=attends, rate=rates[level])
            )
            before = width

    def _add_decoder(self, channels: list[int], rates: list[float], layers: _Layers) -> None:
        self.ups: nn.ModuleList = nn.ModuleList()
        self.decoder: nn.ModuleList = nn.ModuleList()
        for level in reversed(range(LEVELS - 1)):
            width, attends = channels[level], level == LEVELS - 2
            up = nn.ConvTranspose3d(
                channels[level + 1], width, 2, stride=2, bias=False, **layers.factory
            )
            self.ups.append(up)
            self.decoder.append(
                layers.block(2 * width, width, level=level, attends=attends, rate=rates[level])
            )

    def forward(
        self, input: Float[Tensor, "batch in_channels d h w"]
    ) -> Float[Tensor, "batch num_classes d h w"]:
        """Return the logits of every class at every voxel.

        Args:
            input: Volume of any size.
        """
        return self._logits(input, 1)[0]

    def deep_logits(
        self, input: Float[Tensor, "batch in_channels d h w"]
    ) -> list[Float[Tensor, "batch num_classes ..."]]:
        """Return the logits of all heads, finest first, each on its own grid.

        Args:
            input: As in ``forward``.
        """
        return self._logits(input, len(self.heads))

    def features(
        self, input: Float[Tensor, "batch in_channels d h w"]
    ) -> list[Float[Tensor, "batch _ ..."]]:
        """Return the encoder's maps at 1, 1/2, 1/4, 1/8 and 1/16 of the resolution.

        Args:
            input: As in ``forward``.
        """
        check_image(input, channels=self.in_channels, dims=3)
        maps: list[Tensor] = []
        for down, block in zip(self.downs, self.encoder, strict=True):
            output = run(down, maps[-1] if maps else input, recompute=self.checkpoint)
            maps.append(self._refine(block, output))
        return maps

    def _logits(self, input: Tensor, count: int) -> list[Tensor]:
        maps = self.features(input)
        output = self.dropout(maps.pop())
        decoded: list[Tensor] = []
        for up, block in zip(self.ups, self.decoder, strict=True):
            skip = maps.pop()
            joined = torch.cat((on_grid(up(output), skip.shape[2:]), skip), 1)
            output = self.dropout(self._refine(block, joined))
            decoded.insert(0, output)
        return [head(m) for head, m in zip(self.heads[:count], decoded[:count], strict=True)]

    def _refine(self, block: nn.Module, input: Tensor) -> Tensor:
        """Return the output of a block, whose parts are computed again one by one if asked for."""
        if not self.checkpoint:
            return block(input)
        output = input
        parts = cast("HybridEncoderBlock3D", block)
        for part in (parts.mbconv1, parts.mbconv2, parts.transformer, parts.shuffle_attention):
            output = run(part, output, recompute=True)
        return output
