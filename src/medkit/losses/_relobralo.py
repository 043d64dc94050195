"""Losses weighted by their progress, with random looks back to the start."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from medkit._core import check

from ._adaptive_weights import AdaptiveWeights, shares
from ._named_losses import Loss


class ReLoBRaLo(AdaptiveWeights):
    r"""The sum of named losses, balanced by their progress since the last step and the first.

    .. math::

        \lambda(t) = \alpha \bigl(\rho\,\lambda(t - 1) + (1 - \rho)\,b(t, 0)\bigr)
            + (1 - \alpha)\,b(t, t - 1), \qquad
        b_k(t, t') = K\,\mathrm{softmax}_k\!\left(\frac{L_k(t)}{T\,L_k(t')}\right)

    with :math:`K` losses and :math:`\rho` one or zero at random; all weights are one in the first
    step. The name is short for relative loss balancing with random lookback.

    Use it where losses go down at unlike speed, step by step and without gradients. Call
    ``update`` in each step, before ``total``. Values that are not finite leave all but the random
    numbers as it is. In several processes each calls ``update``, and the mean over processes
    counts; the random numbers are the same in all, if their generators are.

    Args:
        losses: Loss by name, called as ``loss(input, target)``; or names alone, where the values
            come from elsewhere and only ``total`` and ``update`` are called.
        alpha: How much the weights of before count, in [0, 1].
        rho: Probability that :math:`\rho` is one, in [0, 1]. At 1, as in the code of the authors,
            there are no looks back to the first step.
        temperature: :math:`T`, positive: the larger, the more alike the weights.
        generator: Source of :math:`\rho`, on the CPU; None makes one with seed 0. Its state is
            part of ``state_dict()``.

    Raises:
        TypeError: If an entry cannot be called.
        ValueError: If there is no loss, or an option is out of range.

    Example:
        >>> loss = ReLoBRaLo(["pde", "boundary", "data"], alpha=0.0)
        >>> loss.update({"pde": 1.0, "boundary": 0.5, "data": 2.0})
        >>> loss.update({"pde": 0.9, "boundary": 0.3, "data": 2.0})
        >>> {name: round(float(weight), 4) for name, weight in loss.weights.items()}
        {'pde': 1.0541, 'boundary': 0.7809, 'data': 1.165}

    References:
        R. Bischof, M. Kraus, "Multi-Objective Loss Balancing for Physics-Informed Deep Learning",
        arXiv:2110.09813, 2021, the equations of "Relative Loss Balancing with Random Lookback".
    """

    initial: Tensor
    previous: Tensor

    def __init__(
        self,
        losses: Mapping[str, Loss] | Sequence[str],
        *,
        alpha: float = 0.999,
        rho: float = 1.0,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(losses)
        self.alpha: float = check.fraction("alpha", alpha)
        self.rho: float = check.fraction("rho", rho)
        self.temperature: float = check.positive("temperature", temperature)
        self.generator: torch.Generator = generator or torch.Generator().manual_seed(0)
        self.register_buffer("initial", torch.ones_like(self.weight))
        self.register_buffer("previous", torch.ones_like(self.weight))

    def update(self, terms: Mapping[str, Tensor | float]) -> None:
        """Move the weights to those of this step.

        Args:
            terms: Value of each loss in this step, by name.

        Raises:
            ValueError: If a value is missing, unknown, or not a single number.
        """
        values, first = self._numbers(terms), self.num_updates == 0
        stay = (torch.rand((), generator=self.generator) < self.rho).to(values)
        since_start = shares(values / self.initial / self.temperature)
        since_last = shares(values / self.previous / self.temperature)
        before = stay * self.weight + (1 - stay) * since_start
        moved = self.alpha * before + (1 - self.alpha) * since_last
        self._move(
            weight=torch.where(first, self.weight, moved),
            initial=torch.where(first, values, self.initial),
            previous=values,
        )

    def get_extra_state(self) -> Tensor:
        """Return the state of the generator, for ``state_dict``."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Continue with the state of a generator, from ``state_dict``.

        Args:
            state: As ``get_extra_state`` returned it.
        """
        self.generator.set_state(state.cpu())

    def extra_repr(self) -> str:
        """Return the options."""
        text = f"alpha={self.alpha}, rho={self.rho}, temperature={self.temperature}"
        return ", ".join(filter(None, (text, super().extra_repr())))
