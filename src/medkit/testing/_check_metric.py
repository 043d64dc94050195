"""The contract of metrics: every law, held against one metric."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from ._contract import Report, examine
from ._metric_laws import LAWS, Metric, MetricSubject

Sample = Callable[[torch.Generator], tuple[Tensor, Tensor]]


def metric_laws() -> dict[str, str]:
    """Return the laws of metrics: each name with what it says, in the order they are tried.

    Example:
        >>> metric_laws()["missing_never_improves"]
        'No mean improves when a structure is given up.'
    """
    return {law.name: law.sentence for law in LAWS}


def metric_report(
    factory: Callable[[], Metric],
    *,
    sample: Sample | None = None,
    laws: Collection[str] | None = None,
    excuses: Mapping[str, str] | None = None,
) -> Report:
    """Hold a metric to the laws of ``check_metric`` and return the verdicts, without raising.

    Use it to look at a metric that is not yours: each verdict says what is wrong, with numbers.

    Args:
        factory: As in ``check_metric``.
        sample: As in ``check_metric``.
        laws: As in ``check_metric``.
        excuses: As in ``check_metric``.

    Returns:
        One verdict for each law.

    Raises:
        ValueError: If ``laws`` or ``excuses`` hold a name that does not exist.

    Example:
        >>> from medkit.metrics import DiceScore
        >>> metric_report(lambda: DiceScore(3), laws=["reset_forgets"]).passed
        ('reset_forgets',)
    """
    name = type(factory()).__name__
    return examine(name, LAWS, MetricSubject(factory, sample), chosen=laws, excuses=excuses)


def check_metric(
    factory: Callable[[], Metric],
    *,
    sample: Sample | None = None,
    laws: Collection[str] | None = None,
    excuses: Mapping[str, str] | None = None,
) -> None:
    """Raise unless a metric obeys every law: a miss never pays, no batching changes a bit.

    Use it on an accumulator of yours, or on one of another library in a thin wrapper.

    Args:
        factory: Makes a new accumulator with ``update(prediction, target)``, ``compute()``,
            ``merge(other)`` and ``reset()``. One that scores structures takes class maps
            ``(case, *spatial)`` of three classes with background 0, and its result has ``mean()``
            and, unless the best value is 1, ``perfect``.
        sample: Makes a batch of five cases for a metric of other arguments, which is then not held
            to the laws about structures.
        laws: Names of the laws to try. None tries all.
        excuses: Reasons why laws need not hold, by law; an excuse that is not needed is a
            violation.

    Raises:
        ContractError: If a law is violated.

    Example:
        >>> from medkit.metrics import DiceScore
        >>> check_metric(lambda: DiceScore(3, include_background=False))
    """
    metric_report(factory, sample=sample, laws=laws, excuses=excuses).raise_if_violated()
