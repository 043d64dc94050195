"""Weights in and out of other libraries."""

from ._keras import load_keras_weights, save_keras_weights
from ._published import load_published_weights
from ._weights_error import WeightsError, WeightsReport

__all__ = [
    "WeightsError",
    "WeightsReport",
    "load_keras_weights",
    "load_published_weights",
    "save_keras_weights",
]
