"""Several networks that answer as one."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medkit._core import check

from ._activation import Activation, probabilities


class Ensemble(nn.Module):
    r"""Several networks that answer as one: the weighted mean of their logits or probabilities.

    .. math:: y = \sum_m \frac{w_m}{\sum_j w_j}\, f_m(x)

    Use it like any network: call it, move it to a device, save its ``state_dict``, hand it to
    ``sliding_window_inference``, so that each window is blended once for all members, or to
    ``test_time_augmentation``. Sums are kept in float32 or better, and only one member's answer
    is alive at a time. For the spread between members take ``predictive_uncertainty``.

    Args:
        models: Networks that return logits of one shape.
        weights: Weight of each network, zero or more; only ratios matter. None weighs all the
            same.
        average: What is averaged: "probabilities", as in deep ensembles, or "logits", as nnU-Net
            does with its folds.
        activation: What makes probabilities of logits; without effect on "logits".

    Raises:
        ValueError: If there is no network, a weight is negative or all are zero, or their number
            is not that of the networks.

    Example:
        >>> import torch
        >>> double, triple = torch.nn.Conv1d(1, 1, 1), torch.nn.Conv1d(1, 1, 1)
        >>> for conv, value in ((double, 2.0), (triple, 3.0)):
        ...     _ = torch.nn.init.constant_(conv.weight, value), torch.nn.init.zeros_(conv.bias)
        >>> ensemble = Ensemble([double, triple], weights=(3, 1), average="logits")
        >>> ensemble(torch.ones(1, 1, 1)).item()
        2.25

    References:
        B. Lakshminarayanan, A. Pritzel, C. Blundell, "Simple and Scalable Predictive Uncertainty
        Estimation using Deep Ensembles", NeurIPS, 2017, section 2.4: the mean of probabilities.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        *,
        weights: Sequence[float] | None = None,
        average: Literal["logits", "probabilities"] = "probabilities",
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        check.one_of("average", average, ("logits", "probabilities"))
        check.one_of("activation", activation, ("softmax", "sigmoid"))
        if not models:
            raise check.fail("models", "at least one network", models)
        given = [check.non_negative("weights", w) for w in weights or [1.0] * len(models)]
        if len(given) != len(models) or not sum(given):
            raise check.fail("weights", f"{len(models)} numbers, not all zero", weights)
        self.models: nn.ModuleList = nn.ModuleList(models)
        self.weights: tuple[float, ...] = tuple(w / sum(given) for w in given)
        self.average: Literal["logits", "probabilities"] = average
        self.activation: Activation = activation

    def forward(
        self, input: Shaped[Tensor, "batch channel *spatial"]
    ) -> Float[Tensor, "batch num_classes *spatial"]:
        """Return the mean logits or probabilities, in float32 or float64.

        Args:
            input: What every network takes.

        Raises:
            ValueError: If the logits of two networks differ in shape.
        """
        total = torch.zeros(())
        for number, (weight, model) in enumerate(zip(self.weights, self.models, strict=True)):
            scores: Tensor = model(input)
            if number and scores.shape != total.shape:
                rule = f"of shape {tuple(total.shape)}, as those before"
                raise check.fail("the logits of each network", rule, f"shape {tuple(scores.shape)}")
            scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
            if self.average == "probabilities":
                scores = probabilities(scores, self.activation)
            total = total + scores * weight if number else scores * weight
        return total

    def extra_repr(self) -> str:
        """Return the options."""
        shares = ", ".join(f"{w:g}" for w in self.weights)
        return f"weights=({shares}), average={self.average!r}, activation={self.activation!r}"
