"""Scores of predictions, each a function and an accumulator."""

from medkit.metrics._dice import DiceScore, dice_score
from medkit.metrics._iou import IoUScore, iou_score
from medkit.metrics._scores import Scores, Summary

__all__ = ["DiceScore", "IoUScore", "Scores", "Summary", "dice_score", "iou_score"]
