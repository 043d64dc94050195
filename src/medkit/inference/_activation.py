"""Probabilities of logits, and their entropy."""

from typing import Literal

import torch
from torch import Tensor

from medkit._core import check

Activation = Literal["softmax", "sigmoid"]


def probabilities(logits: Tensor, activation: Activation) -> Tensor:
    """Return the probability of each channel."""
    check.one_of("activation", activation, ("softmax", "sigmoid"))
    return torch.softmax(logits, dim=1) if activation == "softmax" else torch.sigmoid(logits)


def entropy(probability: Tensor, activation: Activation) -> Tensor:
    """Return the entropy in nats: of a voxel under a softmax, of each channel under a sigmoid."""
    if activation == "softmax":
        return _surprise(probability).sum(1)
    return _surprise(probability) + _surprise(1 - probability)


def _surprise(p: Tensor) -> Tensor:
    """Return ``-p log p``, which is 0 at 0."""
    return -torch.xlogy(p, p)
