"""Laws of modules: construction, state, copies, errors, compiler and export."""

import copy
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import cast as as_type

import torch
from torch import Tensor, nn

from ._comparison import expect, relative_error
from ._compiler import exported, quiet, whole_graph
from ._contract import NotApplicable
from ._module_subject import (
    ModuleSubject,
    differentiable,
    gradients_of,
    module_law,
    needs_parameters,
    outputs,
    submodules,
    weighted_sum,
)
from ._options import Options, call_parameters
from ._trees import Tree, apply, leaves

SEQUENCE = 3
"""Rank of an input of tokens."""

SAME = 1e-5
"""Largest relative difference, in norm, between an eager and a traced float32 output."""


@module_law()
def device_and_dtype_are_honoured(part: ModuleSubject, options: Options) -> None:
    """``device=`` and ``dtype=`` decide where and in what precision all its tensors are made."""
    plain = part.build(options)
    if not [*plain.parameters(), *plain.buffers()]:
        raise NotApplicable("has neither parameters nor buffers")
    for name in ("device", "dtype"):
        expect(part.offers(name), f"takes no {name}=")
    elsewhere = part.build({**options, "device": "meta"})
    left = [n for n, t in _tensors(elsewhere) if t.device.type != "meta"]
    expect(not left, f"not on the device that was asked for: {', '.join(left)}")
    wide = part.build({**options, "dtype": torch.float64})
    left = [n for n, t in _tensors(wide) if t.is_floating_point() and t.dtype != torch.float64]
    expect(not left, f"not of the dtype that was asked for: {', '.join(left)}")
    names = [n for n, _ in _tensors(plain)]
    expect([n for n, _ in _tensors(elsewhere)] == names, "other tensors on another device")


@module_law()
def device_is_kept(part: ModuleSubject, options: Options) -> None:
    """The output lies where the input lies; tried on the meta device, which has no values."""
    module = part.build(options).eval()
    expected = [t.shape for t in outputs(module, part.inputs(dtype=torch.float32))]
    moved = as_type(
        "tuple[Tree, ...]",
        apply(part.inputs(dtype=torch.float32), lambda t: t.to("meta")),
    )
    found = outputs(module.to("meta"), moved)
    expect(all(t.device.type == "meta" for t in found), "input on meta gives output elsewhere")
    expect([t.shape for t in found] == expected, "another shape on meta")


@module_law()
def constant_tensors_are_buffers(part: ModuleSubject, options: Options) -> None:
    """Every tensor that a module holds is a parameter or a buffer, so that ``to()`` moves it."""
    module = part.build(options)
    outputs(module.eval(), part.inputs(dtype=torch.float32))  # tensors kept by a call count too
    loose = [f"{path}.{name}".strip(".") for path, name in _loose_tensors(module)]
    expect(not loose, f"neither parameter nor buffer: {', '.join(loose)}")


def _loose_tensors(module: nn.Module) -> Iterator[tuple[str, str]]:
    for path, child in submodules(module):
        for name, value in as_type("Mapping[str, object]", vars(child)).items():
            if name not in {"_parameters", "_buffers"} and leaves(value):
                yield path, name


@module_law()
def seed_decides_the_weights(part: ModuleSubject, options: Options) -> None:
    """One seed gives the same weights; another seed gives others."""
    first, again, other = (part.build(options, seed=s).state_dict() for s in (0, 0, 1))
    if not first:
        raise NotApplicable("has no state")
    differing = [name for name in first if not torch.equal(first[name], again[name])]
    expect(not differing, f"differ between two builds from one seed: {', '.join(differing)}")
    drawn = any(not torch.equal(first[name], other[name]) for name in first)
    random = any(p.ndim > 1 for p in part.build(options).parameters())
    expect(drawn or not random, "the same weights from every seed")


@module_law()
def state_dict_round_trip(part: ModuleSubject, options: Options) -> None:
    """The state loads, strictly, into a module of another seed, and brings its output along."""
    original, twin = part.build(options, seed=0).eval(), part.build(options, seed=1).eval()
    twin.load_state_dict(original.state_dict(), strict=True)
    _same_bits(twin, original, part, "after loading its state")


@module_law()
def copies_give_the_same_output(part: ModuleSubject, options: Options) -> None:
    """A pickled and a deep-copied module give the same bits and share no tensor."""
    original = part.build(options).eval()
    for name, twin in (
        ("pickled", as_type("nn.Module", pickle.loads(pickle.dumps(original)))),  # noqa: S301  ours
        ("deep-copied", copy.deepcopy(original)),
    ):
        _same_bits(twin, original, part, name)
        shared = {id(t) for t in twin.parameters()} & {id(t) for t in original.parameters()}
        expect(not shared, f"{name} module shares {len(shared)} parameters with the original")


