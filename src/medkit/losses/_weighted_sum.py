"""Several losses added up."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from medkit._core import check

from ._named_losses import Loss, NamedLosses


class WeightedSum(NamedLosses):
    r"""The weighted sum of named losses.

    .. math:: L = \sum_k w_k L_k(x, t)

    Use it to train on several losses and still see each of them: a call returns the total,
    ``terms`` the values by name and ``total`` adds them up, so that logging costs nothing twice.
    ``DiceLoss`` and ``CrossEntropyLoss`` with the same ``activation`` and ``ignore_index`` share
    one pass over the voxels, forward and backward.

    Args:
        losses: Weight and loss by name. A loss is a module or a function called as
            ``loss(input, target)``, and with ``mask=`` where one is given. Modules are registered,
            so that their parameters train and move along.

    Raises:
        TypeError: If an entry is not a number and something to call.
        ValueError: If there is no loss, or a name cannot name a submodule.

    Example:
        >>> import torch
        >>> loss = WeightedSum({"dice": (1.0, DiceLoss()), "ce": (0.5, CrossEntropyLoss())})
        >>> terms = loss.terms(torch.zeros(1, 2, 8), torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]]))
        >>> {name: round(float(value), 4) for name, value in terms.items()}
        {'dice': 0.5, 'ce': 0.6931}
        >>> print(f"{loss.total(terms):.4f}")
        0.8466

    References:
        F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical
        image segmentation", Nature Methods 18, 2021: the sum of Dice and cross entropy.
    """

    def __init__(self, losses: Mapping[str, tuple[float, Loss]]) -> None:
        check.kind("losses", losses, Mapping, "a mapping of names to (weight, loss)")
        for name, pair in losses.items():
            if not isinstance(pair, tuple) or len(pair) != 2 or not callable(pair[1]):
                raise TypeError(f"losses[{name!r}] must be (weight, loss); got {pair!r}")
        super().__init__({name: loss for name, (_, loss) in losses.items()})
        self.weights: dict[str, float] = {
            name: check.real(f"the weight of losses[{name!r}]", weight)
            for name, (weight, _) in losses.items()
        }

    def total(self, terms: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the weighted sum of values of the losses.

        Args:
            terms: Value of each loss by name, as ``terms`` returns them: one number each.

        Raises:
            ValueError: If a value is missing, unknown, or not a single number.
        """
        values = self.values_of(terms).unbind()
        weights = self.weights.values()
        return torch.stack([w * value for w, value in zip(weights, values, strict=True)]).sum()

    def extra_repr(self) -> str:
        """Return the weights and the losses that are functions."""
        return ", ".join(filter(None, (f"weights={self.weights}", super().extra_repr())))
