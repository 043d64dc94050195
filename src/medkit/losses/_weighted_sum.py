"""Several losses added up."""

from collections.abc import Mapping
from typing import Protocol

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medkit._core import check


class Loss(Protocol):
    """Anything called as ``loss(input, target)`` that returns a tensor."""

    def __call__(self, input: Tensor, target: Tensor, /) -> Tensor:
        """Return the loss of a prediction against a target."""
        ...


class WeightedSum(nn.Module):
    r"""The weighted sum of named losses.

    .. math:: L = \sum_k w_k L_k(x, t)

    Use it to train on several losses and still see each of them: a call returns the total,
    ``terms`` the values by name and ``total`` adds them up, so that logging costs nothing twice.

    Args:
        losses: Weight and loss by name. A loss is a module, or any function called as
            ``loss(input, target)``; parameters of modules are registered.

    Example:
        >>> import torch
        >>> loss = WeightedSum({"dice": (1.0, DiceLoss()), "ce": (0.5, CrossEntropyLoss())})
        >>> terms = loss.terms(torch.zeros(1, 2, 4, 4), torch.ones(1, 4, 4, dtype=torch.long))
        >>> {name: round(float(value), 4) for name, value in terms.items()}
        {'dice': 0.6667, 'ce': 0.6931}
        >>> round(float(loss.total(terms)), 4)
        1.0132

    References:
        F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical
        image segmentation", Nature Methods, 2021 (the sum of Dice and cross entropy).
    """

    def __init__(self, losses: Mapping[str, tuple[float, Loss]]) -> None:
        super().__init__()
        if not losses:
            raise check.fail("losses", "at least one named loss", "none")
        self.weights = {name: check.real(f"weight of {name}", w) for name, (w, _) in losses.items()}
        self.modules_by_name = nn.ModuleDict(
            {name: loss for name, (_, loss) in losses.items() if isinstance(loss, nn.Module)}
        )
        self.functions = {
            name: loss for name, (_, loss) in losses.items() if not isinstance(loss, nn.Module)
        }

    def terms(
        self, input: Tensor, target: Tensor, *, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the value of each loss by name, without its weight.

        Args:
            input: Logits, handed to every loss.
            target: What they should have said.
            mask: Voxels that count, handed to every loss unless None.
        """
        extra = {} if mask is None else {"mask": mask}
        return {name: self._loss(name)(input, target, **extra) for name in self.weights}

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of what ``terms`` returned.

        Args:
            terms: Value of each loss by name.
        """
        weighted = [weight * terms[name] for name, weight in self.weights.items()]
        return torch.stack(weighted).sum(0)

    def forward(
        self, input: Tensor, target: Tensor, *, mask: Tensor | None = None
    ) -> Float[Tensor, ""]:
        """Return the weighted sum of the losses.

        Args:
            input: Logits, handed to every loss.
            target: What they should have said.
            mask: Voxels that count, handed to every loss unless None.
        """
        return self.total(self.terms(input, target, mask=mask))

    def _loss(self, name: str) -> Loss:
        return self.functions[name] if name in self.functions else self.modules_by_name[name]
