"""A function of coordinates: a multilayer perceptron from points to values."""

from collections.abc import Callable, Collection, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._fourier_features import FourierFeatures, check_coordinates
from ._precision import without_autocast
from ._sine import Sine, init_for_sine


class CoordinateMLP(nn.Module):
    r"""Maps points to values: a field over space held by the weights of a small network.

    .. math::
        h_1 = \phi(W_1 \gamma(v) + b_1), \qquad h_k = \phi(W_k h_{k-1} + b_k), \qquad
        y = \sigma(W_o h_d + b_o)

    with an optional encoding ``gamma`` and with dropout after some of the linear layers. Use it
    for fields known from sparse or averaged values, e.g. scar between the slices of a heart with
    ``medkit.losses.GroupReconstructionLoss``, and draw samples with dropout left on for an
    uncertainty. A point has one value whatever points are computed with it, so a long list can
    be cut into chunks. The defaults are the published 3-128-128-128-128-1 network of 50,177
    parameters.

    Its tensors are named as in the published program (cardioscar), whose two layouts differ in
    where dropout stands: ``dropout_after=(2, 4)``, the first one and the default, numbers the
    linear layers ``network.0``, ``2``, ``5``, ``7``, ``10``; ``dropout_after=(3,)``, that of
    its later versions, ``network.0``, ``2``, ``4``, ``7``, ``9``. Build the network in the
    layout of a checkpoint and ``load_state_dict`` takes it strictly, whatever ``dropout`` is.

    Scale the coordinates to [0, 1], or to [-1, 1] for ``Sine``. Under autocast, encoding and
    first layer still compute in the precision of the input: near 1, neighbouring bfloat16
    numbers are 1/256 apart.

    Args:
        in_channels: Coordinates of a point.
        out_channels: Values of a point.
        width: Hidden channels.
        depth: Number of hidden layers.
        activation: Makes the activation of a hidden layer. With ``Sine`` the weights are drawn
            as in SIREN, else as ``torch.nn.Linear`` draws them.
        dropout: Probability of dropping a hidden channel of a point, in [0, 1).
        dropout_after: Which linear layers dropout follows, counted from 1.
        out_activation: Makes the activation of the output; ``torch.nn.Identity`` for logits and
            for values of any range.
        encoding: Module that maps points to features, with an attribute ``out_channels``, e.g.
            ``FourierFeatures``; None gives the coordinates themselves to the first layer.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range, or an input has another number of coordinates.

    Example:
        >>> import torch
        >>> field = CoordinateMLP()
        >>> sum(parameter.numel() for parameter in field.parameters())
        50177
        >>> field(torch.rand(5000, 3)).shape
        torch.Size([5000, 1])

    References:
        A. Sen, U. Rohrer, P. Bhagirath, R. Razavi, M. O'Neill, J. Whitaker, M. Bishop. Weakly
        supervised learning for scar reconstruction in personalized cardiac models. Computers in
        Biology and Medicine 198 (2025) 111219.
        Y. Gal, Z. Ghahramani. Dropout as a Bayesian Approximation. ICML 2016, equation 6.
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        out_channels: int = 1,
        width: int = 128,
        depth: int = 4,
        activation: Callable[[], nn.Module] = nn.ReLU,
        dropout: float = 0.1,
        dropout_after: Collection[int] = (2, 4),
        out_activation: Callable[[], nn.Module] = nn.Sigmoid,
        encoding: FourierFeatures | nn.Module | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels: int = check.integer("in_channels", in_channels, minimum=1)
        width = check.integer("width", width, minimum=1)
        depth = check.integer("depth", depth, minimum=1)
        dropout = check.fraction("dropout", dropout, below_one=True)
        after = {check.integer("dropout_after", layer, minimum=1) for layer in dropout_after}
        if after and max(after) > depth:
            raise check.fail("dropout_after", f"at most depth ({depth})", max(after))
        self.encoding = encoding
        first = self.in_channels if encoding is None else _features(encoding)

        def layers() -> Iterator[nn.Module]:
            for layer in range(1, depth + 1):
                yield nn.Linear(width if layer > 1 else first, width, device=device, dtype=dtype)
                if layer in after:
                    yield nn.Dropout(dropout)
                yield activation()
            out = check.integer("out_channels", out_channels, minimum=1)
            yield nn.Linear(width, out, device=device, dtype=dtype)
            yield out_activation()

        self.network: nn.Sequential = nn.Sequential(*layers())
        self._init_weights()

    def _init_weights(self) -> None:
        sines = [layer for layer in self.network if isinstance(layer, Sine)]
        linears = [layer for layer in self.network if isinstance(layer, nn.Linear)]
        for index, linear in enumerate(linears if sines else ()):
            init_for_sine(linear, frequency=sines[0].frequency, first=index == 0)

    def forward(
        self, input: Float[Tensor, "*points in_channels"]
    ) -> Float[Tensor, "*points out_channels"]:
        """Return the values of every point.

        Args:
            input: Coordinates along the last axis, of any leading shape.
        """
        check_coordinates(input, self.in_channels)
        with without_autocast(input.device):
            output = input if self.encoding is None else self.encoding(input)
            output = self.network[0](output)
        return self.network[1:](output)


def _features(encoding: nn.Module) -> int:
    return check.integer("encoding.out_channels", getattr(encoding, "out_channels", None))
