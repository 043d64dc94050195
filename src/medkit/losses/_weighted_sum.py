"""Several losses added up."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medkit._core import check
from medkit.losses._voxel_loss import VoxelLoss, evaluate_together


@runtime_checkable
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
        super().__init__()
        if not losses:
            raise check.fail("losses", "at least one named loss", losses)
        self.weights: dict[str, float] = {}
        self.functions: dict[str, Loss] = {}
        self.losses: nn.ModuleDict = nn.ModuleDict()
        for name, pair in losses.items():
            if not isinstance(pair, tuple) or len(pair) != 2 or not callable(pair[1]):
                raise TypeError(f"losses[{name!r}] must be (weight, loss); got {pair!r}")
            weight, loss = pair
            self.weights[name] = check.real(f"the weight of losses[{name!r}]", weight)
            if isinstance(loss, nn.Module):
                if not name or "." in name or hasattr(self.losses, name):
                    raise check.fail("losses", "named like a Python attribute, without dots", name)
                self.losses[name] = loss
            else:
                self.functions[name] = loss

    def terms(
        self,
        input: Float[Tensor, "batch channel *spatial"],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> dict[str, Tensor]:
        """Return the value of each loss by name, before its weight.

        Args:
            input: Logits, handed to every loss.
            target: Target, handed to every loss.
            mask: Voxels that count, handed to every loss if given.
        """
        shared = {name: loss for name, loss in self.losses.items() if isinstance(loss, VoxelLoss)}
        values = evaluate_together(shared, input, target, mask)
        keywords = {} if mask is None else {"mask": mask}
        for name in self.weights:
            if name not in values:
                loss = self.functions.get(name) or self.losses[name]
                values[name] = loss(input, target, **keywords)
        return {name: values[name] for name in self.weights}

    def total(self, terms: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the weighted sum of values of the losses.

        Args:
            terms: Value of each loss by name, as ``terms`` returns them: one number each.

        Raises:
            ValueError: If a value is missing, unknown, or not a single number.
        """
        if terms.keys() != self.weights.keys():
            raise check.fail("terms", f"one value for each of {list(self.weights)}", list(terms))
        for name, value in terms.items():
            if value.ndim:
                rule = "a single number, as with reduction 'mean' or 'sum'"
                raise check.fail(f"terms[{name!r}]", rule, f"shape {tuple(value.shape)}")
        return torch.stack([self.weights[name] * terms[name] for name in self.weights]).sum()

    def forward(
        self,
        input: Float[Tensor, "batch channel *spatial"],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the weighted sum of the losses.

        Args:
            input: Logits, handed to every loss.
            target: Target, handed to every loss.
            mask: Voxels that count, handed to every loss if given.
        """
        return self.total(self.terms(input, target, mask=mask))

    def extra_repr(self) -> str:
        """Return the weights and the losses that are functions."""
        functions = "".join(f", {name}={loss!r}" for name, loss in self.functions.items())
        return f"weights={self.weights}{functions}"