@module_law()
def mode_is_kept(part: ModuleSubject, options: Options) -> None:
    """A call leaves the training flag of every submodule as it is."""
    module = part.build(options)
    for mode in (True, False):
        module.train(mode)
        outputs(module, part.inputs(dtype=torch.float32))
        turned = [path or "itself" for path, m in submodules(module) if m.training is not mode]
        name = "training" if mode else "evaluation"
        expect(not turned, f"a call in {name} changes the mode of {', '.join(turned)}")


@module_law()
def repr_is_short_and_named(part: ModuleSubject, options: Options) -> None:
    """``repr`` begins with the name of the class and does not print numbers of tensors."""
    module = part.build(options)
    text = repr(module)
    expect(text.startswith(type(module).__name__), f"repr begins {text[:40]!r}")
    expect("tensor(" not in text, "repr prints a tensor")


@module_law(every_setting=False)
def bad_inputs_are_named(part: ModuleSubject, options: Options) -> None:
    """An input of another rank or channel count raises ``ValueError`` that names it."""
    module = part.build(options).eval()
    needs_parameters(module)
    inputs = part.inputs(dtype=torch.float32)
    first = leaves(inputs)[0]
    wider = [torch.cat([first, first[:, :1]], 1)]
    if first.ndim == SEQUENCE:  # (batch, token, channel), where the second axis is free
        wider.append(torch.cat([first, first[..., :1]], -1))
    names = [*call_parameters(module), *part.parameters]
    for what, trials in (
        ("a channel more", wider),
        ("an axis less", [first[..., 0]]),
        ("an axis more", [first[..., None]]),
    ):
        refused = [_refuses(module, inputs, bad, what, names) for bad in trials]
        expect(any(refused), f"input with {what}, {tuple(trials[0].shape)}, is accepted")


def _refuses(
    module: nn.Module, inputs: Sequence[Tree], bad: Tensor, what: str, names: Sequence[str]
) -> bool:
    """Return whether the module refuses another first input, naming what is wrong."""
    first = leaves(inputs)[0]
    changed = apply(tuple(inputs), lambda t: bad if t is first else t)
    try:
        outputs(module, as_type("tuple[Tree, ...]", changed))
    except (ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        expect(any(n in text for n in names), f"input with {what} raises, unnamed: {text}")
        return True
    return False


@module_law()
def compiles_to_one_graph(part: ModuleSubject, options: Options) -> None:
    """``torch.compile(fullgraph=True, backend="eager")`` gives the eager output and gradient."""
    torch.compiler.reset()
    module = part.settled(options, dtype=torch.float32)
    with quiet():
        found = _output_and_gradients(whole_graph(module), part)
    _near(found, _output_and_gradients(module, part), "compiled")


def _output_and_gradients(module: nn.Module, part: ModuleSubject) -> list[Tensor]:
    inputs, tensors = differentiable(part.inputs(dtype=torch.float32))
    tensors += [parameter for parameter in module.parameters() if parameter.requires_grad]
    found = outputs(module, inputs)
    gradients = gradients_of(weighted_sum(found), tensors)
    return [*(t.detach() for t in found), *(g for g in gradients if g is not None)]


@module_law()
def exports(part: ModuleSubject, options: Options) -> None:
    """``torch.export`` gives a program with the eager output."""
    module = part.settled(options, dtype=torch.float32)
    inputs = part.inputs(dtype=torch.float32)
    with torch.no_grad(), quiet():
        program = exported(module, inputs)
        _near(outputs(program, inputs), outputs(module, inputs), "exported")


def _near(found: list[Tensor], expected: list[Tensor], what: str) -> None:
    for a, e in zip(found, expected, strict=True):
        expect(a.shape == e.shape, f"{what}: shape {tuple(a.shape)}, eager {tuple(e.shape)}")
        off = relative_error(a, e)
        expect(off < SAME, f"{what}: off by {off:.3g} of the norm of the eager output")


def _same_bits(twin: nn.Module, original: nn.Module, part: ModuleSubject, what: str) -> None:
    inputs = part.inputs(dtype=torch.float32)
    with torch.no_grad():
        pairs = zip(outputs(twin, inputs), outputs(original, inputs), strict=True)
        expect(all(torch.equal(a, b) for a, b in pairs), f"{what}: another output")


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


LAWS = (
    device_and_dtype_are_honoured,
    device_is_kept,
    constant_tensors_are_buffers,
    seed_decides_the_weights,
    state_dict_round_trip,
    copies_give_the_same_output,
    mode_is_kept,
    repr_is_short_and_named,
    bad_inputs_are_named,
    compiles_to_one_graph,
    exports,
)
