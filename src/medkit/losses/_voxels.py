"""What every voxel loss takes, checked once and brought to one form."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import class_index

Activation = Literal["softmax", "sigmoid"]
Reduction = Literal["mean", "sum", "none"]


class Voxels(NamedTuple):
    """Checked arguments of a loss.

    ``target`` is a class index per voxel ``(batch, *spatial)`` or a value per channel, of the
    shape of ``input``; ``weight`` says how much each voxel counts, None everywhere one.
    """

    input: Float[Tensor, "batch channel *spatial"]
    target: Shaped[Tensor, "batch ..."]
    weight: Shaped[Tensor, "batch *spatial"] | None


def as_voxels(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None,
    *,
    activation: Activation | None,
    ignore_index: int | None,
) -> Voxels:
    """Return input, target and voxel weights in one form; raise where they do not fit."""
    check.one_of("activation", activation, ("softmax", "sigmoid", None))
    if not input.is_floating_point():
        raise TypeError(f"input must be floating point; got {input.dtype}")
    if input.ndim < 2:
        raise check.fail("input", "(batch, channel, *spatial)", f"shape {tuple(input.shape)}")
    channels = input.shape[1]
    if channels == 1 and activation == "softmax":
        raise check.fail(
            "activation", "'sigmoid' or None for an input of one channel", repr(activation)
        )
    counted = None
    if _is_class_map(input, target):
        target = target.reshape(input.shape[0], *input.shape[2:])
        target, counted = class_index("target", target, max(channels, 2), ignore_index)
        if channels == 1:
            target = target.unsqueeze(1)
    elif ignore_index is not None:
        raise check.fail(
            "ignore_index", "None for a target of one value per channel (use mask)", ignore_index
        )
    else:
        _check_values(target)
    return Voxels(input, target, _weight(input, counted, mask))


def _is_class_map(input: Tensor, target: Tensor) -> bool:
    """Return whether the target holds class indices; raise if its shape fits nothing."""
    shape, spatial = tuple(target.shape), tuple(input.shape[2:])
    as_map = shape in {(input.shape[0], *spatial), (input.shape[0], 1, *spatial)}
    if shape == tuple(input.shape) and (input.shape[1] > 1 or target.is_floating_point()):
        return False
    if not as_map:
        raise check.fail(
            "target",
            "a class map (batch, *spatial) or (batch, 1, *spatial), or one value per channel "
            f"(batch, channel, *spatial), for an input of shape {tuple(input.shape)}",
            f"shape {shape}",
        )
    return True


def _check_values(target: Tensor) -> None:
    if target.is_complex():
        raise TypeError(f"target must be real; got {target.dtype}")
    if target.device.type != "cpu" or torch.compiler.is_compiling() or not target.numel():
        return
    if target.dtype == torch.bool:
        return
    low, high = (float(bound) for bound in target.aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise check.fail("target", "in [0, 1] where it has a value per channel", f"{low} to {high}")


def _weight(input: Tensor, counted: Tensor | None, mask: Tensor | None) -> Tensor | None:
    if mask is None:
        return counted
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(f"mask must be boolean or floating point; got {mask.dtype}")
    spatial = tuple(input.shape[2:])
    if tuple(mask.shape) not in {(input.shape[0], *spatial), (input.shape[0], 1, *spatial)}:
        raise check.fail(
            "mask",
            "(batch, *spatial) or (batch, 1, *spatial), "
            f"for an input of shape {tuple(input.shape)}",
            f"shape {tuple(mask.shape)}",
        )
    mask = mask.reshape(input.shape[0], *spatial)
    return mask if counted is None else mask * counted


def class_weights(
    class_weight: Sequence[float] | Tensor | None, like: Tensor, *, include_background: bool
) -> Tensor:
    """Return one weight per channel of mean one over those that take part, background zero if left out."""
    channels = like.shape[1]
    if not include_background and channels == 1:
        raise check.fail("include_background", "True for an input of one channel", False)
    weight = like.new_ones(channels, dtype=accumulation_dtype(like))
    if class_weight is not None:
        weight = torch.as_tensor(class_weight, dtype=weight.dtype, device=like.device)
        if tuple(weight.shape) != (channels,):
            raise check.fail(
                "class_weight",
                f"one weight for each of the {channels} channels of input",
                f"shape {tuple(weight.shape)}",
            )
    if not include_background:
        weight = torch.cat([weight.new_zeros(1), weight[1:]])
    return weight * ((channels - (not include_background)) / weight.sum())


def accumulation_dtype(input: Tensor) -> torch.dtype:
    """Return float64 for a float64 input and float32 for any other."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32
