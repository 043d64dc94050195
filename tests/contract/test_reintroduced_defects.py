"""Each loss defect of another library, put into a loss of medkit, is found; numbers as there.

The library and its number are in the name of the variant's first line. The losses without the
defect obey the same law: ``test_losses`` holds them to all.
"""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medkit.losses import (
    BoundaryLoss,
    ClDiceLoss,
    CrossEntropyLoss,
    DeepSupervision,
    DiceLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    TverskyLoss,
    dice_loss,
    focal_loss,
    tversky_loss,
)
from medkit.ops import voxel_scan
from medkit.testing import loss_report

Activation = Literal["softmax", "sigmoid"]


class BackgroundLogitGone(nn.Module):
    """1, MONAI FocalLoss: the background logit leaves before the softmax."""

    def __init__(
        self, *, activation: Literal["softmax"] = "softmax", include_background: bool = True
    ) -> None:
        super().__init__()
        self.activation, self.first = activation, 0 if include_background else 1

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        values = F.one_hot(target, input.shape[1]).movedim(-1, 1)
        return focal_loss(input[:, self.first :], values[:, self.first :])


class TimesTheChannels(nn.Module):
    """2 and 3, MONAI FocalLoss, nnU-Net DC_and_BCE_loss: a sum over channels, a mask of one."""

    def __init__(self, loss: type[nn.Module], *, ignore_index: int | None = None) -> None:
        super().__init__()
        self.loss = loss(activation="sigmoid", ignore_index=ignore_index)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        factor = 1 if self.loss.ignore_index is None else input.shape[1]
        return factor * self.loss(input, target)


def focal_times_channels(*, ignore_index: int | None = None) -> nn.Module:
    return TimesTheChannels(FocalLoss, ignore_index=ignore_index)


def entropy_times_channels(*, ignore_index: int | None = None) -> nn.Module:
    return TimesTheChannels(CrossEntropyLoss, ignore_index=ignore_index)


class SmoothsRawWeights(nn.Module):
    """4, MONAI GeneralizedDiceLoss: 1e-5 beside sums that are divided by squared volumes."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        shared, predicted, present, _ = voxel_scan(input, target, needs="overlap").overlap
        weight = present.clamp(min=1) ** -2
        above = 2 * (weight * shared).sum(1) + 1e-5
        return 1 - (above / ((weight * (predicted + present)).sum(1) + 1e-5)).mean()


class SumsInHalf(nn.Module):
    """5 and 6, MONAI and SMP: sums of float16 end at 65504."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if input.dtype != torch.float16:
            return self.function(input, target)
        p, t = input.softmax(1), F.one_hot(target, input.shape[1]).movedim(-1, 1)
        axes = tuple(range(2, input.ndim))
        shared, both = (p * t).sum(axes), p.sum(axes) + t.sum(axes).half()
        return 1 - ((2 * shared + 1e-5) / (both + 1e-5)).mean()


class MasksLogits(nn.Module):
    """7, MONAI MaskedLoss: a logit of 0 is a probability of one half."""

    def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        values = F.one_hot(target, input.shape[1]).movedim(-1, 1)
        if mask is not None:
            mask = mask if mask.ndim == input.ndim else mask[:, None]
            return dice_loss(input * mask, values * mask, activation="sigmoid")
        return dice_loss(input, values, activation="sigmoid")


