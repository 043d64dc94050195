"""U-Net, for images and for volumes, plain or residual, around any encoder."""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._image import check_image
from ._linear_resize import resize_linear
from ._norm import INSTANCE_NORM
from ._unet_decoder import UNetDecoder
from ._unet_encoder import CONV, Layers, PerAxis, UNetEncoder

CHANNELS = {2: (32, 64, 128, 256, 512, 512), 3: (32, 64, 128, 256, 320, 320)}
SLOPE = 0.01


class UNet(nn.Module):
    """What the networks for images and volumes have in common; not for use itself."""

    spatial_dims: ClassVar[int]

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        *,
        channels: Sequence[int] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        depths: Sequence[int] | None = None,
        residual: bool = False,
        encoder: nn.Module | None = None,
        decoder_channels: Sequence[int] | None = None,
        deep_supervision: int = 0,
        norm: Callable[..., nn.Module] | None = None,
        activation: Callable[[], nn.Module] | None = None,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        checkpoint: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dims = self.spatial_dims
        self.in_channels: int = check.integer("in_channels", in_channels, minimum=1)
        sizes = _channels(channels, encoder, dims)
        steps = _per_level("strides", _strides(strides, encoder, len(sizes)), len(sizes), dims)
        self._one_position: PerAxis = tuple(prod(axis) for axis in zip(*steps, strict=True))
        kernels = _kernels(kernel_sizes or (3,) * len(sizes), len(sizes), dims)
        rate = check.fraction("drop_path_rate", drop_path_rate, below_one=True)
        if rate and not (residual and encoder is None):
            raise check.fail("drop_path_rate", "0 where no encoder block is residual", rate)
        layers = Layers(
            dims,
            INSTANCE_NORM[dims] if norm is None else norm,
            partial(nn.LeakyReLU, SLOPE, inplace=True) if activation is None else activation,
            check.fraction("dropout", dropout, below_one=True),
            {"device": device, "dtype": dtype},
        )
        self.encoder: nn.Module = encoder or UNetEncoder(
            self.in_channels,
            sizes,
            layers,
            strides=steps,
            kernel_sizes=kernels,
            depths=_depths(depths, len(sizes)),
            residual=residual,
            drop_path_rate=rate,
            checkpoint=checkpoint,
        )
        widths = tuple(sizes[:-1] if decoder_channels is None else decoder_channels)
        if len(widths) != len(sizes) - 1:
            raise check.fail("decoder_channels", f"{len(sizes) - 1} numbers", decoder_channels)
        self.decoder: UNetDecoder = UNetDecoder(
            sizes, widths, layers, strides=steps, kernel_sizes=kernels, checkpoint=checkpoint
        )
        self.is_coarse: bool = any(stride > 1 for stride in steps[0])
        self._add_heads(widths, num_classes, deep_supervision, layers)
        for part in (self,) if encoder is None else (self.decoder, self.heads):
            part.apply(_init_weights)

    def _add_heads(
        self, widths: Sequence[int], num_classes: int, deep_supervision: int, layers: Layers
    ) -> None:
        classes = check.integer("num_classes", num_classes, minimum=1)
        coarser = check.integer("deep_supervision", deep_supervision, minimum=0)
        if coarser >= len(widths):
            raise check.fail("deep_supervision", f"below {len(widths)}", coarser)
        conv = CONV[self.spatial_dims]
        self.heads: nn.ModuleList = nn.ModuleList(
            conv(width, classes, 1, **layers.factory) for width in widths[: coarser + 1]
        )

    def forward(
        self, input: Float[Tensor, "batch in_channels *size"]
    ) -> Float[Tensor, "batch num_classes *size"]:
        """Return the logits of every class at every position.

        Args:
            input: Image of any size, as long as the coarsest map has more than one position.
        """
        return self._logits(input, 1)[0]

    def deep_logits(
        self, input: Float[Tensor, "batch in_channels *size"]
    ) -> list[Float[Tensor, "batch num_classes ..."]]:
        """Return the logits of all heads, finest first, each on its own grid.

        The first are those of ``forward``; ``deep_supervision`` coarser ones follow.
        ``DeepSupervised`` makes this the call of a module.

        Args:
            input: As in ``forward``.
        """
        return self._logits(input, len(self.heads))

    def features(
        self, input: Float[Tensor, "batch in_channels *size"]
    ) -> list[Float[Tensor, "batch _ ..."]]:
        """Return the encoder's maps, finest first.

        Args:
            input: As in ``forward``.
        """
        weight = cast("Tensor", self.heads[0].weight)
        check_image(input, channels=self.in_channels, dims=self.spatial_dims, weight=weight)
        if not torch.compiler.is_compiling():
            self._check_positions(input)
        return list(cast("Sequence[Tensor]", self.encoder(input)))

    def _check_positions(self, input: Tensor) -> None:
        """Raise where the coarsest map has one position, of which instance norm makes nothing."""
        size, largest = input.shape[2:], self._one_position
        any_left = any(n > most for n, most in zip(size, largest, strict=True))
        if any_left or not isinstance(self.encoder, UNetEncoder):
            return
        if any(_needs_positions(module) for module in self.encoder.modules()):
            bound = largest[0] if len(set(largest)) == 1 else largest
            rule = f"larger than {bound} along at least one axis for these strides"
            got = f"shape {tuple(input.shape)}; use fewer levels or another norm"
            raise check.fail("input", rule, got)

    def _logits(self, input: Tensor, count: int) -> list[Tensor]:
        maps: list[Tensor] = self.decoder(self.features(input))
        logits = [head(m) for head, m in zip(self.heads[:count], maps[:count], strict=True)]
        if self.is_coarse:
            logits[0] = resize_linear(logits[0], input.shape[2:])
        return logits


