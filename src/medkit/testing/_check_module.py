"""The contract of modules: every law, held against one module."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import nn

from . import _module_numbers, _module_object
from ._contract import Law, Report, examine
from ._module_subject import ModuleSubject

LAWS: tuple[Law[ModuleSubject], ...] = (*_module_object.LAWS, *_module_numbers.LAWS)


def module_laws() -> dict[str, str]:
    """Return the laws of modules: each name with what it says, in the order they are tried.

    Use it to try the laws one by one, as separate tests.

    Example:
        >>> laws = module_laws()
        >>> laws["mode_is_kept"]
        'A call leaves the training flag of every submodule as it is.'
    """
    return {law.name: law.sentence for law in LAWS}


def module_report(
    factory: Callable[..., nn.Module],
    sample: Sequence[int] | Callable[[torch.Generator], tuple[object, ...]],
    *,
    vary: Mapping[str, Sequence[object]] | None = None,
    laws: Collection[str] | None = None,
    excuses: Mapping[str, str] | None = None,
) -> Report:
    """Hold a module to the laws of ``check_module`` and return the verdicts, without raising.

    Use it to look at a module that is not yours: each verdict says what is wrong, with numbers.

    Args:
        factory: As in ``check_module``.
        sample: As in ``check_module``.
        vary: As in ``check_module``.
        laws: As in ``check_module``.
        excuses: As in ``check_module``.

    Returns:
        One verdict for each law.

    Raises:
        ValueError: If ``laws``, ``excuses`` or ``vary`` hold a name that does not exist.

    Example:
        >>> from torch import nn
        >>> report = module_report(nn.Identity, (2, 3, 4), laws=["samples_do_not_mix", "exports"])
        >>> report.passed
        ('exports', 'samples_do_not_mix')
    """
    subject = ModuleSubject(factory, sample, vary=vary)
    name: str = getattr(factory, "__name__", type(factory).__name__)
    return examine(name, LAWS, subject, chosen=laws, excuses=excuses)


def check_module(
    factory: Callable[..., nn.Module],
    sample: Sequence[int] | Callable[[torch.Generator], tuple[object, ...]],
    *,
    vary: Mapping[str, Sequence[object]] | None = None,
    laws: Collection[str] | None = None,
    excuses: Mapping[str, str] | None = None,
) -> Report:
    """Raise unless a module obeys every law of modules.

    A law is a sentence that must hold for any network or block, such as "in evaluation a sample
    has one result, alone or among others". Use it in the tests of a module of your own, in one
    call, or with ``laws=[name]`` for each name in ``module_laws()``. Keep the module and the input
    small: it is built and run some hundred times.

    Args:
        factory: Class, or function of options, that makes the module; it takes ``device=`` and
            ``dtype=``. ``functools.partial`` fixes arguments.
        sample: Shape of the input, two samples or more, or a function that makes the arguments
            of a call from a generator.
        vary: Values to try for an option, by its name; laws are tried in settings that cover
            them in pairs.
        laws: Names of the laws to try; None tries all.
        excuses: Reasons, by law, for laws that are known not to hold. They are tried all the
            same: an excuse for a law that holds is a violation.

    Returns:
        One verdict for each law.

    Raises:
        ContractError: If a law is violated; it is an ``AssertionError`` that lists all of them.
        ValueError: If ``laws``, ``excuses`` or ``vary`` hold a name that does not exist.

    Example:
        >>> from functools import partial
        >>> from torch import nn
        >>> conv = partial(nn.Conv2d, 3, 4, 3)
        >>> check_module(conv, (2, 3, 8, 8), laws=["samples_do_not_mix"]).passed
        ('samples_do_not_mix',)
        >>> check_module(conv, (2, 3, 8, 8), laws=["bad_inputs_are_named"])
        Traceback (most recent call last):
        medkit.testing.ContractError: partial: 1 of 1 laws violated...
    """
    report = module_report(factory, sample, vary=vary, laws=laws, excuses=excuses)
    report.raise_if_violated()
    return report
