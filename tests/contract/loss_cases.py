"""How each public loss is held to the laws: found from `medkit.losses.__all__`.

A class `XyzLoss` with a function `xyz_loss` beside it is a case by itself. Whatever takes other
arguments is listed here; a public name that is neither fails the discovery test.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

import medkit.losses
from medkit.losses import (
    CrossEntropyLoss,
    DeepSupervision,
    DiceLoss,
    UncertaintyWeighting,
    WeightedSum,
    WholeBatch,
)
from medkit.testing import Report, loss_report

Case = dict[str, object]


def dice_and_cross_entropy(
    *,
    activation: Literal["softmax", "sigmoid"] = "softmax",
    include_background: bool = True,
    ignore_index: int | None = None,
    class_weight: Sequence[float] | None = None,
    absent: Literal["ratio", "penalize", "skip"] = "ratio",
    batch: bool = False,
) -> WeightedSum:
    """The usual sum, with one set of options for both terms."""
    shared = {
        "activation": activation,
        "include_background": include_background,
        "ignore_index": ignore_index,
        "class_weight": class_weight,
    }
    dice = DiceLoss(absent=absent, batch=batch, **shared)
    return WeightedSum({"dice": (0.5, dice), "ce": (2.0, CrossEntropyLoss(**shared))})


def around(composition: Callable[[nn.Module], nn.Module]) -> Callable[..., nn.Module]:
    """Return a factory with the options of the usual sum, which puts something around it."""

    @functools.wraps(dice_and_cross_entropy)
    def factory(**options: object) -> nn.Module:
        return composition(dice_and_cross_entropy(**options))

    return factory


def apart(composition: Callable[[dict[str, nn.Module]], nn.Module]) -> Callable[..., nn.Module]:
    """Return a factory with the options of the usual sum, for its two losses by name."""
    return around(lambda loss: composition(dict(loss.losses.items())))


class InPieces(nn.Module):
    """A loss of a whole batch, shown sample by sample and put together again."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.whole = WholeBatch(loss)

    def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        pieces = [
            (input[i : i + 1], target[i : i + 1], None if mask is None else mask[i : i + 1])
            for i in range(max(len(input), len(target)))
        ]
        for x, t, m in pieces:
            self.whole.add(x, t, mask=m)
        values = torch.stack([self.whole(x, t, mask=m) for x, t, m in pieces])
        return values.sum() - values.detach()[1:].sum()


class TwoHeads(nn.Module):
    """A loss on two heads that say the same; a coarser one would obey no law on single voxels."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.supervision = DeepSupervision(loss, weights=(1.0, 0.5))

    def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return self.supervision([input, input], target, mask=mask)


def nodes(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A prediction per node, a target per group, and the group of each node, in no order."""
    group_ids = torch.tensor([7, 2, 2, 40, 7, 2, 40, 40, 7])
    predictions = torch.randn(len(group_ids), generator=generator)
    return predictions, torch.randn(3, generator=generator), group_ids


IN_ROWS = {
    "false_positive_branch_is_pushed_down": "layers have no branches",
    "order_of_axes_changes_nothing": "layers lie one below the other",
    "resolution_changes_nothing": "it is measured in rows",
}
SUM = {
    "absent_class_costs_its_mean_probability": "cross entropy is added",
    "absent_class_may_be_left_out": "cross entropy is added",
    "samples_are_scored_one_by_one": "cross entropy averages the voxels of all samples",
}
UNORDERED = "the posterior expects layers in order, which a random scene has not"

