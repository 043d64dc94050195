"""A module under test: how to build it, and inputs to try it on."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import cast as as_type

import torch
from torch import Tensor, nn

from medkit._core import check

from ._contract import Law, NotApplicable, Violation, try_in_each
from ._options import Options, pairwise, parameters
from ._trees import Tree, apply, cast, leaves

Sample = Sequence[int] | Callable[[torch.Generator], tuple[object, ...]]

NUDGE = 0.05
"""Noise added to every parameter, so that no gate that starts at zero hides what is behind it."""


class ModuleSubject:
    """A factory of modules with everything the laws ask about it."""

    def __init__(
        self,
        factory: Callable[..., nn.Module],
        sample: Sample,
        *,
        vary: Mapping[str, Sequence[object]] | None = None,
    ) -> None:
        self.factory = factory
        self.sample = sample
        self.vary = dict(vary or {})
        self.parameters = parameters(factory)
        for name in self.vary:
            if not self.offers(name):
                offered = ", ".join(self.parameters) or "of which there are none"
                raise check.fail("vary", f"keyed by options of the factory, {offered}", name)

    def offers(self, option: str) -> bool:
        """Return whether the factory takes an option, by name or as any keyword."""
        kinds = [parameter.kind for parameter in self.parameters.values()]
        return option in self.parameters or inspect.Parameter.VAR_KEYWORD in kinds

    def settings(self) -> list[Options]:
        """Return settings that cover the options of ``vary`` in pairs."""
        return pairwise(self.vary) or [{}]

    def build(self, options: Options, *, seed: int = 0) -> nn.Module:
        """Return the module as its factory leaves it, from a given random state."""
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
            return self.factory(**options)

    def settled(self, options: Options, *, dtype: torch.dtype = torch.float64) -> nn.Module:
        """Return the module in evaluation mode with all parameters and statistics moved a bit."""
        module = self.build(options).to(dtype).eval()
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for tensor in module.parameters():
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.add_(NUDGE * noise.to(dtype))
        return module

    def inputs(self, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tree, ...]:
        """Return random inputs of a call."""
        generator = torch.Generator().manual_seed(seed)
        if callable(self.sample):
            return tuple(cast(tree, dtype) for tree in self.sample(generator))
        shape = tuple(self.sample)
        return (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype),)


def outputs(module: nn.Module, inputs: Sequence[Tree]) -> list[Tensor]:
    """Return the tensors that a call of the module gives, in order."""
    tensors = leaves(module(*inputs))
    if not tensors:
        raise Violation("a call gives no tensor")
    return tensors


def submodules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the module and all modules inside it, with their paths."""
    return list(as_type("Iterable[tuple[str, nn.Module]]", module.named_modules()))


def differentiable(inputs: Sequence[Tree]) -> tuple[tuple[Tree, ...], list[Tensor]]:
    """Return copies of the inputs, and those of their tensors that take a gradient."""
    copies = apply(tuple(inputs), lambda t: t.detach().clone())
    tensors = [t.requires_grad_() for t in leaves(copies) if t.is_floating_point()]
    return as_type("tuple[Tree, ...]", copies), tensors


def weighted_sum(tensors: Sequence[Tensor]) -> Tensor:
    """Return a fixed random combination of all values, a number to differentiate."""
    generator = torch.Generator().manual_seed(17)
    total = tensors[0].new_zeros(())
    for tensor in tensors:
        weight = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        total = total + (tensor * weight.to(tensor.dtype)).sum()
    return total


def gradients_of(value: Tensor, tensors: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradient of a value with respect to each tensor, None where it does not reach."""
    return list(
        as_type("Sequence[Tensor | None]", torch.autograd.grad(value, tensors, allow_unused=True))
    )


def module_law(
    *, every_setting: bool = True
) -> Callable[[Callable[[ModuleSubject, Options], None]], Law[ModuleSubject]]:
    """Make a law from a check that is tried in each setting, or once in the default one."""

    def law(attempt: Callable[[ModuleSubject, Options], None]) -> Law[ModuleSubject]:
        def run(subject: ModuleSubject) -> None:
            settings: list[Options] = subject.settings() if every_setting else [{}]
            try_in_each(partial(attempt, subject), settings)

        sentence = (attempt.__doc__ or "").split("\n")[0]
        return Law(attempt.__name__, sentence, run)

    return law


def needs_parameters(module: nn.Module) -> None:
    """Raise ``NotApplicable`` for a module without parameters."""
    if next(module.parameters(), None) is None:
        raise NotApplicable("has no parameters")
