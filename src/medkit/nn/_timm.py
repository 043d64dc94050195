"""The one door to timm: its backbones as encoders, and a U-Net around one."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check, optional

from ._image import check_image
from ._recompute import run_any
from ._unet import UNet2D


class _FeatureInfo(Protocol):
    def channels(self) -> list[int]: ...

    def reduction(self) -> list[int]: ...


class TimmEncoder(nn.Module):
    """A backbone of timm that returns its maps; made by ``timm_encoder``."""

    def __init__(self, backbone: nn.Module, in_channels: int) -> None:
        super().__init__()
        info = cast("_FeatureInfo", backbone.feature_info)
        self.backbone: nn.Module = backbone
        self.in_channels: int = in_channels
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(b // a for a, b in pairwise((1, *info.reduction())))

    def forward(
        self, input: Float[Tensor, "batch in_channels height width"]
    ) -> list[Float[Tensor, "batch _ ..."]]:
        """Return the maps of the backbone, finest first, channels first.

        Args:
            input: Image, normalised as the pretrained weights expect.
        """
        check_image(input, channels=self.in_channels, dims=2)
        return list(cast("Sequence[Tensor]", self.backbone(input)))


def timm_encoder(
    name: str,
    *,
    in_channels: int = 3,
    pretrained: bool = False,
    out_indices: Sequence[int] | None = None,
    options: Mapping[str, object] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> TimmEncoder:
    """Return a backbone of timm as an encoder: a module that gives maps, finest first.

    Its attributes ``channels`` and ``strides`` say how many channels each map has and how many
    times coarser it is than the one before, which is what ``UNet2D`` asks of an encoder. Needs
    the extra ``timm``; pretrained weights come from where timm keeps them.

    Args:
        name: Name of the backbone, e.g. ``"resnet34"`` or ``"convnext_tiny.fb_in22k"``.
        in_channels: Channels of the input; timm adapts pretrained weights to them.
        pretrained: Whether timm loads the pretrained weights.
        out_indices: Which maps to return; None returns those of timm's choice, usually all.
        options: More arguments of ``timm.create_model``, by name.
        device: Where the parameters are put.
        dtype: Type of the parameters.

    Returns:
        The encoder.

    Raises:
        ImportError: If timm, or torchvision which it imports, is missing or broken.
        RuntimeError: From timm, if it knows no such backbone.

    Example:
        >>> import torch
        >>> encoder = timm_encoder("test_resnet", in_channels=1)
        >>> [tuple(level.shape[1:]) for level in encoder(torch.zeros(1, 1, 64, 96))]
        [(32, 32, 48), (32, 16, 24), (48, 8, 12), (192, 4, 6), (96, 2, 3)]

    References:
        R. Wightman. PyTorch Image Models. https://github.com/huggingface/pytorch-image-models.
    """
    optional.require("torchvision", extra="timm")  # names the culprit: timm fails where it does
    timm = optional.require("timm", extra="timm")
    create_model = cast("Callable[..., nn.Module]", timm.create_model)
    more = dict(options or {})
    if out_indices is not None:
        more["out_indices"] = tuple(out_indices)
    channels = check.integer("in_channels", in_channels, minimum=1)
    backbone = create_model(
        name, pretrained=pretrained, features_only=True, in_chans=channels, **more
    )
    return TimmEncoder(backbone, channels).to(device=device, dtype=dtype)


class TimmUNet(nn.Module):
    """Segments images with a U-Net around a backbone of timm.

    The decoder is that of ``UNet2D``. The image itself counts as the finest map, so logits are
    computed at full resolution. Use it where there is little data and weights pretrained on
    photographs help. Needs the extra ``timm``.

    Args:
        in_channels: Channels of the input; timm adapts pretrained weights to them.
        num_classes: Channels of the output.
        backbone: Name of the backbone in timm.
        pretrained: Whether timm loads the pretrained weights.
        out_indices: Which of the backbone's maps to use; None takes those of timm's choice.
        decoder_channels: Channels of the decoder, finest first, one for the image and each map
            but the coarsest; None takes 16 and doubles it at each level, up to 256.
        deep_supervision: Number of heads on coarser maps of the decoder.
        norm: Makes the norms of the decoder, called with the number of channels, ``device`` and
            ``dtype``; None is batch normalisation, as in most backbones.
        activation: Makes the activations of the decoder.
        dropout: Probability of dropping a channel after each block of the decoder while training.
        drop_path_rate: Probability of dropping the backbone's last block for a sample while
            training; timm spreads it over the blocks. 0 leaves it to ``options``.
        checkpoint: Whether to keep only the backbone's maps and the inputs of each level of the
            decoder while training, and to compute the backbone, as a whole, and each level again
            in the backward pass: less memory for more time, the same numbers.
            ``medkit.train.checkpoint_blocks`` makes finer steps.
        options: More arguments of ``timm.create_model``, by name.
        device: Where the parameters are put.
        dtype: Type of the parameters.

    Raises:
        ImportError: If timm, or torchvision which it imports, is missing or broken.
        ValueError: If an argument is out of range, or an input has another rank or number of
            channels.

    Example:
        >>> import torch
        >>> model = TimmUNet(in_channels=1, num_classes=2, backbone="test_resnet").eval()
        >>> model(torch.zeros(1, 1, 60, 97)).shape
        torch.Size([1, 2, 60, 97])

    References:
        O. Ronneberger, P. Fischer, T. Brox. U-Net: Convolutional Networks for Biomedical Image
        Segmentation. MICCAI 2015, section 2.
        R. Wightman. PyTorch Image Models. https://github.com/huggingface/pytorch-image-models.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 2,
        *,
        backbone: str = "resnet34",
        pretrained: bool = False,
        out_indices: Sequence[int] | None = None,
        decoder_channels: Sequence[int] | None = None,
        deep_supervision: int = 0,
        norm: Callable[..., nn.Module] = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] = nn.ReLU,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        checkpoint: bool = False,
        options: Mapping[str, object] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        rate = check.fraction("drop_path_rate", drop_path_rate, below_one=True)
        encoder = timm_encoder(
            backbone,
            in_channels=in_channels,
            pretrained=pretrained,
            out_indices=out_indices,
            options={**({"drop_path_rate": rate} if rate else {}), **(options or {})},
            device=device,
            dtype=dtype,
        )
        levels = len(encoder.channels)
        widths = tuple(min(16 * 2**level, 256) for level in range(levels))
        self.unet: UNet2D = UNet2D(
            in_channels,
            num_classes,
            encoder=_WithImage(encoder, checkpoint=checkpoint),
            decoder_channels=widths if decoder_channels is None else decoder_channels,
            deep_supervision=deep_supervision,
            norm=norm,
            activation=activation,
            dropout=dropout,
            checkpoint=checkpoint,
            device=device,
            dtype=dtype,
        )

    def forward(
        self, input: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch num_classes height width"]:
        """Return the logits of every class at every pixel.

        Args:
            input: Image of any size that the backbone takes, normalised as its weights expect.
        """
        return self.unet(input)

    def deep_logits(
        self, input: Float[Tensor, "batch in_channels height width"]
    ) -> list[Float[Tensor, "batch num_classes ..."]]:
        """Return the logits of all heads, finest first, each on its own grid.

        Args:
            input: As in ``forward``.
        """
        return self.unet.deep_logits(input)

    def features(
        self, input: Float[Tensor, "batch in_channels height width"]
    ) -> list[Float[Tensor, "batch _ ..."]]:
        """Return the image and the backbone's maps, finest first.

        Args:
            input: As in ``forward``.
        """
        return self.unet.features(input)


class _WithImage(nn.Module):
    """An encoder whose finest map is the image itself."""

    def __init__(self, encoder: TimmEncoder, *, checkpoint: bool) -> None:
        super().__init__()
        self.checkpoint: bool = checkpoint
        self.encoder: TimmEncoder = encoder
        self.channels: tuple[int, ...] = (encoder.in_channels, *encoder.channels)
        self.strides: tuple[int, ...] = (1, *encoder.strides)

    def forward(
        self, input: Float[Tensor, "batch in_channels height width"]
    ) -> list[Float[Tensor, "batch _ ..."]]:
        maps = run_any(self.encoder, input, recompute=self.checkpoint)
        return [input, *cast("Sequence[Tensor]", maps)]
