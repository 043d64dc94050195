"""Laws of losses: exact in float64, right in half precision, finite at the edges."""

import math
from typing import cast as as_type

import torch
from torch import Tensor

from ._close import TOLERANCES
from ._comparison import expect, finite, norm, relative_error, same
from ._contract import NotApplicable
from ._loss_subject import LossSubject, loss_law
from ._options import Options, spell
from ._trees import Tree, apply, cast, first_leaf

MILLION = 1_000_000
HALF = (torch.float16, torch.bfloat16)
GRADIENT_ERROR = {torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Largest relative error, in norm, of a gradient that is stored in half precision."""

STEP = 1e-6
DIRECTIONS = 5


@loss_law(segmentation=False)
def gradients_are_exact_in_float64(loss: LossSubject, options: Options) -> None:
    """The float64 gradient equals the difference quotient along random directions."""
    if loss.sample is None:
        shape = tuple(min(edge, 3) for edge in loss.spatial_shape)
        arguments: tuple[Tree, ...] = (
            loss.logits(spatial_shape=shape),
            loss.labels(spatial_shape=shape),
        )
    else:
        arguments = loss.arguments()
    point = first_leaf(arguments).detach().clone().requires_grad_()

    def at(position: Tensor) -> Tensor:
        return loss.run(options, *_with_first(arguments, position)).sum()

    value = at(point)
    finite(value, "loss")
    gradient = torch.autograd.grad(value, point)[0]
    finite(gradient, "gradient")
    expect(gradient.any(), "gradient is exactly 0")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _ in range(DIRECTIONS):
            direction = torch.randn(point.shape, generator=generator, dtype=torch.float64)
            ahead, behind = at(point + STEP * direction), at(point - STEP * direction)
            quotient = (ahead - behind) / (2 * STEP)
            what = "gradient along a random direction, against the difference quotient"
            same((gradient * direction).sum(), quotient, what, rtol=1e-5, atol=1e-8)


@loss_law(every_setting=False)
def half_precision_agrees_at_a_million_voxels(loss: LossSubject, options: Options) -> None:
    """At a million voxels, float16 and bfloat16 give the value and gradient of float64."""
    edge = round(MILLION ** (1 / len(loss.spatial_shape)))
    shape = tuple(edge for _ in loss.spatial_shape)
    classes = min(2, loss.num_classes)
    wide = loss.logits(samples=1, spatial_shape=shape, num_classes=classes)
    labels = loss.labels(samples=1, spatial_shape=shape, num_classes=classes)
    for place, chosen in enumerate(_activations(loss, options)):
        for dtype in HALF:
            logits = wide.to(dtype)
            expected = _backward(loss, chosen, logits.double(), labels)
            what = f"{spell(chosen)} {dtype}".replace("torch.", "").strip()
            _agrees(_backward(loss, chosen, logits, labels), expected, what, dtype)
            if place == 0 and dtype is torch.float16:
                with torch.autocast("cpu", dtype):
                    inside = loss.run(chosen, logits, labels)
                _agrees((inside, None), expected, f"{what} inside autocast", dtype)
                one_hot = loss.one_hot(labels, num_classes=classes).to(dtype)
                soft = _backward(loss, chosen, logits, one_hot)
                _agrees(soft, expected, f"{what} with a one-hot target of it", dtype)


def _activations(loss: LossSubject, options: Options) -> list[Options]:
    if not loss.offers("activation"):
        return [options]
    return [{**options, "activation": name} for name in loss.values("activation")]


def _backward(
    loss: LossSubject, options: Options, logits: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient, scaled as a loss scaler would do to keep half alive."""
    leaf = logits.detach().clone().requires_grad_()
    value = loss.run(options, leaf, target)
    if value.numel() != 1:
        raise NotApplicable("its default reduction is no single number")
    scale = torch.full_like(value, 2.0**15)
    return value.detach(), torch.autograd.grad(value, leaf, scale)[0]


def _agrees(
    found: tuple[Tensor, Tensor | None],
    expected: tuple[Tensor, Tensor],
    what: str,
    dtype: torch.dtype,
) -> None:
    value, gradient = found
    same(value.double(), expected[0], what, rtol=TOLERANCES[dtype].rtol, atol=1e-4)
    if gradient is None:
        return
    error = relative_error(gradient, expected[1])
    expect(
        error < GRADIENT_ERROR[dtype],
        f"{what}: gradient is off by {error:.3g} of its norm, {norm(gradient):.3g}"
        f" where {norm(expected[1]):.3g} is expected",
    )


@loss_law()
def nan_is_not_hidden(loss: LossSubject, options: Options) -> None:
    """A NaN logit at a voxel that counts makes the loss NaN, never a plausible number."""
    logits, labels = loss.logits(), loss.labels()
    last_class = max(1, loss.num_classes - 1)  # a background voxel need not count
    voxel = int((labels == last_class).flatten(1)[-1].int().argmax())
    logits.flatten(2)[-1, -1, voxel] = math.nan
    value = loss.run(options, logits, labels)
    expect(value.isnan().any(), f"a NaN logit gives a loss of {float(value.sum()):.4g}")


@loss_law(fixes=["reduction"])
def extreme_logits_stay_finite(loss: LossSubject, options: Options) -> None:
    """Logits of +-10,000, right or wrong, give a finite value and a finite gradient."""
    labels = loss.labels()
    right = loss.confident(labels, size=1e4)
    for dtype in (torch.float32, torch.float16):
        for name, logits in (("right", right), ("wrong", -right)):
            scored = loss.score(options, logits.to(dtype), labels)
            finite(scored.value, f"{name} logits of 1e4 in {dtype}: loss")
            finite(scored.gradient, f"{name} logits of 1e4 in {dtype}: gradient")


@loss_law(segmentation=False)
def dtype_is_kept(loss: LossSubject, options: Options) -> None:
    """float64 stays float64, float32 float32; half precision gives itself or float32."""
    for dtype in (torch.float64, torch.float32, *HALF):
        value = loss.run(options, *loss.arguments(dtype=dtype))
        allowed = (dtype, torch.float32) if dtype in HALF else (dtype,)
        expect(value.dtype in allowed, f"input of {dtype} gives a loss of {value.dtype}")
        expect(value.requires_grad is False, "asks for a gradient that its input does not")


@loss_law(segmentation=False)
def every_dtype_agrees_with_float64(loss: LossSubject, options: Options) -> None:
    """float32, float16 and bfloat16 give the value of float64, to the rounding of the dtype."""
    for dtype in (torch.float32, *HALF):
        arguments = loss.arguments(dtype=dtype)
        wide = loss.run(options, *(cast(argument, torch.float64) for argument in arguments))
        narrow = loss.run(options, *arguments)
        tolerance = TOLERANCES[dtype]
        what = f"{dtype} against float64".removeprefix("torch.")
        same(narrow.double(), wide, what, rtol=tolerance.rtol, atol=tolerance.atol)


@loss_law(segmentation=False)
def device_is_kept(loss: LossSubject, options: Options) -> None:
    """The result lies where the input lies; tried on the meta device, which has no values."""
    arguments = tuple(apply(a, lambda t: t.to("meta")) for a in loss.arguments())
    value = loss.run(options, *arguments)
    expect(value.device.type == "meta", f"input on meta gives a loss on {value.device}")
    expected = loss.run(options, *loss.arguments()).shape
    expect(value.shape == expected, f"shape {tuple(value.shape)} on meta, not {tuple(expected)}")


@loss_law(segmentation=False)
def same_input_gives_the_same_bits(loss: LossSubject, options: Options) -> None:
    """Two calls with one input give the same bits."""
    arguments = loss.arguments(dtype=torch.float32)
    first, second = loss.run(options, *arguments), loss.run(options, *arguments)
    expect(torch.equal(first, second), f"two calls differ by {_largest(first - second):.3g}")


def _largest(values: Tensor) -> float:
    return float(values.abs().nan_to_num(math.inf).max())


def _with_first(arguments: tuple[Tree, ...], tensor: Tensor) -> tuple[Tree, ...]:
    """Return the arguments with their first tensor replaced."""
    old = first_leaf(arguments)
    replaced = apply(arguments, lambda t: tensor if t is old else t)
    return as_type("tuple[Tree, ...]", replaced)


LAWS = (
    gradients_are_exact_in_float64,
    half_precision_agrees_at_a_million_voxels,
    nan_is_not_hidden,
    extreme_logits_stay_finite,
    dtype_is_kept,
    every_dtype_agrees_with_float64,
    device_is_kept,
    same_input_gives_the_same_bits,
)
