"""Scores of predictions, each a function and an accumulator."""

from ._auroc import Auroc, AurocResult, auroc
from ._average_surface_distance import (
    AverageSurfaceDistance,
    average_surface_distance,
)
from ._betti_zero_error import BettiZeroError, betti_zero_error
from ._bootstrap import Interval, bootstrap_interval, bootstrap_statistic
from ._calibration import Calibration, CalibrationResult, calibration
from ._cldice import ClDiceScore, cldice_score
from ._confusion import (
    ConfusionMatrix,
    ConfusionScores,
    confusion_matrix,
    confusion_scores,
)
from ._dice import DiceScore, dice_score
from ._euler_number_error import EulerNumberError, euler_number_error
from ._hausdorff import HausdorffDistance, hausdorff_distance
from ._iou import IoUScore, iou_score
from ._layer_errors import LayerBoundaryErrors, LayerErrors, layer_errors
from ._precision_recall import (
    PrecisionScore,
    RecallScore,
    precision_score,
    recall_score,
)
from ._scores import Scores, Summary
from ._surface_detection_score import (
    SurfaceDetectionResult,
    SurfaceDetectionScore,
    surface_detection_score,
)
from ._surface_dice import SurfaceDice, surface_dice
from ._variation_of_information import (
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
    "EulerNumberError",
    "HausdorffDistance",
    "Interval",
    "IoUScore",
    "LayerBoundaryErrors",
    "LayerErrors",
    "PrecisionScore",
    "RecallScore",
    "Scores",
    "Summary",
    "SurfaceDetectionResult",
    "SurfaceDetectionScore",
    "SurfaceDice",
    "VariationOfInformation",
    "auroc",
    "average_surface_distance",
    "betti_zero_error",
    "bootstrap_interval",
    "bootstrap_statistic",
    "calibration",
    "cldice_score",
    "confusion_matrix",
    "confusion_scores",
    "dice_score",
    "euler_number_error",
    "hausdorff_distance",
    "iou_score",
    "layer_errors",
    "precision_score",
    "recall_score",
    "surface_detection_score",
    "surface_dice",
    "variation_of_information",
]
