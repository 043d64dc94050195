"""Stochastic depth: whole residual branches dropped per sample."""

from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check


class DropPath(nn.Module):
    r"""Drops whole samples of a residual branch while training (stochastic depth).

    .. math:: y_b = \frac{m_b}{1 - p}\, x_b, \qquad m_b \sim \mathrm{Bernoulli}(1 - p)

    One ``m`` is drawn for each sample of the batch, so a dropped sample skips the branch
    altogether, and the division keeps the expected value. In evaluation mode, or with a rate
    of 0, the input is returned as it is. Use it as ``x + drop_path(branch(x))``.

    Args:
        rate: Probability ``p`` of dropping a sample, in [0, 1).

    Raises:
        ValueError: If ``rate`` is outside [0, 1).

    Example:
        >>> import torch
        >>> drop_path = DropPath(0.5)
        >>> y = drop_path(torch.ones(1000, 8))
        >>> sorted(set(y.flatten().tolist()))
        [0.0, 2.0]

    References:
        G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Q. Weinberger. Deep Networks with Stochastic Depth.
        ECCV 2016, equation 2; with the surviving branch rescaled while training instead of the
        whole network afterwards (equation 5).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate: float = check.fraction("rate", rate, below_one=True)

    def forward(self, input: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        """Return the branch with dropped samples set to zero and the others divided by 1 - rate.

        Args:
            input: Output of the residual branch.
        """
        if not self.training or self.rate == 0:
            return input
        keep = 1 - self.rate
        mask = input.new_empty((input.shape[0],) + (1,) * (input.ndim - 1)).bernoulli_(keep)
        return input * mask.div_(keep)

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"rate={self.rate:g}"