class UNet2D(UNet):
    """Segments images with a U-Net; ``UNet3D`` in two dimensions, which says the rest.

    The default network has six levels of 32 to 512 channels and 20.6 million parameters.

    Args:
        in_channels: Channels of the input.
        num_classes: Channels of the output.
        channels: Channels of each level of the encoder.
        strides: How many times coarser each level is than the one before.
        kernel_sizes: Sizes of the kernels of each level, odd.
        depths: Blocks of two convolutions at each level of the encoder.
        residual: Whether the encoder's blocks have a shortcut.
        encoder: Module that returns maps, finest first, in place of the encoder of convolutions.
        decoder_channels: Channels of the decoder at every level but the coarsest.
        deep_supervision: Number of heads on coarser maps of the decoder.
        norm: Makes the norm after a convolution.
        activation: Makes the activations.
        dropout: Probability of dropping a channel after each block while training, in [0, 1).
        drop_path_rate: Probability of dropping the branch of the last encoder block.
        checkpoint: Whether to compute each level again in the backward pass.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        TypeError: If an argument or the input is of another type.
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels, or is too small for the levels.

    Example:
        >>> import torch
        >>> model = UNet2D(in_channels=3, num_classes=4, channels=(16, 32, 64)).eval()
        >>> model(torch.zeros(1, 3, 61, 100)).shape
        torch.Size([1, 4, 61, 100])

    References:
        O. Ronneberger, P. Fischer, T. Brox. U-Net: Convolutional Networks for Biomedical Image
        Segmentation. MICCAI 2015, section 2.
    """

    spatial_dims = 2


class UNet3D(UNet):
    """Segments volumes with a U-Net in the form that nnU-Net gives it.

    Blocks of two convolutions, each with instance norm and leaky ReLU; the first of a level has
    its stride. Transposed convolutions bring maps back up, where they join those of the encoder.
    The default has six levels of 32 to 320 channels and 31.2 million parameters, and takes 477
    billion multiply-adds at 128^3 voxels. With anisotropic spacing, give strides and kernels by
    axis, e.g. ``strides=(1, (1, 2, 2), 2, 2)`` and ``kernel_sizes=((1, 3, 3), 3, 3, 3)``.

    Any size works: an axis of ``n`` voxels becomes ``ceil(n / stride)``, and what comes back up is
    cropped to its skip. The coarsest map needs more than one position, since one alone has no
    variance to normalise by.

    ``forward`` always returns one tensor. With ``deep_supervision=2`` there are two more heads, on
    the maps of the decoder at 1/2 and 1/4 of the resolution by default; ``deep_logits`` returns
    the logits of all of them, finest first and not resized. Train ``DeepSupervised(model)``, which
    calls that, and use ``model`` itself otherwise.

    With the same weights the logits are those of MONAI's ``DynUNet``, plain or residual, wherever
    neighbouring levels have one kernel size; the decoder here takes the kernel of the skip
    connection, as nnU-Net does, and MONAI that of the level below.

    Args:
        in_channels: Channels of the input.
        num_classes: Channels of the output.
        channels: Channels of each level of the encoder; None takes those of ``encoder``, or the
            default.
        strides: How many times coarser each level is than the one before, one number or one for
            each axis; the first belongs to the first level. None takes those of ``encoder``, or
            1, 2, 2, and so on. Logits of a first level coarser than the input are resized to it.
        kernel_sizes: Sizes of the kernels of each level, odd, one number or one for each axis;
            None is 3.
        depths: Blocks of two convolutions at each level of the encoder; None is one.
        residual: Whether the encoder's blocks have a shortcut, by a convolution where the size
            changes.
        encoder: Module that returns maps, finest first, in place of the encoder of convolutions,
            e.g. ``MixTransformer3D`` or a ``timm_encoder``. ``channels`` and ``strides`` must then
            describe its maps; its attributes of these names do, if it has them.
        decoder_channels: Channels of the decoder at every level but the coarsest, finest first;
            None takes those of the encoder.
        deep_supervision: Number of heads on coarser maps of the decoder.
        norm: Makes the norm after a convolution, called with the number of channels, ``device``
            and ``dtype``, e.g. ``partial(nn.GroupNorm, 8)``; None is instance norm with a learned
            scale and shift. The convolutions before it have no bias.
        activation: Makes the activations; None is leaky ReLU with a slope of 0.01.
        dropout: Probability of dropping a channel after each block while training, in [0, 1).
        drop_path_rate: Probability of dropping the branch of the last encoder block for a sample
            while training; it grows linearly from 0 at the first. For residual blocks.
        checkpoint: Whether to keep only the inputs of each level while training and to compute
            the level again in the backward pass: less memory for more time, the same numbers.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        TypeError: If an argument or the input is of another type.
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels, or is too small for the levels.

    Example:
        >>> import torch
        >>> model = UNet3D(in_channels=1, num_classes=2, channels=(8, 16, 32), deep_supervision=1)
        >>> model(torch.zeros(1, 1, 20, 24, 17)).shape
        torch.Size([1, 2, 20, 24, 17])
        >>> [tuple(logits.shape[2:]) for logits in model.deep_logits(torch.zeros(1, 1, 20, 24, 17))]
        [(20, 24, 17), (10, 12, 9)]

    References:
        F. Isensee, P. F. Jaeger, S. A. A. Kohl, J. Petersen, K. H. Maier-Hein. nnU-Net: a
        self-configuring method for deep learning-based biomedical image segmentation. Nature
        Methods 18, 203-211 (2021), supplementary note 2.
        O. Cicek, A. Abdulkadir, S. S. Lienkamp, T. Brox, O. Ronneberger. 3D U-Net: Learning Dense
        Volumetric Segmentation from Sparse Annotation. MICCAI 2016, section 2.
    """

    spatial_dims = 3


