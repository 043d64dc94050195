"""Scores of predictions, each a function and an accumulator."""

from medkit.metrics._average_surface_distance import (
    AverageSurfaceDistance,
    average_surface_distance,
)
from medkit.metrics._dice import DiceScore, dice_score
from medkit.metrics._hausdorff import HausdorffDistance, hausdorff_distance
from medkit.metrics._iou import IoUScore, iou_score
from medkit.metrics._scores import Scores, Summary
from medkit.metrics._surface_dice import SurfaceDice, surface_dice

__all__ = [
    "AverageSurfaceDistance",
    "DiceScore",
    "HausdorffDistance",
    "IoUScore",
    "Scores",
    "Summary",
    "SurfaceDice",
    "average_surface_distance",
    "dice_score",
    "hausdorff_distance",
    "iou_score",
    "surface_dice",
]
