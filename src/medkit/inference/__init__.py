"""From a trained network to a prediction of a whole volume."""

from medkit.inference._sliding_window import sliding_window_inference

__all__ = ["sliding_window_inference"]
