"""Laws of losses: weights of classes, background, absent classes, several labels at a voxel."""

import torch
from torch import Tensor

from ._comparison import expect, finite, norm, same
from ._contract import NotApplicable
from ._loss_subject import LossSubject, loss_law, needs_classes, needs_softmax, ramp
from ._options import Options

ABSENT_SIGNAL = 1e-3
"""Least gradient, summed over voxels, against a class that is predicted and absent."""


@loss_law(needs=["class_weight"], fixes=["class_weight"])
def class_weights_never_rescale(loss: LossSubject, options: Options) -> None:
    """Equal weights are no weights, and weights ten times as large change nothing."""
    classes = needs_classes(loss)
    logits, labels = loss.logits(), loss.labels()
    plain = loss.run(options, logits, labels)
    for weight in (1.0, 7.0):
        equal = loss.run({**options, "class_weight": [weight] * classes}, logits, labels)
        same(equal, plain, f"class_weight {weight:g} for every class against None")
    weighted = loss.run({**options, "class_weight": ramp(classes)}, logits, labels)
    tenfold: Options = {**options, "class_weight": [10 * w for w in ramp(classes)]}
    same(loss.run(tenfold, logits, labels), weighted, "class weights ten times as large")


@loss_law(needs=["class_weight"], fixes=["class_weight", "reduction"])
def class_weights_choose_between_classes(loss: LossSubject, options: Options) -> None:
    """A weighted loss lies between those of the single classes, nearer the heavier one."""
    classes = needs_classes(loss)
    logits, labels = loss.logits(), loss.labels()
    logits[:, -1] += 2.0
    first = 0 if options.get("include_background", True) else 1
    single = torch.stack([_only(loss, options, c) for c in range(first, classes)])
    ascending = loss.run({**options, "class_weight": ramp(classes)}, logits, labels)
    descending = loss.run({**options, "class_weight": ramp(classes)[::-1]}, logits, labels)
    low, high = float(single.min()), float(single.max())
    expect(low < high, f"class weights have no effect: {low:.7g} for each class alone")
    for value in (float(ascending), float(descending)):
        expect(
            low - 1e-9 <= value <= high + 1e-9,
            f"weighted loss {value:.7g} outside those of single classes, {low:.7g} to {high:.7g}",
        )
    expect(float(ascending) != float(descending), "class weights have no effect")


def _only(loss: LossSubject, options: Options, wanted: int) -> Tensor:
    logits, labels = loss.logits(), loss.labels()
    logits[:, -1] += 2.0
    weights = [float(c == wanted) for c in range(loss.num_classes)]
    return loss.run({**options, "class_weight": weights}, logits, labels)


@loss_law(needs=["include_background"], fixes=["include_background", "activation"])
def background_leaves_after_the_activation(loss: LossSubject, options: Options) -> None:
    """Without background, its logit still competes with the others under softmax."""
    needs_softmax(loss)
    chosen: Options = {**options, "include_background": False}
    gradient = loss.score(chosen, loss.logits(), loss.labels()).gradient
    share = norm(gradient[:, 0]) / norm(gradient)
    expect(share > 1e-3, f"background logit gets {share:.3g} of the gradient; it left too early")


@loss_law(fixes=["absent", "activation", "include_background"])
def absent_class_keeps_a_gradient(loss: LossSubject, options: Options) -> None:
    """A false positive of a class that the target lacks is pushed down (``absent="penalize"``)."""
    labels = torch.zeros_like(loss.labels())
    for chosen in _punishing(loss, options):
        if loss.offers("activation") and "sigmoid" in loss.values("activation"):
            chosen["activation"] = "sigmoid"  # no other class passes its gradient on
        for doubt in (0.0, 4.0):
            logits = 0.1 * loss.logits()
            logits[:, -1] += doubt
            gradient = loss.score(chosen, logits, labels).gradient[:, -1]
            total, rising = float(gradient.sum()), bool((gradient > 0).all())
            expect(
                rising and total > ABSENT_SIGNAL,
                f"a class the target lacks, predicted everywhere, gets gradient {total:.3g} in all",
            )


