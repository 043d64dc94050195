"""From a trained network to a prediction of a whole volume, and how far to trust it."""

from ._chain import Chain
from ._ensemble import Ensemble
from ._grad_cam import GradCAM
from ._oct_writer import OctPredictionWriter
from ._regions import Region, list_regions
from ._slab_writer import write_slabs
from ._slabs import Slab, sliding_window_segmentation, sliding_window_slabs
from ._sliding_window import sliding_window_inference
from ._temperature import TemperatureScaling
from ._test_time_augmentation import test_time_augmentation
from ._uncertainty import (
    PredictiveMoments,
    Uncertainty,
    mc_dropout,
    predictive_uncertainty,
)
from ._view import View, flip_views, turn_views

__all__ = [
    "Chain",
    "Ensemble",
    "GradCAM",
    "OctPredictionWriter",
    "PredictiveMoments",
    "Region",
    "Slab",
    "TemperatureScaling",
    "Uncertainty",
    "View",
    "flip_views",
    "list_regions",
    "mc_dropout",
    "predictive_uncertainty",
    "sliding_window_inference",
    "sliding_window_segmentation",
    "sliding_window_slabs",
    "test_time_augmentation",
    "turn_views",
    "write_slabs",
]
