"""Laws of losses: what the value and the gradient mean."""

from itertools import pairwise

import torch

from ._comparison import expect, finite, norm, same
from ._contract import NotApplicable
from ._loss_subject import LossSubject, loss_law, needs_softmax
from ._options import Options

SIGNAL = 1e-6
"""Least share of the loss's gradient that counts as one."""


@loss_law(needs=["reduction"], fixes=["reduction", "class_weight"], segmentation=False)
def reductions_agree(loss: LossSubject, options: Options) -> None:
    """``"sum"`` adds up ``"none"``; ``"mean"`` divides by its values, or by those that count."""
    offered = set(loss.values("reduction"))
    if "none" not in offered or not offered & {"mean", "sum"}:
        raise NotApplicable("offers no 'none' to compare 'mean' or 'sum' with")
    each = loss.run({**options, "reduction": "none"}, *loss.arguments())
    if "sum" in offered:
        total = loss.run({**options, "reduction": "sum"}, *loss.arguments())
        same(total, each.sum(), "reduction='sum' against the sum of 'none'")
    if "mean" in offered:
        mean = loss.run({**options, "reduction": "mean"}, *loss.arguments())
        counting = each.sum() / each.count_nonzero()  # a background voxel may not count
        expected = counting if torch.isclose(mean, counting, rtol=1e-4) else each.mean()
        same(mean, expected, "reduction='mean' against the mean of 'none'")


@loss_law()
def perfect_prediction_costs_nothing(loss: LossSubject, options: Options) -> None:
    """A perfect and certain prediction has loss 0, whatever the weights and the classes."""
    labels = loss.labels()
    fewer = torch.where(labels == loss.num_classes - 1, 0, labels)
    for name, target in (("", labels), (", its last class absent,", fewer)):
        value = loss.run(options, loss.confident(target), target)
        worst = float(value.abs().max())
        expect(worst < 1e-4, f"a perfect prediction{name} costs {worst:.4g} where 0 is expected")


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


@loss_law(fixes=["activation"])
def input_is_logits(loss: LossSubject, options: Options) -> None:
    """Under softmax, adding a number to all logits of a voxel changes nothing."""
    needs_softmax(loss)
    logits, labels = loss.logits(), loss.labels()
    shift = 3.0 * loss.logits(seed=9)[:, :1]
    expected = loss.run(options, logits, labels)
    same(loss.run(options, logits + shift, labels), expected, "logits shifted voxel by voxel")


@loss_law(needs=["activation"], fixes=["activation"])
def activation_may_be_applied_outside(loss: LossSubject, options: Options) -> None:
    """``activation=None`` on probabilities equals the default activation on logits."""
    if not loss.allows_none("activation"):
        raise NotApplicable("offers no activation=None")
    logits, labels = loss.logits(), loss.labels()
    probabilities = logits.softmax(1) if loss.is_softmax else logits.sigmoid()
    outside = loss.run({**options, "activation": None}, probabilities, labels)
    inside = loss.run({**options, "activation": loss.values("activation")[0]}, logits, labels)
    same(outside, inside, "probabilities against logits")


@loss_law(fixes=["include_background"])
def false_positive_branch_is_pushed_down(loss: LossSubject, options: Options) -> None:
    """Beside a structure that is found, a false branch of it gets a gradient against it."""
    shape = tuple(max(edge, 9) for edge in loss.spatial_shape)
    if len(shape) < 2:
        raise NotApplicable("needs two spatial axes")
    labels = torch.zeros(1, *shape, dtype=torch.int64)
    middle = tuple(edge // 2 for edge in shape)
    labels[(0, slice(None), *middle[1:])] = 1
    predicted = labels.clone()
    branch = (0, middle[0], slice(middle[1] + 1, None), *middle[2:])
    predicted[branch] = 1
    logits = loss.confident(predicted, size=1.0)
    gradient = loss.score(options, logits, labels).gradient
    channel = min(1, loss.num_classes - 1)
    push = float(gradient[:, channel][branch].sum())
    total = norm(gradient)
    expect(push > SIGNAL * total, f"gradient on the false branch {push:.3g} of {total:.3g} in all")


@loss_law()
def thin_structure_is_seen_wherever_it_lies(loss: LossSubject, options: Options) -> None:
    """A structure one voxel thin in the target changes the loss, wherever it lies."""
    logits, empty = 0.1 * loss.logits(), torch.zeros_like(loss.labels())
    without = float(loss.run(options, logits, empty).sum())
    for place in range(loss.spatial_shape[0]):
        thin = empty.clone()
        thin[:, place] = 1
        change = abs(float(loss.run(options, logits, thin).sum()) - without)
        expect(change > SIGNAL, f"a layer of voxels at {place} changes the loss by {change:.3g}")


LAWS = (
    reductions_agree,
    perfect_prediction_costs_nothing,
    worse_prediction_costs_more,
    gradient_is_finite_and_not_zero,
    input_is_logits,
    activation_may_be_applied_outside,
    false_positive_branch_is_pushed_down,
    thin_structure_is_seen_wherever_it_lies,
)
