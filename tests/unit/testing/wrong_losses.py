"""For each law of losses, a loss that breaks it in one step, as real libraries have done."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from unit.testing.reference_dice import Dice, dice


class RefusesAPair(Dice):
    """Weights and a pooled batch exclude each other."""

    def check_options(self) -> None:
        super().check_options()
        if self.batch and self.class_weight is not None:
            raise ValueError("class_weight must be None with batch=True")


class ClampsInPlace(Dice):
    def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        input.data.clamp_(-1, 1)
        return super().forward(input, target, mask=mask)


class RelabelsInPlace(Dice):
    """Rewrites ignored labels in the caller's target."""

    def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        loss = super().forward(input, target, mask=mask)
        if self.ignore_index is not None:
            target[target == self.ignore_index] = 0
        return loss


class HoldsALambda(Dice):
    def check_options(self) -> None:
        self.scale = lambda loss: loss
        super().check_options()


class ForgetsWhenCopied(Dice):
    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "smooth": 50.0}


class HidesState(Dice):
    """A drawn number that the state leaves out."""

    def check_options(self) -> None:
        super().check_options()
        self.offset = torch.rand(())

    def reduced(self, loss: Tensor) -> Tensor:
        return super().reduced(loss) + self.offset


class TakesAnyWord(Dice):
    def check_options(self) -> None:
        if self.reduction not in {"mean", "sum", "none"}:
            self.reduction = "mean"
        super().check_options()


