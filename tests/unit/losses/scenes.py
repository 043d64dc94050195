"""Inputs for losses in every form that they take, small enough for loops in Python."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from medkit.testing._options import pairwise
from unit.losses import oracle

SHAPE = (3, 2, 2)

Case = dict[str, object]

MASKS = (None, "bool", "weights")
FORMS = (
    {
        "activation": ("softmax", "sigmoid", None),
        "target": ("map", "map_with_channel"),
        "ignore": (None, 255, -1, 1),
        "channels": (3, 2),
        "include_background": (True, False),
        "mask": MASKS,
    },
    {
        "activation": ("softmax", "sigmoid", None),
        "target": ("one_hot", "bool_channels", "soft"),
        "ignore": (None,),
        "channels": (3,),
        "include_background": (True, False),
        "mask": MASKS,
    },
    {
        "activation": ("sigmoid", None),
        "target": ("bool_channels", "soft"),
        "ignore": (None,),
        "channels": (1,),
        "include_background": (True,),
        "mask": MASKS,
    },
    {
        "activation": ("sigmoid", None),
        "target": ("map", "map_with_channel"),
        "ignore": (None, 255),
        "channels": (1,),
        "include_background": (True,),
        "mask": MASKS,
    },
)
"""Forms of input and target that go together: class maps, values per channel, one channel."""


def cases(options: Mapping[str, Sequence[object]]) -> list[Case]:
    """Return cases in which each value of an option meets each of another, in every form."""
    return [case for form in FORMS for case in pairwise({**form, **options})]


class Scene(NamedTuple):
    """Arguments of a loss, and the same for the oracle, which takes ``options`` too."""

    input: Tensor
    target: Tensor
    mask: Tensor | None
    ignore_index: int | None
    truth: np.ndarray
    weight: np.ndarray
    options: Case


def scene(case: Case, shape: tuple[int, ...] = SHAPE) -> Scene:
    """Return two samples for a case; class 2 is absent from the first."""
    options = dict(case)
    target, mask, ignore, channels = (
        options.pop(name) for name in ("target", "mask", "ignore", "channels")
    )
    for name, values in options.items():
        if isinstance(values, list):
            options[name] = values[:channels]
    rng = np.random.default_rng(7)
    x = rng.normal(size=(2, channels, *shape)) * 2
    if options["activation"] is None:
        odds = np.exp(x)
        x = odds / odds.sum(1, keepdims=True) if channels > 1 else odds / (1 + odds)
    labels = rng.integers(0, max(2, channels), size=(2, *shape))
    labels[0][labels[0] == 2] = 0
    weight = np.ones((2, *shape))
    if ignore is not None:
        if ignore >= channels or ignore < 0:
            labels[rng.random(labels.shape) < 0.3] = ignore
        weight[labels == ignore] = 0
    truth = oracle.truth_of(labels, channels)
    tensor = _form(target, labels, truth, rng)
    if target == "soft":
        truth = tensor.numpy()
    kept = None
    if mask is not None:
        drawn = (rng.random(labels.shape) < 0.7) * (rng.random(labels.shape) + 0.1)
        drawn = drawn if mask == "weights" else (drawn > 0).astype(float)
        weight = weight * drawn
        kept = (
            torch.from_numpy(drawn)[:, None] if mask == "weights" else torch.from_numpy(drawn > 0)
        )
    return Scene(torch.from_numpy(x), tensor, kept, ignore, truth, weight, options)


def _form(kind: str, labels: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> Tensor:
    if kind == "map":
        return torch.from_numpy(labels)
    if kind == "map_with_channel":
        return torch.from_numpy(labels.astype(np.int16))[:, None]
    if kind == "one_hot":
        return torch.from_numpy(truth.astype(np.uint8))
    if kind == "bool_channels":
        return torch.from_numpy(truth > 0)
    soft = rng.random(truth.shape)
    return torch.from_numpy(soft / soft.sum(1, keepdims=True) if truth.shape[1] > 1 else soft)
