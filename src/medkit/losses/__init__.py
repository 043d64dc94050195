"""Losses on logits, each a function and a module with the same options."""

from medkit.losses._boundary import BoundaryLoss, boundary_loss
from medkit.losses._cldice import ClDiceLoss, cldice_loss
from medkit.losses._cross_entropy import CrossEntropyLoss, cross_entropy_loss
from medkit.losses._deep_supervision import DeepSupervision
from medkit.losses._dice import DiceLoss, dice_loss
from medkit.losses._dynamic_weight_average import DynamicWeightAverage
from medkit.losses._focal import FocalLoss, focal_loss
from medkit.losses._generalized_dice import GeneralizedDiceLoss, generalized_dice_loss
from medkit.losses._grad_norm import GradNorm
from medkit.losses._group_reconstruction import GroupReconstructionLoss, group_reconstruction_loss
from medkit.losses._jaccard import JaccardLoss, jaccard_loss
from medkit.losses._layer_boundary import LayerBoundaryLoss, layer_boundary_loss
from medkit.losses._relobralo import ReLoBRaLo
from medkit.losses._skeleton_recall import SkeletonRecallLoss, skeleton_recall_loss
from medkit.losses._tversky import TverskyLoss, tversky_loss
from medkit.losses._uncertainty_weighting import UncertaintyWeighting
from medkit.losses._weighted_sum import WeightedSum
from medkit.losses._whole_batch import WholeBatch

__all__ = [
    "BoundaryLoss",
    "ClDiceLoss",
    "CrossEntropyLoss",
    "DeepSupervision",
    "DiceLoss",
    "DynamicWeightAverage",
    "FocalLoss",
    "GeneralizedDiceLoss",
    "GradNorm",
    "GroupReconstructionLoss",
    "JaccardLoss",
    "LayerBoundaryLoss",
    "ReLoBRaLo",
    "SkeletonRecallLoss",
    "TverskyLoss",
    "UncertaintyWeighting",
    "WeightedSum",
    "WholeBatch",
    "boundary_loss",
    "cldice_loss",
    "cross_entropy_loss",
    "dice_loss",
    "focal_loss",
    "generalized_dice_loss",
    "group_reconstruction_loss",
    "jaccard_loss",
    "layer_boundary_loss",
    "skeleton_recall_loss",
    "tversky_loss",
]
