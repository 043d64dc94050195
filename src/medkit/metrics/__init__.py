"""Scores of predictions, each a function and an accumulator."""

from medkit.metrics._auroc import Auroc, AurocResult, auroc
from medkit.metrics._average_surface_distance import (
    AverageSurfaceDistance,
    average_surface_distance,
)
from medkit.metrics._calibration import Calibration, CalibrationResult, calibration
from medkit.metrics._confusion import (
    ConfusionMatrix,
    ConfusionScores,
    confusion_matrix,
    confusion_scores,
)
from medkit.metrics._dice import DiceScore, dice_score
from medkit.metrics._hausdorff import HausdorffDistance, hausdorff_distance
from medkit.metrics._iou import IoUScore, iou_score
from medkit.metrics._precision_recall import (
    PrecisionScore,
    RecallScore,
    precision_score,
    recall_score,
)
from medkit.metrics._scores import Scores, Summary
from medkit.metrics._surface_dice import SurfaceDice, surface_dice

__all__ = [
    "Auroc",
    "AurocResult",
    "AverageSurfaceDistance",
    "Calibration",
    "CalibrationResult",
    "ConfusionMatrix",
    "ConfusionScores",
    "DiceScore",
    "HausdorffDistance",
    "IoUScore",
    "PrecisionScore",
    "RecallScore",
    "Scores",
    "Summary",
    "SurfaceDice",
    "auroc",
    "average_surface_distance",
    "calibration",
    "confusion_matrix",
    "confusion_scores",
    "dice_score",
    "hausdorff_distance",
    "iou_score",
    "precision_score",
    "recall_score",
    "surface_dice",
]
