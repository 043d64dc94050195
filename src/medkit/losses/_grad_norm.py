"""Losses weighted so that their gradients are of like size."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from medkit._core import check

from ._adaptive_weights import AdaptiveWeights
from ._named_losses import Loss
from ._processes import mean_over_processes


class GradNorm(AdaptiveWeights):
    r"""The sum of named losses, with weights that even out the gradients in a shared layer.

    With :math:`G_k = \lVert \nabla_W\, w_k L_k \rVert_2` in the last layer :math:`W` that all
    losses share, and :math:`r_k` the value of a loss relative to its first, divided by the mean
    of that over the losses, each ``update`` is one step of gradient descent on

    .. math:: \sum_k \bigl| G_k - \bar G\, r_k^\alpha \bigr|

    over :math:`w` alone, with :math:`\bar G\,r_k^\alpha` held fixed. Then the weights are scaled
    to add up to their number.

    Use it for heads on one trunk that shall train at the same pace. It costs a backward pass down
    to the shared layer for each loss. Call ``update`` in each step, after ``total`` and before
    ``backward``, which frees the graph. Weights stay at zero or above; numbers that are not finite
    leave everything as it is. In several processes each calls ``update``, and gradients and values
    are averaged first. Under an fp16 scaler the terms are not scaled: small gradients may vanish.

    Args:
        losses: Loss by name, called as ``loss(input, target)``; or names alone, where the values
            come from elsewhere and only ``total`` and ``update`` are called.
        alpha: How strongly losses that lag behind are pulled up, zero or more. The paper takes
            1.5 for unlike tasks and 0.12 for like ones.
        lr: Step length for the weights, positive.

    Raises:
        TypeError: If an entry cannot be called.
        ValueError: If there is no loss, or an option is out of range.

    Example:
        >>> import torch
        >>> trunk = torch.nn.Linear(2, 2)
        >>> y = trunk(torch.ones(1, 2)).sum()
        >>> loss = GradNorm(["small", "large"], lr=0.1)
        >>> terms = {"small": y.square(), "large": 9 * y.square()}
        >>> total = loss.total(terms)
        >>> loss.update(terms, trunk.parameters())
        >>> total.backward()
        >>> bool(loss.weights["small"] > loss.weights["large"])
        True

    References:
        Z. Chen, V. Badrinarayanan, C.-Y. Lee, A. Rabinovich, "GradNorm: Gradient Normalization for
        Adaptive Loss Balancing in Deep Multitask Networks", ICML, 2018, equation 2 and
        algorithm 1, with plain gradient descent.
    """

    initial: Tensor

    def __init__(
        self,
        losses: Mapping[str, Loss] | Sequence[str],
        *,
        alpha: float = 1.5,
        lr: float = 0.025,
    ) -> None:
        super().__init__(losses)
        self.alpha: float = check.non_negative("alpha", alpha)
        self.lr: float = check.positive("lr", lr)
        self.register_buffer("initial", torch.ones_like(self.weight))

    def update(self, terms: Mapping[str, Tensor], shared: Iterable[Tensor]) -> None:
        """Move the weights by one step; no parameter gets a gradient.

        Args:
            terms: Value of each loss in this step, by name, with its graph.
            shared: Parameters of the last layer that all losses share.

        Raises:
            ValueError: If a value is missing, unknown, or not a single number, or there is no
                shared parameter.
        """
        parameters = list(shared)
        if not parameters:
            raise check.fail("shared", "the parameters of a layer", "none")
        values = self._numbers(terms)
        norms = torch.stack([_norm(terms[name], parameters) for name in self.names]).to(values)
        initial = torch.where(self.num_updates == 0, values, self.initial)
        size = self.weight * norms
        rate = values / initial
        wanted = size.mean() * (rate / rate.mean()) ** self.alpha
        moved = (self.weight - self.lr * torch.sign(size - wanted) * norms).clamp(min=0)
        self._move(weight=moved * len(moved) / moved.sum(), initial=initial)

    def extra_repr(self) -> str:
        """Return the options."""
        text = f"alpha={self.alpha}, lr={self.lr}"
        return ", ".join(filter(None, (text, super().extra_repr())))


def _norm(term: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return the norm of the gradient of a loss, averaged over processes."""
    gradients = torch.autograd.grad(
        term, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    together = mean_over_processes(torch.cat([g.flatten() for g in gradients]))
    return together.square().sum().sqrt()
