"""ResNet V2 as Keras computes it: its stride, padding, biases and statistics are its own."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._batch_norm import BiasedBatchNorm2d
from ._image import check_image

Depth = Literal[50, 101, 152]

_BLOCKS: dict[Depth, tuple[int, int, int, int]] = {
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_STRIDES = (2, 2, 2, 1)
_EXPANSION = 4


class ResNetPyramid(NamedTuple):
    """Feature maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution, sizes rounded up."""

    c1: Float[Tensor, "batch channel1 h1 w1"]
    c2: Float[Tensor, "batch channel2 h2 w2"]
    c3: Float[Tensor, "batch channel3 h3 w3"]
    c4: Float[Tensor, "batch channel4 h4 w4"]
    c5: Float[Tensor, "batch channel5 h5 w5"]


class _Block(nn.ModuleDict):
    """A pre-activation bottleneck; its layers carry the end of their Keras names."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        first: bool,
        stride: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        out_channels = _EXPANSION * width
        layers: dict[str, nn.Module] = {
            "preact_bn": _batch_norm(in_channels, device=device, dtype=dtype),
            "1_conv": nn.Conv2d(in_channels, width, 1, bias=False, device=device, dtype=dtype),
            "1_bn": _batch_norm(width, device=device, dtype=dtype),
            "2_conv": nn.Conv2d(
                width, width, 3, stride=stride, padding=1, bias=False, device=device, dtype=dtype
            ),
            "2_bn": _batch_norm(width, device=device, dtype=dtype),
        }
        if first:
            layers["0_conv"] = nn.Conv2d(in_channels, out_channels, 1, device=device, dtype=dtype)
        layers["3_conv"] = nn.Conv2d(width, out_channels, 1, device=device, dtype=dtype)
        super().__init__(layers)
        self.stride = stride

    def forward(
        self, input: Float[Tensor, "batch in_channels h w"]
    ) -> Float[Tensor, "batch out_channels h2 w2"]:
        """Return the shortcut plus the branch; only the branch is normalised."""
        active = F.relu(self["preact_bn"](input))
        if "0_conv" in self:
            shortcut = self["0_conv"](active)
        else:
            shortcut = input[:, :, :: self.stride, :: self.stride]
        branch = F.relu(self["1_bn"](self["1_conv"](active)))
        branch = F.relu(self["2_bn"](self["2_conv"](branch)))
        return shortcut + self["3_conv"](branch)


