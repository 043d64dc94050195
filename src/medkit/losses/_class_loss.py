"""The options that losses on classes share, stored and shown."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medkit._core import check

from ._voxels import ACTIVATIONS, REDUCTIONS, Activation, Reduction


class ClassLoss(nn.Module):
    """A loss on the channels of logits, each a class.

    Args:
        activation: What turns the input into probabilities.
        include_background: Whether channel 0 takes part, after the activation.
        ignore_index: Label of voxels that do not count.
        class_weight: Weight of each channel.
        reduction: What becomes of the values.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        *,
        activation: Activation | None,
        include_background: bool,
        ignore_index: int | None,
        class_weight: Sequence[float] | Tensor | None,
        reduction: Reduction,
    ) -> None:
        super().__init__()
        check.one_of("activation", activation, ACTIVATIONS)
        check.one_of("reduction", reduction, REDUCTIONS)
        self.activation: Activation | None = activation
        self.include_background = include_background
        self.ignore_index = ignore_index
        if class_weight is not None and not isinstance(class_weight, Tensor):
            class_weight = torch.tensor(class_weight, dtype=torch.float64)
        self.register_buffer("class_weight", class_weight, persistent=False)
        self.reduction: Reduction = reduction

    def extra_repr(self) -> str:
        """Return the options."""
        options = {n: v for n, v in vars(self).items() if n[0] != "_" and n != "training"}
        for name, values in self.named_buffers():
            options[name] = tuple(float(value) for value in values)
        return ", ".join(f"{name}={value!r}" for name, value in options.items())