LISTED: dict[str, Case] = {
    "BoundaryLoss": {
        "factory": medkit.losses.BoundaryLoss,
        "function": medkit.losses.boundary_loss,
        "excuses": {"resolution_changes_nothing": "distances are in voxels unless told their size"},
    },
    "ClDiceLoss": {
        "factory": medkit.losses.ClDiceLoss,
        "function": medkit.losses.cldice_loss,
        "vary": {"iterations": (2,), "skeleton_gradient": (True,)},
        "excuses": {
            "resolution_changes_nothing": "a skeleton stays one voxel thin",
            "batch_pools_the_voxels_of_all_samples": "samples that touch have another skeleton",
        },
    },
    "FocalLoss of shares": {
        "factory": medkit.losses.FocalLoss,
        "function": medkit.losses.focal_loss,
        "vary": {"gamma": (0.5, 3.0), "alpha": (0.3,)},
        "excuses": {"order_of_classes_changes_nothing": "alpha sets the background apart"},
    },
    "GeneralizedDiceLoss": {
        "factory": medkit.losses.GeneralizedDiceLoss,
        "function": medkit.losses.generalized_dice_loss,
        "excuses": {
            "channels_of_a_multi_label_target_are_scored_one_by_one": "all classes share a ratio",
        },
    },
    "DeepSupervision of two heads": {"factory": around(TwoHeads), "excuses": SUM},
    "DynamicWeightAverage": {
        "factory": apart(medkit.losses.DynamicWeightAverage),
        "excuses": SUM,
    },
    "GradNorm": {"factory": apart(medkit.losses.GradNorm), "excuses": SUM},
    "GroupReconstructionLoss": {
        "factory": medkit.losses.GroupReconstructionLoss,
        "function": medkit.losses.group_reconstruction_loss,
        "sample": nodes,
        "vary": {"targets_per": (None, "group")},
    },
    "LayerBoundaryLoss": {
        "factory": medkit.losses.LayerBoundaryLoss,
        "function": medkit.losses.layer_boundary_loss,
        "vary": {"method": ("sum",)},
        "excuses": IN_ROWS,
    },
    "LayerBoundaryLoss by posterior": {
        "factory": medkit.losses.LayerBoundaryLoss,
        "function": medkit.losses.layer_boundary_loss,
        "vary": {"method": ("posterior",)},
        "excuses": {
            **IN_ROWS,
            "perfect_prediction_costs_nothing": UNORDERED,
            "worse_prediction_costs_more": UNORDERED,
            "order_of_classes_changes_nothing": "layers lie one below the other",
        },
    },
    "ReLoBRaLo": {"factory": apart(medkit.losses.ReLoBRaLo), "excuses": SUM},
    "SkeletonRecallLoss": {
        "factory": medkit.losses.SkeletonRecallLoss,
        "function": medkit.losses.skeleton_recall_loss,
        "vary": {"iterations": (2,)},
        "excuses": {
            "false_positive_branch_is_pushed_down": "a recall says nothing about false positives",
            "resolution_changes_nothing": "a skeleton stays one voxel thin",
            "batch_pools_the_voxels_of_all_samples": "samples that touch have another skeleton",
        },
    },
    "TverskyLoss to a power": {
        "factory": medkit.losses.TverskyLoss,
        "function": medkit.losses.tversky_loss,
        "vary": {"alpha": (0.3,), "beta": (0.7,), "gamma": (0.75, 2.0)},
    },
    "UncertaintyWeighting": {
        "factory": apart(lambda losses: UncertaintyWeighting(losses).requires_grad_(False)),
        "excuses": SUM,
    },
    "WeightedSum": {"factory": dice_and_cross_entropy, "excuses": SUM},
    "WholeBatch": {"factory": around(InPieces), "excuses": SUM},
}
"""Public losses that need more than their name to be tried, with the laws they do not obey."""


def found() -> dict[str, Case]:
    """Return a case for each public class that has its function beside it."""
    public = {name: getattr(medkit.losses, name) for name in medkit.losses.__all__}
    functions = {n.replace("_", ""): f for n, f in public.items() if not inspect.isclass(f)}
    return {
        name: {"factory": thing, "function": functions[name.lower()]}
        for name, thing in public.items()
        if inspect.isclass(thing) and name.lower() in functions
    }


CASES: dict[str, Case] = {**found(), **LISTED}


def without_a_case() -> list[str]:
    """Return the public callables that no law is tried on."""
    covered = {id(case.get(key)) for case in CASES.values() for key in ("factory", "function")}
    return [
        name
        for name in medkit.losses.__all__
        if not any(name == case.partition(" ")[0] for case in CASES)
        and callable(thing := getattr(medkit.losses, name))
        and id(thing) not in covered
        and not (inspect.isclass(thing) and issubclass(thing, tuple))
    ]


def report(name: str, law: str) -> Report:
    """Hold a public loss to one law."""
    return loss_report(laws=[law], **CASES[name])
