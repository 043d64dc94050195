"""Weights of losses that change while training, by a rule."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ._named_losses import Loss, NamedLosses
from ._processes import mean_over_processes


class AdaptiveWeights(NamedLosses):
    """A weighted sum of named losses whose weights a subclass moves in ``update``.

    The weights start at one. They and all else that ``update`` remembers are buffers, so that
    training resumes exactly from a state.

    Args:
        losses: Loss by name, or names alone.
    """

    weight: Tensor
    num_updates: Tensor

    def __init__(self, losses: Mapping[str, Loss] | Sequence[str]) -> None:
        super().__init__(losses)
        self.register_buffer("weight", torch.ones(len(self.names)))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weight of each loss by name, without gradient."""
        return dict(zip(self.names, self.weight.clone().unbind(), strict=True))

    def total(self, terms: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the sum of values of the losses with the weights of now.

        Args:
            terms: Value of each loss by name, as ``terms`` returns them: one number each.

        Raises:
            ValueError: If a value is missing, unknown, or not a single number.
        """
        values = self.values_of(terms)
        return (self.weight.to(values, copy=True) * values).sum()

    def _numbers(self, terms: Mapping[str, Tensor | float]) -> Tensor:
        """Return the values like ``weight``, without gradient, as the mean over processes."""
        like = self.weight
        values = {
            name: torch.as_tensor(value, dtype=like.dtype, device=like.device).detach()
            for name, value in terms.items()
        }
        return mean_over_processes(self.values_of(values))

    def _move(self, **state: Tensor) -> None:
        """Take on a new state, unless a number in it is not finite."""
        finite = torch.stack([value.isfinite().all() for value in state.values()]).all()
        state["num_updates"] = self.num_updates + 1
        for name, value in state.items():
            buffer = self.get_buffer(name)
            buffer.copy_(torch.where(finite, value, buffer))


def shares(logits: Tensor) -> Tensor:
    """Return the softmax, scaled so that it averages one."""
    return len(logits) * torch.softmax(logits, dim=0)
