"""Laws of losses: signatures, errors, copies, and the compiler."""

import copy
import inspect
import pickle
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ._comparison import expect, same
from ._compiler import quiet, whole_graph
from ._contract import NotApplicable, Violation, try_in_each
from ._loss_subject import VOCABULARY, LossSubject, loss_law, ramp
from ._options import Options, call_parameters, literal_values, parameters
from ._trees import Tree, apply, leaves


@loss_law(every_setting=False, segmentation=False)
def function_and_class_have_one_signature(loss: LossSubject, _: Options) -> None:
    """Function and class take the same options, by keyword, with the same defaults."""
    function = _function(loss)
    data = list(call_parameters(loss.factory()))
    theirs = parameters(function)
    missing = [name for name in data if name not in theirs]
    expect(not missing, f"the function takes no {', '.join(missing)}, the class does in its call")
    keywords = {name: p for name, p in theirs.items() if name not in data}
    names = list(loss.parameters)
    expect(list(keywords) == names, f"the function has options {list(keywords)}, the class {names}")
    for name, parameter in keywords.items():
        mine = loss.parameters[name]
        for kind in (parameter.kind, mine.kind):
            expect(kind is inspect.Parameter.KEYWORD_ONLY, f"{name} can be given by position")
        expect(
            parameter.default == mine.default,
            f"{name} is {parameter.default!r} in the function, {mine.default!r} in the class",
        )
        expect(
            parameter.annotation == mine.annotation,
            f"{name} is {parameter.annotation} in the function, {mine.annotation} in the class",
        )


@loss_law(segmentation=False)
def function_and_class_give_the_same_number(loss: LossSubject, options: Options) -> None:
    """Function and class give the same bits with the same options."""
    function = _function(loss)
    by_class = loss.run(options, *loss.arguments())
    by_function = function(*loss.arguments(), **options)
    expect(torch.equal(by_class, by_function), f"class {by_class}, function {by_function}")


def _function(loss: LossSubject) -> Callable[..., Tensor]:
    if loss.function is None:
        raise NotApplicable("no function given")
    return loss.function


@loss_law(every_setting=False, segmentation=False)
def options_compose(loss: LossSubject, _: Options) -> None:
    """Every pair of values of two options is accepted together."""
    try_in_each(lambda row: _runs(loss, row), loss.pairs())


def _runs(loss: LossSubject, options: Options) -> None:
    loss.run(options, *loss.arguments(dtype=torch.float32))


@loss_law(segmentation=False)
def inputs_are_left_alone(loss: LossSubject, options: Options) -> None:
    """Neither input nor target nor mask is modified."""
    arguments = loss.arguments()
    tensors = leaves(arguments)
    before = [(t.clone(), t._version) for t in tensors]  # noqa: SLF001  no public counter
    if loss.takes_mask:
        tensors.append(torch.ones_like(loss.labels(), dtype=torch.bool)[:, None])
        before.append((tensors[-1].clone(), tensors[-1]._version))  # noqa: SLF001
        loss.run(options, *arguments, mask=tensors[-1])
    if loss.offers("ignore_index") and loss.sample is None:
        loss.run({**options, "ignore_index": 1}, *arguments)
    loss.run(options, *arguments)
    for place, (tensor, (values, version)) in enumerate(zip(tensors, before, strict=True)):
        kept = torch.equal(tensor, values) and tensor._version == version  # noqa: SLF001
        expect(kept, f"argument {place} of shape {tuple(tensor.shape)} is modified")


@loss_law(every_setting=False, segmentation=False)
def copies_give_the_same_number(loss: LossSubject, options: Options) -> None:
    """A pickled and a deep-copied loss give the same bits."""
    settings = loss.settings()
    for row in [options, *settings]:
        original = loss.make(row)
        expected = original(*loss.arguments())
        for name, twin in (
            ("pickled", pickle.loads(pickle.dumps(original))),  # noqa: S301  our own bytes
            ("deep-copied", copy.deepcopy(original)),
        ):
            expect(torch.equal(twin(*loss.arguments()), expected), f"{name} loss differs ({row})")


