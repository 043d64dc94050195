"""Losses weighted by a learned uncertainty."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medkit._core import check

from ._named_losses import Loss, NamedLosses


class UncertaintyWeighting(NamedLosses):
    r"""The sum of named losses, each weighed by an uncertainty that is learned with the network.

    .. math:: L = \sum_k \tfrac12 e^{-s_k} L_k + \tfrac12 s_k, \qquad s_k = \log \sigma_k^2

    Use it for losses of unlike scale that all go down: for fixed values the optimum is
    :math:`s_k = \log L_k`, at which every loss has the same share, whatever its scale. Then the
    total is :math:`\tfrac12 \sum_k (1 + \log L_k)`, which is negative for small losses and has no
    lower bound. ``penalty="liebel"`` puts :math:`\log(1 + e^{s_k})` in place of
    :math:`\tfrac12 s_k`, so that it stays above zero.

    Hand ``parameters()`` to the optimizer, without weight decay. In several processes wrap it
    together with the network, so that its gradients are averaged too. The factor of one that the
    paper gives classification in place of one half only shifts :math:`s_k` by :math:`\log 2`.

    Args:
        losses: Loss by name, called as ``loss(input, target)``; or names alone, where the values
            come from elsewhere and only ``total`` is called.
        penalty: What keeps the uncertainty from growing: that of Kendall et al., or of Liebel and
            Koerner.

    Attributes:
        log_variance: :math:`s_k` in the order of the names, zero at first.

    Raises:
        TypeError: If an entry cannot be called.
        ValueError: If there is no loss, or ``penalty`` is unknown.

    Example:
        >>> import torch
        >>> loss = UncertaintyWeighting(["segmentation", "thickness"])
        >>> terms = {"segmentation": torch.tensor(0.5), "thickness": torch.tensor(80.0)}
        >>> print(f"{loss.total(terms):.2f}")
        40.25
        >>> _ = loss.log_variance.data.copy_(torch.tensor([0.5, 80.0]).log())
        >>> print(f"{loss.total(terms):.2f}")
        2.84

    References:
        A. Kendall, Y. Gal, R. Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for
        Scene Geometry and Semantics", CVPR, 2018, equation 7. L. Liebel, M. Koerner, "Auxiliary
        Tasks in Multi-task Learning", arXiv:1805.06334, 2018, section 3.
    """

    def __init__(
        self,
        losses: Mapping[str, Loss] | Sequence[str],
        *,
        penalty: Literal["kendall", "liebel"] = "kendall",
    ) -> None:
        super().__init__(losses)
        check.one_of("penalty", penalty, ("kendall", "liebel"))
        self.penalty: Literal["kendall", "liebel"] = penalty
        self.log_variance: nn.Parameter = nn.Parameter(torch.zeros(len(self.names)))

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weight of each loss by name, without gradient."""
        weight = torch.exp(-self.log_variance.detach()) / 2
        return dict(zip(self.names, weight.unbind(), strict=True))

    def total(self, terms: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the weighted sum of values of the losses and the penalty.

        Args:
            terms: Value of each loss by name, as ``terms`` returns them: one number each.

        Raises:
            ValueError: If a value is missing, unknown, or not a single number.
        """
        values = self.values_of(terms)
        s = self.log_variance.to(values)
        penalty = s / 2 if self.penalty == "kendall" else nn.functional.softplus(s)
        return (torch.exp(-s) / 2 * values + penalty).sum()

    def extra_repr(self) -> str:
        """Return the options."""
        return ", ".join(filter(None, (f"penalty={self.penalty!r}", super().extra_repr())))
