"""Laws of losses: what the value and the gradient mean."""

from itertools import pairwise

import torch
from torch import Tensor

from medkit.testing._comparison import expect, finite, norm, same
from medkit.testing._contract import NotApplicable
from medkit.testing._loss_subject import LossSubject, loss_law, ramp
from medkit.testing._options import Options

SIGNAL = 1e-6
"""Least share of the loss's gradient that counts as one."""

ABSENT_SIGNAL = 1e-3
"""Least gradient, summed over voxels, against a class that is predicted and absent."""


@loss_law(needs=["reduction"], fixes=["reduction", "class_weight"], segmentation=False)
def reductions_agree(loss: LossSubject, options: Options) -> None:
    """``"sum"`` adds up ``"none"``; ``"mean"`` divides by its values, or by those that count."""
    each = loss.run({**options, "reduction": "none"}, *loss.arguments())
    if "sum" in loss.values("reduction"):
        total = loss.run({**options, "reduction": "sum"}, *loss.arguments())
        same(total, each.sum(), "reduction='sum' against the sum of 'none'")
    if "mean" in loss.values("reduction"):
        mean = loss.run({**options, "reduction": "mean"}, *loss.arguments())
        counting = each.sum() / each.count_nonzero()  # a background voxel may not count
        expected = counting if torch.isclose(mean, counting, rtol=1e-4) else each.mean()
        same(mean, expected, "reduction='mean' against the mean of 'none'")


@loss_law(needs=["class_weight"], fixes=["class_weight"])
def class_weights_never_rescale(loss: LossSubject, options: Options) -> None:
    """Equal weights are no weights, and weights ten times as large change nothing."""
    classes = _several_classes(loss)
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
    classes = _several_classes(loss)
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


@loss_law()
def perfect_prediction_costs_nothing(loss: LossSubject, options: Options) -> None:
    """A perfect and certain prediction has loss 0, whatever the weights."""
    labels = loss.labels()
    value = loss.run(options, loss.confident(labels), labels)
    worst = float(value.abs().max())
    expect(worst < 1e-4, f"a perfect prediction costs {worst:.4g} where 0 is expected")


@loss_law()
def worse_prediction_costs_more(loss: LossSubject, options: Options) -> None:
    """The loss rises from the right prediction over an undecided one to a wrong one."""
    labels = loss.labels()
    right = loss.confident(labels, size=4.0)
    wrong = -right if loss.num_classes == 1 else right.roll(1, 1)
    mix = torch.linspace(0, 1, 5, dtype=torch.float64)
    costs = [float(loss.run(options, right + t * (wrong - right), labels).sum()) for t in mix]
    rising = all(a < b for a, b in pairwise(costs))
    expect(rising, f"from right to wrong the loss goes {', '.join(f'{c:.4g}' for c in costs)}")


@loss_law(segmentation=False)
def gradient_is_finite_and_not_zero(loss: LossSubject, options: Options) -> None:
    """The gradient is finite, and is not zero, at an ordinary input."""
    if loss.sample is not None:
        raise NotApplicable("tried by gradients_are_exact_in_float64")
    gradient = loss.score(options, loss.logits(), loss.labels()).gradient
    finite(gradient, "gradient")
    expect(gradient.abs().max() > SIGNAL, f"largest gradient {float(gradient.abs().max()):.3g}")


@loss_law(needs=["include_background"], fixes=["include_background", "activation"])
def background_leaves_after_the_activation(loss: LossSubject, options: Options) -> None:
    """Without background, its logit still competes with the others under softmax."""
    _softmax_only(loss)
    chosen: Options = {**options, "include_background": False}
    gradient = loss.score(chosen, loss.logits(), loss.labels()).gradient
    share = norm(gradient[:, 0]) / norm(gradient)
    expect(share > 1e-3, f"background logit gets {share:.3g} of the gradient; it left too early")


@loss_law(fixes=["activation"])
def input_is_logits(loss: LossSubject, options: Options) -> None:
    """Under softmax, adding a number to all logits of a voxel changes nothing."""
    _softmax_only(loss)
    logits, labels = loss.logits(), loss.labels()
    shift = 3.0 * loss.logits(seed=9)[:, :1]
    expected = loss.run(options, logits, labels)
    same(loss.run(options, logits + shift, labels), expected, "logits shifted voxel by voxel")


def _softmax_only(loss: LossSubject) -> None:
    _several_classes(loss)
    if not loss.offers("activation"):
        raise NotApplicable("needs activation, which this loss does not offer")
    if not _is_softmax(loss):
        raise NotApplicable("its activation is not softmax")


def _is_softmax(loss: LossSubject) -> bool:
    return loss.values("activation")[0] == "softmax"


@loss_law(needs=["activation"], fixes=["activation"])
def activation_may_be_applied_outside(loss: LossSubject, options: Options) -> None:
    """``activation=None`` on probabilities equals the default activation on logits."""
    if not loss.allows_none("activation"):
        raise NotApplicable("offers no activation=None")
    logits, labels = loss.logits(), loss.labels()
    probabilities = logits.softmax(1) if _is_softmax(loss) else logits.sigmoid()
    outside = loss.run({**options, "activation": None}, probabilities, labels)
    inside = loss.run({**options, "activation": loss.values("activation")[0]}, logits, labels)
    same(outside, inside, "probabilities against logits")


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


@loss_law(fixes=["include_background"])
def false_positive_branch_is_pushed_down(loss: LossSubject, options: Options) -> None:
    """Beside a structure that is found, a false branch of it gets a gradient against it."""
    shape = tuple(max(edge, 9) for edge in loss.spatial_shape)
    labels = torch.zeros(1, *shape, dtype=torch.int64)
    middle = tuple(edge // 2 for edge in shape)
    labels[(0, slice(None), *middle[1:])] = 1
    predicted = labels.clone()
    branch = (0, middle[0], slice(middle[1] + 1, None), *middle[2:])
    if len(shape) < 2:  # a line has no branches
        raise NotApplicable("needs two spatial axes")
    predicted[branch] = 1
    logits = loss.confident(predicted, size=1.0)
    gradient = loss.score(options, logits, labels).gradient
    channel = min(1, loss.num_classes - 1)
    push = float(gradient[:, channel][branch].sum())
    total = norm(gradient)
    expect(push > SIGNAL * total, f"gradient on the false branch {push:.3g} of {total:.3g} in all")


def _several_classes(loss: LossSubject) -> int:
    if loss.num_classes == 1:
        raise NotApplicable("needs more than one class")
    return loss.num_classes


LAWS = (
    reductions_agree,
    class_weights_never_rescale,
    class_weights_choose_between_classes,
    perfect_prediction_costs_nothing,
    worse_prediction_costs_more,
    gradient_is_finite_and_not_zero,
    background_leaves_after_the_activation,
    input_is_logits,
    activation_may_be_applied_outside,
    absent_class_keeps_a_gradient,
    false_positive_costs_on_an_empty_target,
    false_positive_branch_is_pushed_down,
)
