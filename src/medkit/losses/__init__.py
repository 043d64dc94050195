"""Losses on logits, each a function and a module with the same options."""

from ._boundary import BoundaryLoss, boundary_loss
from ._cldice import ClDiceLoss, cldice_loss
from ._cross_entropy import CrossEntropyLoss, cross_entropy_loss
from ._deep_supervision import DeepSupervision
from ._dice import DiceLoss, dice_loss
from ._dynamic_weight_average import DynamicWeightAverage
from ._focal import FocalLoss, focal_loss
from ._generalized_dice import GeneralizedDiceLoss, generalized_dice_loss
from ._grad_norm import GradNorm
from ._group_reconstruction import GroupReconstructionLoss, group_reconstruction_loss
from ._jaccard import JaccardLoss, jaccard_loss
from ._layer_boundary import LayerBoundaryLoss, layer_boundary_loss
from ._relobralo import ReLoBRaLo
from ._skeleton_recall import SkeletonRecallLoss, skeleton_recall_loss
from ._tversky import TverskyLoss, tversky_loss
from ._uncertainty_weighting import UncertaintyWeighting
from ._weighted_sum import WeightedSum
from ._whole_batch import WholeBatch

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
