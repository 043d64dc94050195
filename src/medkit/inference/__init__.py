"""From a trained network to a prediction of a whole volume, and how far to trust it."""

from medkit.inference._chain import Chain
from medkit.inference._ensemble import Ensemble
from medkit.inference._grad_cam import GradCAM
from medkit.inference._oct_writer import OctPredictionWriter
from medkit.inference._regions import Region, list_regions
from medkit.inference._slab_writer import write_slabs
from medkit.inference._slabs import Slab, sliding_window_segmentation, sliding_window_slabs
from medkit.inference._sliding_window import sliding_window_inference
from medkit.inference._temperature import TemperatureScaling
from medkit.inference._test_time_augmentation import test_time_augmentation
from medkit.inference._uncertainty import (
    PredictiveMoments,
    Uncertainty,
    mc_dropout,
    predictive_uncertainty,
)
from medkit.inference._view import View, flip_views, turn_views

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
