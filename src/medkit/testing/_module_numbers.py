"""Laws of modules: what a forward and a backward pass compute."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast as as_type

import torch
from torch import Tensor, nn

from ._comparison import expect, finite, norm, relative_error, same
from ._contract import NotApplicable
from ._module_subject import (
    ModuleSubject,
    differentiable,
    gradients_of,
    module_law,
    needs_parameters,
    outputs,
    weighted_sum,
)
from ._options import Options
from ._trees import Tree, apply, leaves

EXACT = 1e-9
"""Largest relative difference, in norm, between two float64 results that should be one."""

FLOAT32_ERROR = 1e-4
BFLOAT16_ERROR = 0.1
STEP = 1e-6
DIRECTIONS = 3


@module_law()
def output_is_finite(part: ModuleSubject, options: Options) -> None:
    """A fresh module gives finite numbers, in training and in evaluation."""
    module = part.build(options)
    for mode in (True, False):
        module.train(mode)
        for tensor in outputs(module, part.inputs(dtype=torch.float32)):
            finite(tensor, "output in training" if mode else "output in evaluation")


@module_law()
def every_parameter_gets_a_gradient(part: ModuleSubject, options: Options) -> None:
    """Each parameter gets a finite gradient, and in evaluation one that is not zero."""
    module = part.settled(options)
    needs_parameters(module)
    for mode in (True, False):
        module.train(mode)
        trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        value = weighted_sum(outputs(module, part.inputs()))
        gradients = gradients_of(value, list(trained.values()))
        for name, gradient in zip(trained, gradients, strict=True):
            expect(gradient is not None, f"no gradient reaches {name}")
            if gradient is not None:
                finite(gradient, f"gradient of {name}")
                expect(mode or bool(gradient.any()), f"gradient of {name} is exactly 0")


@module_law()
def gradients_are_exact_in_float64(part: ModuleSubject, options: Options) -> None:
    """The float64 gradient of inputs and parameters equals the difference quotient."""
    module = part.settled(options)
    inputs, tensors = differentiable(part.inputs())
    tensors += [p for p in module.parameters() if p.requires_grad]
    value = weighted_sum(outputs(module, inputs))
    gradients = [
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(tensors, gradients_of(value, tensors), strict=True)
    ]
    generator = torch.Generator().manual_seed(3)
    for _ in range(DIRECTIONS):
        steps = [_direction(tensor, generator) for tensor in tensors]
        slope = torch.stack([(g * d).sum() for g, d in zip(gradients, steps, strict=True)]).sum()
        ahead = _after(module, inputs, tensors, steps, STEP)
        behind = _after(module, inputs, tensors, steps, -STEP)
        quotient = (ahead - behind) / (2 * STEP)
        what = "gradient along a random direction, against the difference quotient"
        same(slope, quotient, what, rtol=1e-4, atol=1e-6)


def _direction(tensor: Tensor, generator: torch.Generator) -> Tensor:
    step = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    return step / max(norm(step), 1e-300)


def _after(
    module: nn.Module,
    inputs: Sequence[Tree],
    tensors: Sequence[Tensor],
    steps: Sequence[Tensor],
    size: float,
) -> Tensor:
    """Return the value after moving inputs and parameters along the steps, and move them back."""
    with torch.no_grad():
        before = [tensor.clone() for tensor in tensors]
        for tensor, step in zip(tensors, steps, strict=True):
            tensor.add_(size * step)
        value = weighted_sum(outputs(module, inputs))
        for tensor, old in zip(tensors, before, strict=True):
            tensor.copy_(old)
    return value


@module_law()
def samples_do_not_mix(part: ModuleSubject, options: Options) -> None:
    """In evaluation a sample has one result, alone or among others, in any order."""
    module = part.settled(options)
    inputs = part.inputs()
    size = _batch_size(inputs)
    together = _run(module, inputs)
    expect(
        all(t.ndim and t.shape[0] == size for t in together),
        f"{size} samples give shapes {[tuple(t.shape) for t in together]}",
    )
    for index in range(size):
        alone = _run(module, _each(inputs, lambda t, i=index: t[i : i + 1]))
        _all_close(alone, [t[index : index + 1] for t in together], f"sample {index} alone")
    reversed_inputs = _each(inputs, lambda t: t.flip(0))
    _all_close(_run(module, reversed_inputs), [t.flip(0) for t in together], "samples reversed")


@module_law()
def one_sample_trains(part: ModuleSubject, options: Options) -> None:
    """A batch of one can be trained on."""
    module = part.build(options).train()
    inputs = _each(part.inputs(dtype=torch.float32), lambda t: t[:1])
    for tensor in outputs(module, inputs):
        finite(tensor, "output for a batch of one, in training")


@module_law()
def evaluation_is_deterministic(part: ModuleSubject, options: Options) -> None:
    """In evaluation two calls give the same bits, draw no random numbers and change no state."""
    module = part.build(options).eval()
    inputs = part.inputs(dtype=torch.float32)
    random_state = torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    first, second = _run(module, inputs), _run(module, inputs)
    expect(_equal(first, second), "two calls in evaluation differ")
    expect(torch.equal(torch.get_rng_state(), random_state), "draws random numbers in evaluation")
    changed = [name for name, t in module.state_dict().items() if not torch.equal(t, before[name])]
    expect(not changed, f"a call in evaluation changes {', '.join(changed)}")


@module_law()
def float32_agrees_with_float64(part: ModuleSubject, options: Options) -> None:
    """float32 gives the output of float64 to rounding, and each dtype gives itself."""
    wide, narrow = part.settled(options), part.settled(options).float()
    expected = _run(wide, part.inputs())
    found = _run(narrow, part.inputs(dtype=torch.float32))
    for tensors, dtype in ((expected, torch.float64), (found, torch.float32)):
        given = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
        expect(given <= {dtype}, f"a module of {dtype} gives {given}")
    _all_close(found, expected, "float32 against float64", error=FLOAT32_ERROR)


@module_law()
def autocast_stays_near(part: ModuleSubject, options: Options) -> None:
    """Under bfloat16 autocast, output and gradients are finite and near those of float32."""
    module = part.settled(options, dtype=torch.float32)
    expected = _run(module, part.inputs(dtype=torch.float32))
    inputs, tensors = differentiable(part.inputs(dtype=torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        found = outputs(module, inputs)
    _all_close(found, expected, "bfloat16 autocast against float32", error=BFLOAT16_ERROR)
    tensors += [p for p in module.parameters() if p.requires_grad]
    for gradient in gradients_of(weighted_sum(found), tensors):
        if gradient is not None:
            finite(gradient, "gradient under bfloat16 autocast")


@module_law()
def half_precision_weights_work(part: ModuleSubject, options: Options) -> None:
    """A module and an input of bfloat16 give a finite bfloat16 output."""
    module = part.settled(options, dtype=torch.bfloat16)
    for tensor in _run(module, part.inputs(dtype=torch.bfloat16)):
        finite(tensor, "output of bfloat16 weights")
        expect(
            not tensor.is_floating_point() or tensor.dtype is torch.bfloat16,
            f"a module of bfloat16 gives {tensor.dtype}",
        )


@module_law()
def memory_layout_changes_nothing(part: ModuleSubject, options: Options) -> None:
    """Strides change nothing: channels last, and tensors that are not contiguous."""
    module = part.settled(options)
    inputs = part.inputs()
    expected = _run(module, inputs)
    for name, change in (("channels last", _channels_last), ("every second element", _strided)):
        _all_close(_run(module, _each(inputs, change)), expected, name)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1) if tensor.ndim > 2 else tensor


def _strided(tensor: Tensor) -> Tensor:
    return torch.stack([tensor, tensor], -1)[..., 0]


@module_law()
def inputs_are_left_alone(part: ModuleSubject, options: Options) -> None:
    """A call modifies none of its inputs, in training and in evaluation."""
    module = part.build(options)
    for mode in (True, False):
        module.train(mode)
        inputs = part.inputs(dtype=torch.float32)
        before = [(t.clone(), t._version) for t in leaves(inputs)]  # noqa: SLF001
        outputs(module, inputs)
        for place, (tensor, (values, version)) in enumerate(
            zip(leaves(inputs), before, strict=True)
        ):
            kept = torch.equal(tensor, values) and tensor._version == version  # noqa: SLF001
            expect(kept, f"input {place} of shape {tuple(tensor.shape)} is modified")


@module_law()
def features_are_maps(part: ModuleSubject, options: Options) -> None:
    """``features()`` returns maps of the batch, each no larger than the one before."""
    module = part.settled(options)
    features: object = getattr(module, "features", None)
    if not callable(features):
        raise NotApplicable("has no features()")
    maps = leaves(features(*part.inputs()))
    expect(bool(maps), "features() gives no tensor")
    shapes = [tuple(m.shape) for m in maps]
    size = _batch_size(part.inputs())
    expect(all(len(s) > 2 and s[0] == size for s in shapes), f"shapes of features: {shapes}")
    shrinking = all(x >= y for a, b in pairwise(shapes) for x, y in zip(a[2:], b[2:], strict=False))
    expect(shrinking, f"features grow: {shapes}")


def _run(module: nn.Module, inputs: Sequence[Tree]) -> list[Tensor]:
    with torch.no_grad():
        return outputs(module, inputs)


def _each(inputs: Sequence[Tree], change: Callable[[Tensor], Tensor]) -> tuple[Tree, ...]:
    return as_type("tuple[Tree, ...]", apply(tuple(inputs), change))


def _batch_size(inputs: Sequence[Tree]) -> int:
    sizes = {tensor.shape[0] for tensor in leaves(inputs) if tensor.ndim}
    if len(sizes) != 1 or sizes == {1}:
        raise NotApplicable("needs inputs that share a batch of two samples or more")
    return sizes.pop()


def _equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def _all_close(
    found: Sequence[Tensor], expected: Sequence[Tensor], what: str, *, error: float = EXACT
) -> None:
    for a, e in zip(found, expected, strict=True):
        shapes = f"{what}: shape {tuple(a.shape)} where {tuple(e.shape)} is expected"
        expect(a.shape == e.shape, shapes)
        finite(a, what)
        off = relative_error(a, e) if norm(e) else norm(a)
        expect(off <= error, f"{what}: off by {off:.3g} of its norm, where {error:g} is allowed")


LAWS = (
    output_is_finite,
    every_parameter_gets_a_gradient,
    gradients_are_exact_in_float64,
    samples_do_not_mix,
    one_sample_trains,
    evaluation_is_deterministic,
    float32_agrees_with_float64,
    autocast_stays_near,
    half_precision_weights_work,
    memory_layout_changes_nothing,
    inputs_are_left_alone,
    features_are_maps,
)
