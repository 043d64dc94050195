"""Scores of predictions, each a function and an accumulator."""

from medkit.metrics._auroc import Auroc, AurocResult, auroc
from medkit.metrics._average_surface_distance import (
    AverageSurfaceDistance,
    average_surface_distance,
)
from medkit.metrics._betti_zero_error import BettiZeroError, betti_zero_error
from medkit.metrics._bootstrap import Interval, bootstrap_interval
from medkit.metrics._calibration import Calibration, CalibrationResult, calibration
from medkit.metrics._cldice import ClDiceScore, cldice_score
from medkit.metrics._confusion import (
    ConfusionMatrix,
    ConfusionScores,
    confusion_matrix,
    confusion_scores,
)
from medkit.metrics._dice import DiceScore, dice_score
from medkit.metrics._hausdorff import HausdorffDistance, hausdorff_distance
from medkit.metrics._iou import IoUScore, iou_score
from medkit.metrics._layer_errors import LayerBoundaryErrors, LayerErrors, layer_errors
from medkit.metrics._precision_recall import (
    PrecisionScore,
    RecallScore,
    precision_score,
    recall_score,
)
from medkit.metrics._scores import Scores, Summary
from medkit.metrics._surface_detection_score import SurfaceDetectionScore, surface_detection_score
from medkit.metrics._surface_dice import SurfaceDice, surface_dice
from medkit.metrics._variation_of_information import (
    VariationOfInformation,
    variation_of_information,
)

__all__ = [
    "Auroc",
    "AurocResult",
    "AverageSurfaceDistance",
    "BettiZeroError",
    "Calibration",
    "CalibrationResult",
    "ClDiceScore",
    "ConfusionMatrix",
    "ConfusionScores",
    "DiceScore",
    "HausdorffDistance",
    "Interval",
    "IoUScore",
    "LayerBoundaryErrors",
    "LayerErrors",
    "PrecisionScore",
    "RecallScore",
    "Scores",
    "Summary",
    "SurfaceDetectionScore",
    "SurfaceDice",
    "VariationOfInformation",
    "auroc",
    "average_surface_distance",
    "betti_zero_error",
    "bootstrap_interval",
    "calibration",
    "cldice_score",
    "confusion_matrix",
    "confusion_scores",
    "dice_score",
    "hausdorff_distance",
    "iou_score",
    "layer_errors",
    "precision_score",
    "recall_score",
    "surface_detection_score",
    "surface_dice",
    "variation_of_information",
]