@loss_law(fixes=["absent", "include_background"])
def false_positive_costs_on_an_empty_target(loss: LossSubject, options: Options) -> None:
    """On a target of background alone, predicting foreground everywhere costs more than none."""
    empty = torch.zeros_like(loss.labels())
    right = loss.confident(empty, size=6.0)
    wrong = -right if loss.num_classes == 1 else right.roll(1, 1)
    for chosen in _punishing(loss, options):
        low = float(loss.run(chosen, right, empty).sum())
        high = float(loss.run(chosen, wrong, empty).sum())
        expect(high > low + 0.1, f"foreground everywhere costs {high:.4g}, none costs {low:.4g}")


def _punishing(loss: LossSubject, options: Options) -> list[Options]:
    """Return the settings in which an absent class has to keep a gradient.

    Where ``absent="penalize"`` is offered it is chosen, with and without background. Without it,
    the background stays in: dropping it leaves a voxelwise loss no say on background voxels.
    """
    if not loss.offers("absent") or "penalize" not in loss.values("absent"):
        return [dict(options)]
    chosen: Options = {**options, "absent": "penalize"}
    if loss.offers("include_background") and loss.num_classes > 1:
        return [{**chosen, "include_background": True}, {**chosen, "include_background": False}]
    return [chosen]


@loss_law(needs=["absent"], fixes=["absent", "activation", "class_weight", "include_background"])
def absent_class_costs_its_mean_probability(loss: LossSubject, options: Options) -> None:
    """``absent="penalize"`` costs the mean predicted probability of a class the target lacks."""
    chosen = _one_class(loss, options, absent="penalize")
    logits = loss.logits(num_classes=1)
    nothing = torch.zeros_like(logits)
    expected = logits.sigmoid().flatten(1).mean(1)
    value = loss.run(chosen, logits, nothing)
    same(value, expected.mean(), "an absent class against its mean probability")


@loss_law(needs=["absent"], fixes=["absent", "activation", "class_weight", "include_background"])
def absent_class_may_be_left_out(loss: LossSubject, options: Options) -> None:
    """``absent="skip"`` is the mean over the other channels; with none left it is finite."""
    chosen = _one_class(loss, options, absent="skip")
    classes = max(2, loss.num_classes)
    logits = loss.logits(num_classes=classes)
    target = torch.zeros_like(logits)
    target[:, :-1] = loss.logits(num_classes=classes, seed=4)[:, :-1] > 0
    others = loss.score(chosen, logits[:, :-1], target[:, :-1])
    skipping = loss.score(chosen, logits, target)
    same(skipping.value, others.value, "a class left out against its channel taken away")
    same(skipping.gradient[:, :-1], others.gradient, "gradient of the other channels")
    expect(not skipping.gradient[:, -1].any(), "the class that is left out gets a gradient")
    for part in loss.score(chosen, logits, torch.zeros_like(logits)):
        finite(part, "every class left out")


@loss_law(needs=["activation"], fixes=["activation", "class_weight", "include_background"])
def channels_of_a_multi_label_target_are_scored_one_by_one(
    loss: LossSubject, options: Options
) -> None:
    """Under sigmoid, with any labels at a voxel, the mean is that over single channels."""
    chosen = _one_class(loss, options)
    classes = max(2, loss.num_classes)
    logits = loss.logits(num_classes=classes)
    target = (loss.logits(num_classes=classes, seed=4) > 0).double()
    single = [loss.run(chosen, logits[:, c : c + 1], target[:, c : c + 1]) for c in range(classes)]
    together = loss.run(chosen, logits, target)
    same(together, torch.stack(single).mean(), "channels together against one by one")


def _one_class(loss: LossSubject, options: Options, *, absent: str | None = None) -> Options:
    """Return options that score each channel for itself, and take the mean."""
    if not loss.offers("activation") or "sigmoid" not in loss.values("activation"):
        raise NotApplicable("needs activation='sigmoid', which this loss does not offer")
    if options.get("reduction", "mean") != "mean":
        raise NotApplicable("needs reduction='mean'")
    if absent is not None and absent not in loss.values("absent"):
        raise NotApplicable(f"needs absent={absent!r}, which this loss does not offer")
    chosen: Options = {**options, "activation": "sigmoid"}
    return chosen if absent is None else {**chosen, "absent": absent}


LAWS = (
    class_weights_never_rescale,
    class_weights_choose_between_classes,
    background_leaves_after_the_activation,
    absent_class_keeps_a_gradient,
    false_positive_costs_on_an_empty_target,
    absent_class_costs_its_mean_probability,
    absent_class_may_be_left_out,
    channels_of_a_multi_label_target_are_scored_one_by_one,
)
