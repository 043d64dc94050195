"""The contract of losses: every law, held against one loss."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from . import (
    _loss_classes,
    _loss_ignoring,
    _loss_meaning,
    _loss_object,
    _loss_precision,
    _loss_symmetry,
)
from ._contract import Law, Report, examine
from ._loss_subject import LossSubject

LAWS: tuple[Law[LossSubject], ...] = (
    *_loss_object.LAWS,
    *_loss_meaning.LAWS,
    *_loss_classes.LAWS,
    *_loss_ignoring.LAWS,
    *_loss_symmetry.LAWS,
    *_loss_precision.LAWS,
)


def loss_laws() -> dict[str, str]:
    """Return the laws of losses: each name with what it says, in the order they are tried.

    Use it to try the laws one by one, as separate tests.

    Example:
        >>> laws = loss_laws()
        >>> laws["ignoring_equals_cropping"]
        'Ignored voxels count as little as voxels that are cropped away.'
    """
    return {law.name: law.sentence for law in LAWS}


def loss_report(
    factory: Callable[..., Callable[..., Tensor]],
    *,
    function: Callable[..., Tensor] | None = None,
    sample: Callable[[torch.Generator], tuple[object, ...]] | None = None,
    vary: Mapping[str, Sequence[object]] | None = None,
    num_classes: int = 3,
    spatial_shape: Sequence[int] = (4, 5, 6),
    laws: Collection[str] | None = None,
    excuses: Mapping[str, str] | None = None,
) -> Report:
    """Hold a loss to the laws of ``check_loss`` and return the verdicts, without raising.

    Use it to look at a loss that is not yours: each verdict says what is wrong, with numbers.

    Args:
        factory: As in ``check_loss``.
        function: As in ``check_loss``.
        sample: As in ``check_loss``.
        vary: As in ``check_loss``.
        num_classes: As in ``check_loss``.
        spatial_shape: As in ``check_loss``.
        laws: As in ``check_loss``.
        excuses: As in ``check_loss``.

    Returns:
        One verdict for each law.

    Raises:
        ValueError: If ``laws``, ``excuses`` or ``vary`` hold a name that does not exist.
        TypeError: If ``sample`` makes no tensor.

    Example:
        >>> from torch.nn import CrossEntropyLoss
        >>> report = loss_report(CrossEntropyLoss, laws=["reductions_agree", "input_is_logits"])
        >>> report.passed
        ('reductions_agree',)
        >>> report.not_applicable
        {'input_is_logits': 'needs activation, which this loss does not offer'}
    """
    subject = LossSubject(
        factory,
        function=function,
        sample=sample,
        vary=vary,
        num_classes=num_classes,
        spatial_shape=spatial_shape,
    )
    name: str = getattr(factory, "__name__", type(factory).__name__)
    return examine(name, LAWS, subject, chosen=laws, excuses=excuses)


def check_loss(
    factory: Callable[..., Callable[..., Tensor]],
    *,
    function: Callable[..., Tensor] | None = None,
    sample: Callable[[torch.Generator], tuple[object, ...]] | None = None,
    vary: Mapping[str, Sequence[object]] | None = None,
    num_classes: int = 3,
    spatial_shape: Sequence[int] = (4, 5, 6),
    laws: Collection[str] | None = None,
    excuses: Mapping[str, str] | None = None,
) -> Report:
    """Raise unless a loss obeys every law that its options let apply.

    A law is a sentence that must hold whatever the options, such as "ignored voxels count as
    little as voxels that are cropped away". The options are read from the signature of
    ``factory``; each law is tried in settings that cover them in pairs. A law that needs an
    option which is not offered is reported as not applicable. Use it in the tests of a loss of
    your own, in one call, or with ``laws=[name]`` for each name in ``loss_laws()``.

    Args:
        factory: Class, or function of options, that makes the loss: a callable ``(input, target)``
            or ``(input, target, *, mask=None)`` of logits ``(B, C, *S)`` and a class map.
        function: The function behind the class; its signature and numbers must be the same.
        sample: Makes the arguments of a call from a generator, for a loss that does not take
            logits and a class map; the first tensor is the one to differentiate by.
        vary: Values to try for an option, by its name, the one for single tries first; for
            options that are neither a flag nor a ``Literal``, or to leave values out.
        num_classes: Channels of the logits; 1 for a loss of binary maps.
        spatial_shape: Edges of the small scenes that most laws use.
        laws: Names of the laws to try; None tries all.
        excuses: Reasons, by law, for laws that are known not to hold. They are tried all the
            same: an excuse for a law that holds is a violation.

    Returns:
        One verdict for each law.

    Raises:
        ContractError: If a law is violated; it is an ``AssertionError`` that lists all of them.
        ValueError: If ``laws``, ``excuses`` or ``vary`` hold a name that does not exist.
        TypeError: If ``sample`` makes no tensor.

    Example:
        >>> import torch
        >>> class Dice(torch.nn.Module):
        ...     def forward(self, input, target):
        ...         p, t = input.softmax(1), torch.nn.functional.one_hot(target).movedim(-1, 1)
        ...         return 1 - 2 * (p * t).sum() / (p.sum() + t.sum())
        >>> check_loss(Dice, laws=["order_of_axes_changes_nothing"]).passed
        ('order_of_axes_changes_nothing',)
        >>> check_loss(Dice, laws=["channel_axis_of_the_class_map_is_optional"])
        Traceback (most recent call last):
        medkit.testing.ContractError: Dice: 1 of 1 laws violated...
    """
    report = loss_report(
        factory,
        function=function,
        sample=sample,
        vary=vary,
        num_classes=num_classes,
        spatial_shape=spatial_shape,
        laws=laws,
        excuses=excuses,
    )
    report.raise_if_violated()
    return report
