"""ResNets of Keras with random weights, and ours for the same."""

import os

import numpy as np
import pytest
import torch
from torch import Tensor

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

from medkit.nn import KerasResNetV2  # noqa: E402

CLASSES = 3
HIDDEN = 16


def backbone(size: int | None = None, *, depth: int = 50):
    """Return ResNet V2 without classes, as Keras draws it."""
    make = getattr(keras.applications, f"ResNet{depth}V2")
    return make(weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3))


def with_head(base, *, nested: bool):
    """Return the network for histology: a hidden layer, dropout, classes."""
    inputs = keras.Input((None, None, 3)) if nested else base.input
    x = base(inputs) if nested else base.output
    x = keras.layers.Dense(HIDDEN, activation="relu")(x)
    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(x))


def ours_with_head() -> KerasResNetV2:
    """Return our network for the same."""
    return KerasResNetV2(num_classes=CLASSES, hidden_dim=HIDDEN, dropout=0.5).eval()


def randomize(model) -> None:
    """Move every variable, statistics of batch normalisation included."""
    random = np.random.default_rng(5)
    for variable in model.weights:
        noise = 0.1 * random.standard_normal(variable.shape) / np.sqrt(np.prod(variable.shape[:-1]))
        noise = abs(noise) if "variance" in variable.path else noise
        variable.assign(variable.value.detach().numpy() + noise)


def theirs(model, x: Tensor) -> Tensor:
    """Return what Keras computes from an image with channels first."""
    with torch.no_grad():
        return model(x.movedim(1, -1), training=False)
