"""What every voxel loss takes, checked once and brought to one form."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import class_index

Activation = Literal["softmax", "sigmoid"]
Reduction = Literal["mean", "sum", "none"]

ACTIVATIONS = ("softmax", "sigmoid", None)
REDUCTIONS = ("mean", "sum", "none")
SLACK = 1e-3
"""How far resampled soft labels may leave [0, 1]."""


class Voxels(NamedTuple):
    """Checked arguments of a loss.

    Attributes:
        input: Logits, or probabilities.
        target: A class index per voxel ``(batch, *spatial)``, safe to gather with, or a value per
            channel, of the shape of ``input``.
        weight: How much each voxel counts; None if each counts once.
    """

    input: Float[Tensor, "batch channel *spatial"]
    target: Shaped[Tensor, "batch ..."]
    weight: Float[Tensor, "batch *spatial"] | Bool[Tensor, "batch *spatial"] | None


def as_voxels(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None,
    *,
    activation: Activation | None,
    ignore_index: int | None,
) -> Voxels:
    """Return input, target and voxel weights in one form; raise where they do not fit."""
    _check_input(input, activation)
    weight = None if mask is None else _check_mask(mask, input)
    if _holds_channels(target, input):
        if ignore_index is not None:
            rule = "None for a target of one value per channel, where mask says what to leave out"
            raise check.fail("ignore_index", rule, ignore_index)
        _check_values(target, weight)
        return Voxels(input, target, weight)
    num_classes = max(2, input.shape[1])
    labels = target.reshape(input.shape[0], *input.shape[2:])
    if weight is not None:
        labels = torch.where(weight > 0, labels, 0)
    index, kept = class_index(
        labels, num_classes=num_classes, ignore_index=ignore_index, name="target"
    )
    if kept is not None:
        weight = kept if weight is None else weight * kept
    return Voxels(input, index if input.shape[1] > 1 else index.unsqueeze(1), weight)


def _check_input(input: Tensor, activation: Activation | None) -> None:
    check.one_of("activation", activation, ACTIVATIONS)
    if not input.is_floating_point():
        raise TypeError(f"input must be floating point; got {input.dtype}")
    if input.ndim < 2 or input.shape[1] < 1:
        raise check.fail("input", "(batch, channel, *spatial)", f"shape {tuple(input.shape)}")
    if input.shape[1] == 1 and activation == "softmax":
        rule = "'sigmoid' or None for an input of one channel, whose softmax is one everywhere"
        raise check.fail("activation", rule, repr(activation))


def _holds_channels(target: Tensor, input: Tensor) -> bool:
    """Return whether the target has a value per channel, or else class indices; check its shape."""
    if target.shape == input.shape and (input.shape[1] > 1 or target.is_floating_point()):
        return True
    if not _has_no_channels(target, input):
        rule = (
            "a class map (batch, *spatial) or (batch, 1, *spatial), or one value per channel "
            f"(batch, channel, *spatial), for an input of shape {tuple(input.shape)}"
        )
        raise check.fail("target", rule, f"shape {tuple(target.shape)}")
    return False


def _has_no_channels(maps: Tensor, input: Tensor) -> bool:
    plain = (input.shape[0], *input.shape[2:])
    return tuple(maps.shape) in {plain, (plain[0], 1, *plain[1:])}


def _check_mask(mask: Tensor, input: Tensor) -> Tensor:
    """Return the mask without its channel axis."""
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(f"mask must be boolean or floating point; got {mask.dtype}")
    if not _has_no_channels(mask, input):
        rule = (
            f"(batch, *spatial) or (batch, 1, *spatial), for an input of shape {tuple(input.shape)}"
        )
        raise check.fail("mask", rule, f"shape {tuple(mask.shape)}")
    if mask.is_floating_point() and can_look_at(mask):
        low, high = (float(bound) for bound in mask.detach().aminmax())
        if not 0 <= low <= high < torch.inf:
            raise check.fail("mask", "zero or positive, and finite", f"values {low} to {high}")
    return mask.reshape(input.shape[0], *input.shape[2:])


def _check_values(target: Tensor, weight: Tensor | None) -> None:
    """Raise unless the values that count are fractions."""
    if target.is_complex():
        raise TypeError(f"target must be real; got {target.dtype}")
    if target.dtype == torch.bool or not can_look_at(target):
        return
    low, high = (float(bound) for bound in target.detach().aminmax())
    if not (low >= -SLACK and high <= 1 + SLACK) and weight is not None:
        counted = torch.where(weight.unsqueeze(1) > 0, target, 0)
        low, high = (float(bound) for bound in counted.detach().aminmax())
    if not (low >= -SLACK and high <= 1 + SLACK):
        rule = "in [0, 1] where it has one value per channel"
        raise check.fail("target", rule, f"values {low} to {high}")


def can_look_at(values: Tensor) -> bool:
    """Return whether reading a value stalls no device and breaks no graph."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling() and values.numel() > 0


def class_weights(
    class_weight: Sequence[float] | Tensor | None, like: Tensor, *, include_background: bool
) -> Tensor:
    """Return one weight per channel, zero for a background that is left out, in float32 or float64.

    The weights average one over the channels that take part, so that only their ratios matter.
    """
    channels = like.shape[1]
    taking_part = channels if include_background else channels - 1
    if not taking_part:
        raise check.fail("include_background", "True for an input of one channel", "False")
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    weight = torch.ones(channels, dtype=dtype, device=like.device)
    if class_weight is not None:
        weight = torch.as_tensor(class_weight, dtype=dtype, device=like.device)
        if tuple(weight.shape) != (channels,):
            rule = f"one number for each of the {channels} channels, the background's included"
            raise check.fail("class_weight", rule, f"shape {tuple(weight.shape)}")
    if not include_background:
        weight = torch.cat([weight.new_zeros(1), weight[1:]])
    total = weight.sum()
    if class_weight is not None and can_look_at(weight):
        low, high = float(weight.detach().min()), float(total.detach())
        if not (low >= 0 and 0 < high < torch.inf):
            rule = "zero or positive, with a positive sum over the classes that take part"
            raise check.fail("class_weight", rule, f"{class_weight}")
    return weight * (taking_part / total)