@loss_law(segmentation=False)
def state_dict_round_trip(loss: LossSubject, options: Options) -> None:
    """The state of a loss loads, strictly, into another of the same options."""
    original, twin = loss.make(options), loss.make(options)
    if not isinstance(original, nn.Module) or not isinstance(twin, nn.Module):
        raise NotApplicable("no module")
    twin.load_state_dict(original.state_dict(), strict=True)
    expected = original(*loss.arguments())
    expect(torch.equal(twin(*loss.arguments()), expected), "another number after loading")


@loss_law(every_setting=False, segmentation=False)
def bad_options_are_named(loss: LossSubject, options: Options) -> None:
    """A value that an option does not know raises ``ValueError`` that names the option."""
    words = [
        name
        for name, p in loss.parameters.items()
        if any(isinstance(v, str) for v in literal_values(p.annotation) or VOCABULARY.get(name, ()))
    ]
    if not words:
        raise NotApplicable("no option with a choice of words")
    for name in words:
        _refuses(
            lambda n=name: loss.run({**options, n: "bogus"}, *loss.arguments()),
            f"{name}='bogus'",
            name,
        )
    if loss.offers("class_weight") and loss.num_classes > 1 and loss.sample is None:
        for weights in (ramp(loss.num_classes + 1), [-1.0] * loss.num_classes):
            chosen: Options = {**options, "class_weight": weights}
            _refuses(
                lambda c=chosen: loss.run(c, *loss.arguments()),
                f"class_weight={weights} for {loss.num_classes} classes",
                "class_weight",
            )


@loss_law(every_setting=False)
def bad_shapes_are_named(loss: LossSubject, options: Options) -> None:
    """Shapes that do not fit raise ``ValueError`` that names input or target, or mask."""
    logits, labels = loss.logits(), loss.labels()
    for name, target in (
        ("target with a longer last axis", torch.cat([labels, labels], -1)),
        ("target of one sample more", torch.cat([labels, labels[:1]])),
        ("target with a channel too many", loss.logits(num_classes=loss.num_classes + 1).sigmoid()),
        ("target with an axis too few", labels[..., 0]),
    ):
        _refuses(lambda t=target: loss.run(options, logits, t), name, "target", "input")
    if loss.takes_mask:
        mask = torch.ones_like(labels, dtype=torch.bool)[..., :-1]
        _refuses(lambda: loss.run(options, logits, labels, mask=mask), "mask too short", "mask")


@loss_law(every_setting=False)
def bad_labels_are_named(loss: LossSubject, options: Options) -> None:
    """A label that is no class raises ``ValueError`` that names the target."""
    for label in (max(2, loss.num_classes), -3, 255):
        labels = loss.labels()
        labels.view(-1)[-1] = label
        _refuses(lambda t=labels: loss.run(options, loss.logits(), t), f"label {label}", "target")


def _refuses(attempt: Callable[[], Tensor], what: str, *names: str) -> None:
    try:
        value = attempt()
    except (ValueError, TypeError) as error:
        wanted = " or ".join(names)
        text = " ".join(str(error).split())
        expect(
            any(name in text for name in names), f"{what} raises, without naming {wanted}: {text}"
        )
    else:
        raise Violation(f"{what} is accepted and gives {float(value.sum()):.4g}")


@loss_law(segmentation=False)
def compiles_to_one_graph(loss: LossSubject, options: Options) -> None:
    """``torch.compile(fullgraph=True, backend="eager")`` gives the eager value and gradient."""
    arguments = loss.arguments(dtype=torch.float32)
    eager = loss.make(options)
    torch.compiler.reset()
    with quiet():
        found = _value_and_gradient(whole_graph(eager), arguments)
    expected = _value_and_gradient(eager, arguments)
    same(found[0], expected[0], "compiled against eager")
    same(found[1], expected[1], "gradient, compiled against eager")


def _value_and_gradient(
    run: Callable[..., Tensor], arguments: tuple[Tree, ...]
) -> tuple[Tensor, Tensor]:
    moved = [apply(a, lambda t: t.detach().clone()) for a in arguments]
    point = leaves(moved)[0].requires_grad_()
    value = run(*moved)
    return value.detach(), torch.autograd.grad(value.sum(), point)[0]


LAWS = (
    function_and_class_have_one_signature,
    function_and_class_give_the_same_number,
    options_compose,
    inputs_are_left_alone,
    copies_give_the_same_number,
    state_dict_round_trip,
    bad_options_are_named,
    bad_shapes_are_named,
    bad_labels_are_named,
    compiles_to_one_graph,
)
