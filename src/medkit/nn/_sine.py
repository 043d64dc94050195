"""The periodic activation of SIREN, and the weights that go with it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check


class Sine(nn.Module):
    r"""Computes the sine of the input times a frequency.

    .. math:: y = \sin(\omega x)

    Use it as the activation of ``CoordinateMLP``, which then draws its weights as the paper does.
    A network of sines represents fine detail and has smooth derivatives of every order.

    Args:
        frequency: The factor ``omega``; higher fits finer detail, for coordinates in [-1, 1].

    Raises:
        ValueError: If ``frequency`` is not positive.

    Example:
        >>> import torch
        >>> Sine(frequency=torch.pi)(torch.tensor([0.0, 0.5]))
        tensor([0., 1.])

    References:
        V. Sitzmann, J. N. P. Martel, A. W. Bergman, D. B. Lindell, G. Wetzstein. Implicit Neural
        Representations with Periodic Activation Functions. NeurIPS 2020, equation 3 with the
        factor of section 3.2.
    """

    def __init__(self, *, frequency: float = 30.0) -> None:
        super().__init__()
        self.frequency: float = check.positive("frequency", frequency)

    def forward(self, input: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return ``sin(frequency * input)``.

        Args:
            input: Any tensor.
        """
        return torch.sin(self.frequency * input)

    def extra_repr(self) -> str:
        """Show the frequency."""
        return f"frequency={self.frequency:g}"


def init_for_sine(linear: nn.Linear, *, frequency: float, first: bool) -> None:
    """Draw the weight of a layer before or behind a sine, as SIREN does; the bias stays.

    Uniform within ``1 / n`` in the first layer and within ``sqrt(6 / n) / frequency`` in the
    others, ``n`` being the number of inputs.
    """
    n = linear.in_features
    bound = 1 / n if first else math.sqrt(6 / n) / frequency
    nn.init.uniform_(linear.weight, -bound, bound)
