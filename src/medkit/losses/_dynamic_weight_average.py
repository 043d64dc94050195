"""Losses weighted by how slowly they go down."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from medkit._core import check

from ._adaptive_weights import AdaptiveWeights, shares
from ._named_losses import Loss


class DynamicWeightAverage(AdaptiveWeights):
    r"""The sum of named losses, with more weight on those that went down least in the last epoch.

    .. math::

        \lambda_k(t) = K\,\mathrm{softmax}_k\!\left(\frac{r_k}{T}\right), \qquad
        r_k = \frac{\bar L_k(t - 1)}{\bar L_k(t - 2)}

    with the means :math:`\bar L_k` of the :math:`K` losses over an epoch; all weights are one in
    the first two epochs.

    Use it for the price of two numbers per loss: no gradient is needed. Call ``update`` with the
    mean of each loss at the end of an epoch. Means that are not finite leave everything as it is.
    In several processes each calls ``update``, and the mean over processes counts.

    Args:
        losses: Loss by name, called as ``loss(input, target)``; or names alone, where the values
            come from elsewhere and only ``total`` and ``update`` are called.
        temperature: :math:`T`, positive: the larger, the more alike the weights.

    Raises:
        TypeError: If an entry cannot be called.
        ValueError: If there is no loss, or ``temperature`` is not positive.

    Example:
        >>> loss = DynamicWeightAverage(["dice", "ce"])
        >>> loss.update({"dice": 0.8, "ce": 1.0})
        >>> loss.update({"dice": 0.8, "ce": 0.5})
        >>> {name: round(float(weight), 3) for name, weight in loss.weights.items()}
        {'dice': 1.124, 'ce': 0.876}

    References:
        S. Liu, E. Johns, A. J. Davison, "End-to-End Multi-Task Learning with Attention", CVPR,
        2019, equation 7.
    """

    previous: Tensor

    def __init__(
        self, losses: Mapping[str, Loss] | Sequence[str], *, temperature: float = 2.0
    ) -> None:
        super().__init__(losses)
        self.temperature: float = check.positive("temperature", temperature)
        self.register_buffer("previous", torch.ones_like(self.weight))

    def update(self, terms: Mapping[str, Tensor | float]) -> None:
        """Move the weights to those of the next epoch.

        Args:
            terms: Mean of each loss over the epoch, by name.

        Raises:
            ValueError: If a value is missing, unknown, or not a single number.
        """
        values = self._numbers(terms)
        moved = shares(values / self.previous / self.temperature)
        weight = torch.where(self.num_updates == 0, self.weight, moved)
        self._move(weight=weight, previous=values)

    def extra_repr(self) -> str:
        """Return the options."""
        text = f"temperature={self.temperature}"
        return ", ".join(filter(None, (text, super().extra_repr())))
