"""Parameters that do not learn, by name, and what that leaves."""

from collections.abc import Collection
from typing import NamedTuple

from torch import nn

from medkit._core import check

from ._groups import is_under
from ._modules import named_modules


class FreezeReport(NamedTuple):
    """What learns and what does not.

    Attributes:
        frozen: Names of the parameters that do not learn.
        trainable: Names of those that do.
        num_frozen: Numbers in the former.
        num_trainable: Numbers in the latter.
        moving_statistics: Normalisation layers whose parameters are all frozen, and whose running
            statistics move all the same in training mode; ``eval()`` them after ``train()``.
    """

    frozen: tuple[str, ...]
    trainable: tuple[str, ...]
    num_frozen: int
    num_trainable: int
    moving_statistics: tuple[str, ...]


def freeze(model: nn.Module, names: Collection[str]) -> FreezeReport:
    """Stop parameters from learning.

    Do it before :func:`param_groups`, which leaves frozen parameters out.

    Args:
        model: Changed in place.
        names: Names of parameters, or prefixes of them that end where a part of the name ends,
            e.g. "encoder" or "encoder.stages.0".

    Returns:
        What learns now.

    Raises:
        ValueError: If a name fits no parameter, or ``names`` is a single string.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> report = freeze(model, ["0"])
        >>> report.frozen, report.num_trainable
        (('0.weight', '0.bias'), 4)
    """
    return _set(model, names, learning=False)


def unfreeze(model: nn.Module, names: Collection[str]) -> FreezeReport:
    """Let parameters learn again.

    An optimizer that was made before does not know them: make a new one, or add a group.

    Args:
        model: Changed in place.
        names: As for :func:`freeze`.

    Returns:
        What learns now.

    Raises:
        ValueError: If a name fits no parameter, or ``names`` is a single string.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> _ = freeze(model, ["0", "1"])
        >>> unfreeze(model, ["1.bias"]).trainable
        ('1.bias',)
    """
    return _set(model, names, learning=True)


def _set(model: nn.Module, names: Collection[str], *, learning: bool) -> FreezeReport:
    if isinstance(names, str):  # "10" would be taken for "1" and "0"
        raise check.fail("names", "several names, e.g. a list", repr(names))
    parameters = dict(model.named_parameters())
    for prefix in names:
        if not any(is_under(name, prefix) for name in parameters):
            raise check.fail("names", "names or prefixes of parameters", repr(prefix))
    for name, parameter in parameters.items():
        if any(is_under(name, prefix) for prefix in names):
            parameter.requires_grad_(learning)
    frozen = {name: p.numel() for name, p in parameters.items() if not p.requires_grad}
    trainable = {name: p.numel() for name, p in parameters.items() if p.requires_grad}
    return FreezeReport(
        frozen=tuple(frozen),
        trainable=tuple(trainable),
        num_frozen=sum(frozen.values()),
        num_trainable=sum(trainable.values()),
        moving_statistics=_moving_statistics(model),
    )


def _moving_statistics(model: nn.Module) -> tuple[str, ...]:
    norms = (
        (name, module)
        for name, module in named_modules(model)
        if isinstance(module, nn.modules.batchnorm._NormBase)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  batch and instance norms
        and module.track_running_stats
    )
    return tuple(
        name
        for name, module in norms
        if (own := list(module.parameters())) and not any(p.requires_grad for p in own)
    )