class CutsToFit(Dice):
    """Crops a target that is too large, as if that were what was meant."""

    def with_channel(
        self, input: Tensor, target: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        target, mask = super().with_channel(input, target, mask)
        return target[..., : input.shape[-1]], mask


class TakesAnyLabel(Dice):
    def check_labels(self, target: Tensor, classes: int) -> None:
        """Look at nothing."""


class SumsToTheBatch(Dice):
    """The sum is a mean over samples."""

    def reduced(self, loss: Tensor) -> Tensor:
        return loss.sum() / len(loss) if self.reduction == "sum" else super().reduced(loss)


class MultipliesByWeights(Dice):
    """MONAI: weights multiply the loss and are not divided out."""

    def weighted(self, loss: Tensor, weight: Tensor) -> Tensor:
        return loss * weight


class LosesWeightsInABatch(Dice):
    """MONAI #6765: weights cancel when the batch is pooled."""

    def weighted(self, loss: Tensor, weight: Tensor) -> Tensor:
        return super().weighted(loss, torch.ones_like(weight) if self.batch else weight)


class SmoothsBelowOnly(Dice):
    def ratio(self, inter: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        return 1 - 2 * inter / (predicted + true + 1.0)


class RewardsTheWorst(Dice):
    def reduced(self, loss: Tensor) -> Tensor:
        return super().reduced(loss * (1.2 - loss))


class HasNoGradient(Dice):
    def activated(self, input: Tensor) -> Tensor:
        return super().activated(input).detach() + 0 * input


class DropsBackgroundFirst(Dice):
    """MONAI's FocalLoss: the background logit leaves before the softmax."""

    def activated(self, input: Tensor) -> Tensor:
        if self.include_background:
            return super().activated(input)
        return torch.cat([torch.zeros_like(input[:, :1]), super().activated(input[:, 1:])], 1)


class TakesProbabilities(Dice):
    """MONAI's AsymmetricUnifiedFocalLoss: the docs say logits, no activation exists."""

    def activated(self, input: Tensor) -> Tensor:
        return input.clamp(0, 1) if self.activation == "softmax" else super().activated(input)


class AlwaysActivates(Dice):
    def activated(self, input: Tensor) -> Tensor:
        return super().activated(input) if self.activation else input.softmax(1)


class NeverPenalizes(Dice):
    """MONAI's DiceLoss: the ratio of an absent class is 1 whatever is predicted."""

    def check_options(self) -> None:
        super().check_options()
        self.absent = "ratio" if self.absent == "penalize" else self.absent


class SkipsAbsent(Dice):
    """segmentation_models_pytorch: an absent class has loss 0."""

    def check_options(self) -> None:
        super().check_options()
        self.absent = "skip"


class PenalizesByTheWorst(Dice):
    """An absent class costs its largest probability."""

    def per_class(self, p: Tensor, t: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        loss, weight = super().per_class(p, t, kept)
        if self.absent == "penalize":
            loss = torch.where(t.sum(self.axes(p)) > 0, loss, p.amax(self.axes(p)))
        return loss, weight


class CountsWhatItSkips(Dice):
    """A class that is left out adds nothing, and is divided by all the same."""

    def weighted(self, loss: Tensor, weight: Tensor) -> Tensor:
        return loss * weight if self.absent == "skip" else super().weighted(loss, weight)


class WantsOneLabel(Dice):
    """Takes a multi-label target for one-hot."""

    def channels(self, input: Tensor, target: Tensor, kept: Tensor) -> Tensor:
        if target.shape[1] == input.shape[1] > 1:
            target = target / target.sum(1, keepdim=True).clamp_min(1)
        return super().channels(input, target, kept)


class ForgivesFalsePositives(Dice):
    """medicai's clDice: the predicted side of the precision is detached."""

    def sums(self, p: Tensor, t: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inter, predicted, true = super().sums(torch.where(t > 0, p, p.detach()), t, kept)
        return inter, predicted, true


class SeesEverySecondVoxel(Dice):
    """MONAI's and nnU-Net's deep supervision: the target of a coarse head by nearest voxels."""

    def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        part = (..., slice(None, None, 2), *[slice(None)] * (input.ndim - 3))
        mask = None if mask is None else mask[part]
        return super().forward(input[part], target[part], mask=mask)


class CountsTheMaskOfOneChannel(Dice):
    """MONAI's FocalLoss, nnU-Net's BCE: sums C channels, divides by the mask of one."""

    def reduced(self, loss: Tensor) -> Tensor:
        total = super().reduced(loss)
        return total * loss.shape[1] if self.ignore_index is not None else total


class IgnoredIsBackground(Dice):
    """Ignored voxels become background, and count."""

    def kept(self, target: Tensor, mask: Tensor | None) -> Tensor:
        kept = torch.ones_like(target[:, :1], dtype=torch.bool)
        return kept if mask is None else kept & mask

    def channels(self, input: Tensor, target: Tensor, kept: Tensor) -> Tensor:
        if self.ignore_index is not None and target.shape[1] == 1:
            target = torch.where(target == self.ignore_index, torch.zeros_like(target), target)
        return super().channels(input, target, kept)


class MasksLogits(Dice):
    """MONAI's MaskedLoss: a logit of 0 is a probability of one half."""

    def sums(self, p: Tensor, t: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().sums(p, t, torch.ones_like(kept))


class MasksOverlapOnly(Dice):
    """A mask removes voxels from the overlap and leaves them in the sizes."""

    def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        self.masked = mask is not None
        return super().forward(input, target, mask=mask)

    def sums(self, p: Tensor, t: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inter, predicted, true = super().sums(p, t, kept)
        return inter, p.sum(self.axes(p)) if self.masked else predicted, true


class MaskReplacesIgnore(Dice):
    def kept(self, target: Tensor, mask: Tensor | None) -> Tensor:
        return super().kept(target, None) if mask is None else mask


class AnyMaskRescales(Dice):
    def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return super().forward(input, target, mask=mask) * (1 if mask is None else 2)


class NeedsAMaskChannel(Dice):
    def with_channel(
        self, input: Tensor, target: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        return super().with_channel(input, target, None)[0], mask


class LeaksThroughTheMean(Dice):
    """Centres the logits over all voxels, those under the mask included."""

    def hidden(self, input: Tensor, kept: Tensor) -> Tensor:
        axes = [*range(2, input.ndim)]
        return super().hidden(input - 1e-3 * input.mean(axes, keepdim=True), kept)


class MasksByProduct(Dice):
    """A product with zero hides a number, but not NaN."""

    def hidden(self, input: Tensor, kept: Tensor) -> Tensor:
        return input * kept


class DividesByNothing(Dice):
    """Nothing counted, nothing smoothed: 0 / 0."""

    def ratio(self, inter: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        return 1 - 2 * inter / (predicted + true)


class WantsFloatChannels(Dice):
    def channels(self, input: Tensor, target: Tensor, kept: Tensor) -> Tensor:
        if target.shape[1] == input.shape[1] and not target.is_floating_point():
            target = target.argmin(1, keepdim=True)
        return super().channels(input, target, kept)


class WantsNoChannelAxis(Dice):
    def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        if target.ndim == input.ndim and target.shape[1] == 1:
            raise ValueError("target must have no channel axis")
        return super().forward(input, target, mask=mask)


class WantsLongLabels(Dice):
    """torch's one_hot takes int64 alone."""

    def channels(self, input: Tensor, target: Tensor, kept: Tensor) -> Tensor:
        if target.shape[1] == input.shape[1]:
            return super().channels(input, target, kept)
        labels = torch.where(kept, target, torch.zeros_like(target))[:, 0]
        hot = nn.functional.one_hot(labels, max(2, input.shape[1])).movedim(-1, 1)
        return hot[:, -input.shape[1] :] * kept


class PrefersLateClasses(Dice):
    def per_class(self, p: Tensor, t: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        loss, weight = super().per_class(p, t, kept)
        return loss * torch.linspace(0.5, 1.5, p.shape[1], dtype=p.dtype), weight


class JudgesByTheFirstSample(Dice):
    """Class sizes of the first sample weigh all of them."""

    def per_class(self, p: Tensor, t: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        loss, weight = super().per_class(p, t, kept)
        return loss, weight * (1 + t[0].flatten(1).mean(1))


class PrefersTheTop(Dice):
    def activated(self, input: Tensor) -> Tensor:
        rows = torch.linspace(0.5, 1.0, input.shape[-2], dtype=input.dtype)
        return super().activated(input) * rows[:, None]


class DropsAxesOfOne(Dice):
    """Squeezes the target, and with it a volume of depth one."""

    def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return super().forward(input, target.squeeze(), mask=mask)


class ViewsItsInput(Dice):
    def activated(self, input: Tensor) -> Tensor:
        return super().activated(input.view(len(input), -1).view(input.shape))

    def hidden(self, input: Tensor, kept: Tensor) -> Tensor:
        return input + 0 * kept


class SmoothsSmallWeights(Dice):
    """MONAI's GeneralizedDiceLoss: a smooth of 1e-5 beside weights of 1 / V ** 2."""

    def ratio(self, inter: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        weight = 1 / true.clamp_min(1) ** 2
        return super().ratio(weight * inter, weight * predicted, weight * true)


class NeverPools(Dice):
    def axes(self, probability: Tensor) -> list[int]:
        return [*range(2, probability.ndim)]


class AlwaysPools(Dice):
    def axes(self, probability: Tensor) -> list[int]:
        return [0, *range(2, probability.ndim)]


class CastsToFloat(Dice):
    """MONAI's FocalLoss: computes in float32 whatever comes in."""

    def widened(self, input: Tensor) -> Tensor:
        return input.float()

    def reduced(self, loss: Tensor) -> Tensor:
        return super().reduced(loss).double()


class WrongSlope(Dice):
    """A straight-through estimator: another gradient than that of the value."""

    def activated(self, input: Tensor) -> Tensor:
        return super().activated(input) + 0.1 * (input - input.detach())


class SumsInHalf(Dice):
    """MONAI's DiceLoss: 65504 is the end of float16."""

    def widened(self, input: Tensor) -> Tensor:
        return input


class HidesNan(Dice):
    def hidden(self, input: Tensor, kept: Tensor) -> Tensor:
        return super().hidden(input, kept).nan_to_num(0.0)


class ExponentiatesFirst(Dice):
    """Softmax without taking the largest logit off."""

    def activated(self, input: Tensor) -> Tensor:
        if self.activation != "softmax":
            return super().activated(input)
        return input.exp() / input.exp().sum(1, keepdim=True)


class GivesFloat32(Dice):
    def reduced(self, loss: Tensor) -> Tensor:
        return super().reduced(loss).float()


class RoundsToHalf(Dice):
    def widened(self, input: Tensor) -> Tensor:
        return input if input.dtype == torch.float64 else input.bfloat16().float()


class NamesTheCpu(Dice):
    def ratio(self, inter: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        value = super().ratio(inter, predicted, true)
        return value if value.device.type == "cpu" else torch.zeros(value.shape, device="cpu")


class DrawsNoise(Dice):
    def activated(self, input: Tensor) -> Tensor:
        return super().activated(input + 1e-4 * torch.randn_like(input))


class AsksForItems(Dice):
    """A decision on a value breaks the graph."""

    def reduced(self, loss: Tensor) -> Tensor:
        return super().reduced(loss) * (1 if loss.sum().item() < 1e9 else 2)


def dice_of_another_default(
    input: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    activation: Literal["softmax", "sigmoid"] | None = "softmax",
    include_background: bool = False,
    ignore_index: int | None = None,
    class_weight: Sequence[float] | None = None,
    absent: Literal["ratio", "penalize", "skip"] = "ratio",
    batch: bool = False,
    smooth: float = 1e-5,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    return dice(input, target, mask=mask, smooth=2 * smooth, reduction=reduction)


BROKEN: list[tuple[str, type[Dice]]] = [
    ("options_compose", RefusesAPair),
    ("inputs_are_left_alone", ClampsInPlace),
    ("inputs_are_left_alone", RelabelsInPlace),
    ("copies_give_the_same_number", HoldsALambda),
    ("copies_give_the_same_number", ForgetsWhenCopied),
    ("state_dict_round_trip", HidesState),
    ("bad_options_are_named", TakesAnyWord),
    ("bad_shapes_are_named", CutsToFit),
    ("bad_labels_are_named", TakesAnyLabel),
    ("reductions_agree", SumsToTheBatch),
    ("class_weights_never_rescale", MultipliesByWeights),
    ("class_weights_choose_between_classes", LosesWeightsInABatch),
    ("perfect_prediction_costs_nothing", SmoothsBelowOnly),
    ("worse_prediction_costs_more", RewardsTheWorst),
    ("gradient_is_finite_and_not_zero", HasNoGradient),
    ("background_leaves_after_the_activation", DropsBackgroundFirst),
    ("input_is_logits", TakesProbabilities),
    ("activation_may_be_applied_outside", AlwaysActivates),
    ("absent_class_keeps_a_gradient", NeverPenalizes),
    ("absent_class_keeps_a_gradient", SkipsAbsent),
    ("false_positive_costs_on_an_empty_target", SkipsAbsent),
    ("absent_class_costs_its_mean_probability", PenalizesByTheWorst),
    ("absent_class_may_be_left_out", CountsWhatItSkips),
    ("channels_of_a_multi_label_target_are_scored_one_by_one", WantsOneLabel),
    ("false_positive_branch_is_pushed_down", ForgivesFalsePositives),
    ("thin_structure_is_seen_wherever_it_lies", SeesEverySecondVoxel),
    ("ignoring_nothing_changes_nothing", CountsTheMaskOfOneChannel),
    ("ignoring_equals_cropping", IgnoredIsBackground),
    ("masking_equals_cropping", MasksLogits),
    ("masking_equals_ignoring", MasksOverlapOnly),
    ("mask_and_ignore_index_add_up", MaskReplacesIgnore),
    ("full_mask_changes_nothing", AnyMaskRescales),
    ("channel_axis_of_the_mask_is_optional", NeedsAMaskChannel),
    ("masked_voxels_have_no_influence", LeaksThroughTheMean),
    ("nan_under_the_mask_has_no_influence", MasksByProduct),
    ("wholly_ignored_sample_stays_finite", DividesByNothing),
    ("one_hot_equals_class_map", WantsFloatChannels),
    ("channel_axis_of_the_class_map_is_optional", WantsNoChannelAxis),
    ("dtype_of_the_class_map_changes_nothing", WantsLongLabels),
    ("order_of_classes_changes_nothing", PrefersLateClasses),
    ("order_of_samples_changes_nothing", JudgesByTheFirstSample),
    ("order_of_axes_changes_nothing", PrefersTheTop),
    ("slice_equals_volume_of_depth_one", DropsAxesOfOne),
    ("memory_layout_changes_nothing", ViewsItsInput),
    ("resolution_changes_nothing", SmoothsSmallWeights),
    ("batch_pools_the_voxels_of_all_samples", NeverPools),
    ("samples_are_scored_one_by_one", AlwaysPools),
    ("gradients_are_exact_in_float64", CastsToFloat),
    ("gradients_are_exact_in_float64", WrongSlope),
    ("half_precision_agrees_at_a_million_voxels", SumsInHalf),
    ("nan_is_not_hidden", HidesNan),
    ("extreme_logits_stay_finite", ExponentiatesFirst),
    ("dtype_is_kept", GivesFloat32),
    ("every_dtype_agrees_with_float64", RoundsToHalf),
    ("device_is_kept", NamesTheCpu),
    ("same_input_gives_the_same_bits", DrawsNoise),
]
"""Laws with a loss that breaks each; the compiled ones are tried without the shape checks."""