class NothingOnAnEmptyTarget(nn.Module):
    """8, MONAI BoundaryLoss and HausdorffDTLoss: no target, no loss."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        loss = BoundaryLoss(activation="sigmoid")(input, target)
        return loss * (target > 0).any()


class NeverPenalizes(nn.Module):
    """9, MONAI DiceLoss: the ratio of an absent class, whatever is asked for."""

    def __init__(self, loss: type[nn.Module]) -> None:
        super().__init__()
        self.loss = loss(activation="sigmoid", absent="ratio")

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return self.loss(input, target)


class TakesProbabilities(nn.Module):
    """10, MONAI AsymmetricUnifiedFocalLoss: no activation exists."""

    def __init__(self, *, activation: Literal["softmax"] = "softmax") -> None:
        super().__init__()
        self.activation = activation

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return tversky_loss(input.clamp(0, 1), target, activation=None)


class NearestVoxel(nn.Module):
    """12, MONAI DeepSupervisionLoss: a coarse target takes every second voxel."""

    def __init__(self, *, pooled: bool = False) -> None:
        super().__init__()
        self.pooled = pooled

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        head = F.avg_pool2d(input, 2)
        if self.pooled:
            return DeepSupervision(DiceLoss(), weights=(0.0, 1.0))([input, head], target)
        coarse = F.interpolate(target[:, None].double(), head.shape[2:], mode="nearest-exact")
        return dice_loss(head, coarse.long())


def without_skeleton_gradient() -> nn.Module:
    """13, medicai clDice: the precision half does not train."""
    return ClDiceLoss(activation="sigmoid", iterations=3, skeleton_gradient=False)


ONE = {"num_classes": 1}
FLAT = {"spatial_shape": (4, 6)}
HALF = "half_precision_agrees_at_a_million_voxels"
DEFECTS: list[tuple[int, Callable[..., nn.Module], str, dict[str, object]]] = [
    (1, BackgroundLogitGone, "background_leaves_after_the_activation", {}),
    (2, focal_times_channels, "ignoring_nothing_changes_nothing", {}),
    (3, entropy_times_channels, "ignoring_nothing_changes_nothing", {}),
    (4, SmoothsRawWeights, "resolution_changes_nothing", {}),
    (5, lambda: SumsInHalf(dice_loss), HALF, {}),
    (6, lambda: SumsInHalf(tversky_loss), HALF, {}),
    (7, MasksLogits, "masking_equals_cropping", {}),
    (8, NothingOnAnEmptyTarget, "false_positive_costs_on_an_empty_target", ONE),
    (9, lambda: NeverPenalizes(DiceLoss), "absent_class_keeps_a_gradient", {}),
    (9, lambda: NeverPenalizes(TverskyLoss), "absent_class_keeps_a_gradient", {}),
    (10, TakesProbabilities, "input_is_logits", {}),
    (12, NearestVoxel, "thin_structure_is_seen_wherever_it_lies", FLAT),
    (13, without_skeleton_gradient, "false_positive_branch_is_pushed_down", ONE | FLAT),
]
PENALIZING = {"vary": {"absent": ("penalize",)}}
MENDED: list[tuple[int, Callable[..., nn.Module], str, dict[str, object]]] = [
    (1, FocalLoss, DEFECTS[0][2], {}),
    (2, FocalLoss, DEFECTS[1][2], {"vary": {"activation": ("sigmoid",)}}),
    (3, CrossEntropyLoss, DEFECTS[2][2], {"vary": {"activation": ("sigmoid",)}}),
    (4, GeneralizedDiceLoss, DEFECTS[3][2], {}),
    (5, DiceLoss, HALF, {}),
    (6, TverskyLoss, HALF, {}),
    (7, DiceLoss, DEFECTS[6][2], {"vary": {"activation": ("sigmoid",)}}),
    (8, BoundaryLoss, DEFECTS[7][2], ONE | {"vary": {"activation": ("sigmoid",)}}),
    (9, DiceLoss, DEFECTS[8][2], PENALIZING),
    (9, TverskyLoss, DEFECTS[9][2], PENALIZING),
    (10, TverskyLoss, DEFECTS[10][2], {}),
    (12, NearestVoxel, DEFECTS[11][2], FLAT | {"vary": {"pooled": (True,)}}),
    (13, ClDiceLoss, DEFECTS[12][2], FLAT | {"vary": {"skeleton_gradient": (True,)}}),
]


@pytest.mark.parametrize(
    ("number", "loss", "law", "setting"), DEFECTS, ids=[f"{d[0]}-{d[2]}" for d in DEFECTS]
)
def test_a_defect_is_found(
    number: int, loss: Callable[..., nn.Module], law: str, setting: dict[str, object]
) -> None:
    assert set(loss_report(loss, laws=[law], **setting).violations) == {law}, number


@pytest.mark.parametrize(
    ("number", "loss", "law", "setting"), MENDED, ids=[f"{d[0]}-{d[2]}" for d in MENDED]
)
def test_the_loss_without_it_is_not_reported(
    number: int, loss: Callable[..., nn.Module], law: str, setting: dict[str, object]
) -> None:
    assert loss_report(loss, laws=[law], **setting).passed == (law,), number