class KerasResNetV2(nn.Module):
    r"""Classifies images with the ResNet V2 of Keras, to which its weights belong.

    .. math:: x \leftarrow s(x) + W_3\, \sigma\, W_2\, \sigma\, W_1\, \sigma(x), \qquad
              \sigma = \mathrm{ReLU} \circ \mathrm{BN}

    with ``s`` the identity, a convolution of the activated input in the first block of a stage,
    or every second pixel in the last. Use it to go on with a network that was trained in Keras:
    other libraries' ResNets have no place for its biases and put the stride into other blocks.
    What is Keras' own:

    * the first convolution, each shortcut and the end of each block have a bias;
    * the last block of the first three stages halves the resolution, not the first;
    * the first pooling is padded with zeros, which can exceed what they stand beside;
    * batch normalisation has epsilon 1.001e-5, momentum 0.01 (``0.99`` in Keras) and remembers
      the variance of the batch divided by n;
    * initial weights are uniform after Glorot, biases 0.

    The pretrained weights expect colours as ``x / 127.5 - 1``. A tensor is named as its layer in
    Keras, with a dot behind the block: ``conv2_block1.1_conv.weight`` is ``conv2_block1_1_conv``.
    ``medkit.convert.load_keras_weights`` reads the files. At 3 x 224 x 224 a forward pass of
    depth 50 takes 3.5 billion multiply-adds.

    Args:
        in_channels: Channels of the input.
        num_classes: Channels of the output; 0 gives the pooled features.
        depth: Layers with weights: 50 (23,564,800 values with the running statistics), 101
            (42,626,560) or 152 (58,331,648).
        hidden_dim: Width of a layer with ReLU between the pooled features and the classes; None
            leaves it out.
        dropout: Probability of dropping an element before the last layer while training.
        base_channels: Channels of the first convolution, 64 in every published file.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, ``hidden_dim`` is given without classes, or an
            input has another rank or number of channels.

    Example:
        >>> import torch
        >>> model = KerasResNetV2(num_classes=3, hidden_dim=256, dropout=0.5).eval()
        >>> model(torch.zeros(1, 3, 75, 100)).shape
        torch.Size([1, 3])
        >>> [tuple(c.shape[1:]) for c in model.features(torch.zeros(1, 3, 75, 100))][-2:]
        [(1024, 5, 7), (2048, 3, 4)]

    References:
        K. He, X. Zhang, S. Ren, J. Sun. Identity Mappings in Deep Residual Networks. ECCV 2016,
        figure 4 (e) and equation 3; as ``keras.applications.ResNet50V2`` of Keras 3.15 computes
        it.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 0,
        *,
        depth: Depth = 50,
        hidden_dim: int | None = None,
        dropout: float = 0.0,
        base_channels: int = 64,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check.one_of("depth", depth, tuple(_BLOCKS))
        self.in_channels: int = check.integer("in_channels", in_channels, minimum=1)
        self.num_classes: int = check.integer("num_classes", num_classes, minimum=0)
        self.depth: Depth = depth
        width = check.integer("base_channels", base_channels, minimum=1)
        self.conv1_conv: nn.Conv2d = nn.Conv2d(
            in_channels, width, 7, stride=2, padding=3, device=device, dtype=dtype
        )
        channels = width
        self._stages: tuple[tuple[str, ...], ...] = ()
        for stage, (count, stride) in enumerate(zip(_BLOCKS[depth], _STRIDES, strict=True), 2):
            names = tuple(f"conv{stage}_block{block}" for block in range(1, count + 1))
            self._stages += (names,)
            for name in names:
                block = _Block(
                    channels,
                    width,
                    first=name == names[0],
                    stride=stride if name == names[-1] else 1,
                    device=device,
                    dtype=dtype,
                )
                self.add_module(name, block)
                channels = _EXPANSION * width
            width *= 2
        self.post_bn: BiasedBatchNorm2d = _batch_norm(channels, device=device, dtype=dtype)
        self._add_head(channels, hidden_dim, dropout, device, dtype)
        _init_glorot(self)

    def _add_head(
        self,
        channels: int,
        hidden_dim: int | None,
        dropout: float,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        self.dense: nn.Linear | None = None
        self.dropout: nn.Dropout = nn.Dropout(check.fraction("dropout", dropout, below_one=True))
        self.predictions: nn.Linear | None = None
        if hidden_dim is not None:
            if self.num_classes == 0:
                raise check.fail("hidden_dim", "None without num_classes", hidden_dim)
            hidden = check.integer("hidden_dim", hidden_dim, minimum=1)
            self.dense = nn.Linear(channels, hidden, device=device, dtype=dtype)
            channels = hidden
        if self.num_classes:
            self.predictions = nn.Linear(channels, self.num_classes, device=device, dtype=dtype)

    def forward(self, input: Float[Tensor, "batch in_channels h w"]) -> Float[Tensor, "batch out"]:
        """Return the logits of each class, or the pooled features where there are no classes.

        Args:
            input: Image of any size.
        """
        return self.forward_head(self.forward_features(input))

    def forward_features(
        self, input: Float[Tensor, "batch in_channels h w"]
    ) -> Float[Tensor, "batch channel h5 w5"]:
        """Return the last map, normalised and activated, at 1/32 of the resolution.

        Args:
            input: As in ``forward``.
        """
        return self.features(input).c5

    def forward_head(
        self, features: Float[Tensor, "batch channel h5 w5"]
    ) -> Float[Tensor, "batch out"]:
        """Return what ``forward`` returns, from the map of ``forward_features``.

        Args:
            features: The last map, of any size.
        """
        pooled = features.mean((2, 3))
        if self.predictions is None:
            return pooled
        if self.dense is not None:
            pooled = F.relu(self.dense(pooled))
        return self.predictions(self.dropout(pooled))

    def features(self, input: Float[Tensor, "batch in_channels h w"]) -> ResNetPyramid:
        """Return the maps before each halving of the resolution and the last one, finest first.

        The first four are as the network adds them up, the last is normalised and activated.

        Args:
            input: As in ``forward``.
        """
        check_image(input, channels=self.in_channels, dims=2)
        c1 = self.conv1_conv(input)
        x = F.max_pool2d(F.pad(c1, (1, 1, 1, 1)), 3, stride=2)
        before_the_last: list[Tensor] = []
        for *names, last in self._stages:
            for name in names:
                x = self.get_submodule(name)(x)
            before_the_last.append(x)
            x = self.get_submodule(last)(x)
        c2, c3, c4, _ = before_the_last
        return ResNetPyramid(c1, c2, c3, c4, F.relu(self.post_bn(x)))


def _batch_norm(
    channels: int, *, device: torch.device | str | None, dtype: torch.dtype | None
) -> BiasedBatchNorm2d:
    return BiasedBatchNorm2d(channels, eps=1.001e-5, momentum=0.01, device=device, dtype=dtype)


def _init_glorot(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