class DeepSupervised(nn.Module):
    """Calls a network so that it returns the logits of all its heads, finest first.

    The network and its weights stay as they are: train this, and evaluate the network itself.

    Args:
        network: A module with a method ``deep_logits``, e.g. ``UNet3D`` or ``HybridUNet3D``.

    Raises:
        TypeError: If the network has no such method.

    Example:
        >>> import torch
        >>> network = UNet2D(channels=(8, 16, 32), deep_supervision=1)
        >>> [logits.shape[2:] for logits in DeepSupervised(network)(torch.zeros(1, 1, 32, 32))]
        [torch.Size([32, 32]), torch.Size([16, 16])]

    References:
        C.-Y. Lee, S. Xie, P. Gallagher, Z. Zhang, Z. Tu. Deeply-Supervised Nets. AISTATS 2015,
        equation 3.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not callable(getattr(network, "deep_logits", None)):
            raise TypeError(f"network must have a method deep_logits; got {type(network).__name__}")
        self.network: nn.Module = network

    def forward(
        self, input: Float[Tensor, "batch in_channels *size"]
    ) -> list[Float[Tensor, "batch num_classes ..."]]:
        """Return the logits of all heads.

        Args:
            input: As the network takes it.
        """
        deep_logits = cast("Callable[[Tensor], list[Tensor]]", self.network.deep_logits)
        return deep_logits(input)


def _needs_positions(module: nn.Module) -> bool:
    norms = (nn.InstanceNorm2d, nn.InstanceNorm3d)
    return isinstance(module, norms) and (module.training or not module.track_running_stats)


def _channels(channels: Sequence[int] | None, encoder: nn.Module | None, dims: int) -> list[int]:
    found: Sequence[int] | None = channels
    if found is None:
        found = CHANNELS[dims] if encoder is None else getattr(encoder, "channels", None)
    if found is not None:
        check.kind("channels", found, Sequence, "a sequence of numbers, one for each level")
    if found is None or len(found) < 2:
        raise check.fail("channels", "two numbers or more, one for each level", found)
    return [check.integer("channels", width, minimum=1) for width in found]


def _strides(
    strides: Sequence[int | Sequence[int]] | None, encoder: nn.Module | None, levels: int
) -> Sequence[int | Sequence[int]]:
    if strides is not None:
        return strides
    default = (1, *(2,) * (levels - 1))
    return default if encoder is None else getattr(encoder, "strides", default)


def _per_level(
    name: str, values: Sequence[int | Sequence[int]], levels: int, dims: int
) -> list[PerAxis]:
    check.kind(name, values, Sequence, f"a sequence of {levels} values, one for each level")
    if len(values) != levels:
        raise check.fail(name, f"{levels} values, one for each level", values)
    per_axis = [check.per_axis(name, value, dims) for value in values]
    return [tuple(check.integer(name, v, minimum=1) for v in level) for level in per_axis]


def _kernels(sizes: Sequence[int | Sequence[int]], levels: int, dims: int) -> list[PerAxis]:
    kernels = _per_level("kernel_sizes", sizes, levels, dims)
    if any(k % 2 == 0 for kernel in kernels for k in kernel):
        raise check.fail("kernel_sizes", "odd", sizes)
    return kernels


def _depths(depths: Sequence[int] | None, levels: int) -> list[int]:
    found = (1,) * levels if depths is None else depths
    check.kind("depths", found, Sequence, f"a sequence of {levels} numbers, one for each level")
    if len(found) != levels:
        raise check.fail("depths", f"{levels} numbers, one for each level", depths)
    return [check.integer("depths", depth, minimum=1) for depth in found]


def _init_weights(module: nn.Module) -> None:
    """Draw weights as He does for a leaky ReLU; biases are 0."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
