"""A loss under test: what it offers, settings to try it in, and inputs to try it on."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from medkit._core import check

from ._comparison import expect
from ._contract import Law, NotApplicable, describe, try_in_each
from ._options import (
    Options,
    call_parameters,
    literal_values,
    pairwise,
    parameters,
)
from ._trees import Tree, cast, first_leaf

Loss = Callable[..., Tensor]
Sample = Callable[[torch.Generator], tuple[object, ...]]

VOCABULARY: dict[str, tuple[object, ...]] = {
    "activation": ("softmax", "sigmoid"),
    "include_background": (True, False),
    "absent": ("ratio", "penalize", "skip"),
    "batch": (False, True),
    "reduction": ("mean", "sum", "none"),
}
"""Values of the options that all losses share, for a signature that does not list them."""

UNVARIED = ("ignore_index", "smooth", "class_weight")
"""Options that no setting varies by itself; laws set them, class weights are added below."""


class Scored(NamedTuple):
    """A value of a loss and its gradient with respect to the first tensor of the input."""

    value: Tensor
    gradient: Tensor


class LossSubject:
    """A factory of losses with everything the laws ask about it."""

    def __init__(
        self,
        factory: Callable[..., Loss],
        *,
        function: Loss | None = None,
        sample: Sample | None = None,
        vary: Mapping[str, Sequence[object]] | None = None,
        num_classes: int = 3,
        spatial_shape: Sequence[int] = (4, 5, 6),
    ) -> None:
        self.factory = factory
        self.function = function
        self.sample = sample
        self.vary = dict(vary or {})
        self.num_classes = check.integer("num_classes", num_classes, minimum=1)
        self.spatial_shape = tuple(spatial_shape)
        self.parameters = parameters(factory)
        first_leaf(self.arguments())
        self._settings: dict[tuple[str, ...], list[Options]] = {}
        for name in self.vary:
            if name not in self.parameters:
                raise check.fail("vary", f"keyed by options of the factory, {self._offered}", name)

    @property
    def _offered(self) -> str:
        return ", ".join(self.parameters) or "which has none"

    # What the factory offers

    def offers(self, option: str) -> bool:
        """Return whether the factory takes an option."""
        return option in self.parameters

    @cached_property
    def takes_mask(self) -> bool:
        """Whether the loss takes ``mask``."""
        return self.sample is None and "mask" in call_parameters(self.factory())

    def allows_none(self, option: str) -> bool:
        """Return whether an option may be None, as far as its annotation says."""
        annotation = self.parameters[option].annotation
        return not literal_values(annotation) or type(None) in get_args(annotation)

    @property
    def is_softmax(self) -> bool:
        """Whether its default activation is softmax."""
        return self.offers("activation") and self.values("activation")[0] == "softmax"

    def values(self, option: str) -> tuple[object, ...]:
        """Return the values of an option to try, the default first."""
        if option in self.vary:
            return tuple(self.vary[option])
        parameter = self.parameters[option]
        values = literal_values(parameter.annotation)
        if not values and isinstance(parameter.default, bool):
            values = (parameter.default, not parameter.default)
        values = values or VOCABULARY.get(option, ())
        if parameter.default in values:
            values = (parameter.default, *(v for v in values if v != parameter.default))
        if self.sample is None:
            values = tuple(v for v in values if self._suits_classes(option, v))
        return values

    def _suits_classes(self, option: str, value: object) -> bool:
        if option == "activation" and value is None:
            return False  # logits would be no probabilities; a law of its own tries it
        if self.num_classes > 1:
            return True
        return (option, value) not in {("activation", "softmax"), ("include_background", False)}

    @cached_property
    def domains(self) -> dict[str, tuple[object, ...]]:
        """The options that settings vary, with their values."""
        domains = {
            n: self.values(n) for n in self.parameters if n not in UNVARIED or n in self.vary
        }
        if self.offers("class_weight") and self.sample is None and self.num_classes > 1:
            domains.setdefault("class_weight", (None, ramp(self.num_classes)))
        return {name: values for name, values in domains.items() if values}

    @property
    def default(self) -> Options:
        """The options to try once: those of the factory, except where ``vary`` says otherwise."""
        return {name: values[0] for name, values in self.vary.items() if values}

    def settings(self, fixes: Sequence[str] = ()) -> list[Options]:
        """Return settings that cover the options in pairs, except those a law fixes itself.

        A setting that the loss refuses with ``ValueError`` or ``TypeError`` is left out; the law
        ``options_compose`` reports it.
        """
        key = tuple(sorted(fixes))
        if key not in self._settings:
            rows = self.pairs(key)
            reason = self.refusal(rows[0])
            expect(reason is None, f"with its own defaults it {reason}")
            self._settings[key] = [row for row in rows if self.refusal(row) is None]
        return self._settings[key]

    def pairs(self, fixes: Sequence[str] = ()) -> list[Options]:
        """Return settings that cover the options in pairs, those that are refused included."""
        return pairwise({n: v for n, v in self.domains.items() if n not in fixes}) or [{}]

    def refusal(self, options: Options) -> str | None:
        """Return how the loss refuses a setting, or None if it takes it."""
        try:
            self.run(options, *self.arguments(dtype=torch.float32))
        except (ValueError, TypeError) as error:
            return describe(error)
        except Exception:  # noqa: BLE001  a crash is no refusal: the laws shall find it
            return None
        return None

    # Running it

    def make(self, options: Options, *, num_classes: int | None = None) -> Loss:
        """Return the loss with some options; class weights are stretched to ``num_classes``."""
        weights = options.get("class_weight")
        classes = self.num_classes if num_classes is None else num_classes
        if isinstance(weights, list) and classes != self.num_classes:
            options = {**options, "class_weight": ramp(classes)}
        return self.factory(**options)

    def run(self, options: Options, *args: object, mask: Tensor | None = None) -> Tensor:
        """Return the loss with some options at some arguments."""
        first = first_leaf(args)
        classes = first.shape[1] if self.sample is None and first.ndim > 1 else None
        loss = self.make(options, num_classes=classes)
        return loss(*args) if mask is None else loss(*args, mask=mask)

    def score(
        self, options: Options, logits: Tensor, target: object, *, mask: Tensor | None = None
    ) -> Scored:
        """Return the loss and its gradient with respect to the logits, summed over the loss."""
        leaf = logits.detach().clone().requires_grad_()
        value = self.run(options, leaf, target, mask=mask)
        return Scored(value.detach(), torch.autograd.grad(value.sum(), leaf)[0])

    # Inputs

    def arguments(self, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tree, ...]:
        """Return arguments for a call: logits and a class map, or what ``sample`` makes."""
        if self.sample is None:
            return self.logits(seed=seed).to(dtype), self.labels(seed=seed)
        generator = torch.Generator().manual_seed(seed)
        return tuple(cast(argument, dtype) for argument in self.sample(generator))

    def logits(
        self,
        *,
        seed: int = 0,
        samples: int = 2,
        num_classes: int | None = None,
        spatial_shape: Sequence[int] | None = None,
    ) -> Tensor:
        """Return random float64 logits."""
        shape = (samples, num_classes or self.num_classes, *(spatial_shape or self.spatial_shape))
        generator = torch.Generator().manual_seed(1000 + seed)
        return 1.5 * torch.randn(shape, generator=generator, dtype=torch.float64)

    def labels(
        self,
        *,
        seed: int = 0,
        samples: int = 2,
        num_classes: int | None = None,
        spatial_shape: Sequence[int] | None = None,
    ) -> Tensor:
        """Return a random class map in which each class occurs in each sample equally often."""
        spatial_shape = tuple(spatial_shape or self.spatial_shape)
        generator = torch.Generator().manual_seed(2000 + seed)
        voxels = torch.Size(spatial_shape).numel()
        shuffled = [torch.randperm(voxels, generator=generator) for _ in range(samples)]
        labels = torch.stack(shuffled) % max(2, num_classes or self.num_classes)
        return labels.reshape(samples, *spatial_shape)

    def confident(self, labels: Tensor, *, size: float = 30.0) -> Tensor:
        """Return float64 logits that predict a class map: ``size`` for the class, else minus it."""
        return size * (2 * self.one_hot(labels) - 1)

    def one_hot(self, labels: Tensor, *, num_classes: int | None = None) -> Tensor:
        """Return a class map as float64 values per channel."""
        if self.num_classes == 1:
            return labels[:, None].double()
        channels = torch.arange(num_classes or self.num_classes).reshape(
            1, -1, *[1] * (labels.ndim - 1)
        )
        return (labels[:, None] == channels).double()


def ramp(num_classes: int) -> list[float]:
    """Return the class weights 1, 2, 3, ..."""
    return [float(c + 1) for c in range(num_classes)]


def loss_law(
    *,
    needs: Sequence[str] = (),
    fixes: Sequence[str] = (),
    segmentation: bool = True,
    every_setting: bool = True,
) -> Callable[[Callable[[LossSubject, Options], None]], Law[LossSubject]]:
    """Make a law from a check that is tried in each setting.

    Args:
        needs: Options that the factory must offer, or "mask".
        fixes: Options that the check sets itself; settings leave them alone.
        segmentation: Whether it needs logits and a class map.
        every_setting: Whether it is tried in settings that cover the options in pairs, or once,
            in the default setting.
    """

    def law(attempt: Callable[[LossSubject, Options], None]) -> Law[LossSubject]:
        def run(subject: LossSubject) -> None:
            if segmentation and subject.sample is not None:
                raise NotApplicable("needs logits and a class map; this loss takes other inputs")
            for option in needs:
                offered = subject.takes_mask if option == "mask" else subject.offers(option)
                if not offered:
                    raise NotApplicable(f"needs {option}, which this loss does not offer")
            settings = subject.settings(fixes) if every_setting else [subject.default]
            try_in_each(partial(attempt, subject), settings)

        sentence = (attempt.__doc__ or "").split("\n")[0]
        return Law(attempt.__name__, sentence, run)

    return law


def needs_classes(loss: LossSubject) -> int:
    """Return the number of classes; raise ``NotApplicable`` for a loss of binary maps."""
    if loss.num_classes == 1:
        raise NotApplicable("needs more than one class")
    return loss.num_classes


def needs_softmax(loss: LossSubject) -> None:
    """Raise ``NotApplicable`` unless the default activation is softmax over several classes."""
    needs_classes(loss)
    if not loss.offers("activation"):
        raise NotApplicable("needs activation, which this loss does not offer")
    if not loss.is_softmax:
        raise NotApplicable("its activation is not softmax")
