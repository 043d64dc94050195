"""Parameter groups: what decays, and what learns how fast."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from medkit._core import check

_NORMS = (
    nn.modules.batchnorm._NormBase,  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  batch and instance norms
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


@runtime_checkable
class _NamesExceptions(Protocol):
    """The convention of timm and others for a model that knows what must not decay."""

    def no_weight_decay(self) -> Collection[str]: ...


def param_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    skip: Collection[str] = (),
    lr: float | None = None,
    lr_scale: Mapping[str, float] | None = None,
    layer_decay: float | None = None,
    layers: Sequence[str] = (),
) -> list[dict[str, object]]:
    r"""Sort parameters into groups for an optimizer: weight decay and learning rate by kind.

    No weight decay falls on vectors and single numbers (biases, norm weights), on any parameter
    of a normalisation layer, on the names that ``model.no_weight_decay()`` returns where it
    exists, and on ``skip``. Kinds are told by module type and shape, not by name, so norms inside
    an ``nn.Sequential`` are found. Frozen parameters are left out; shared ones appear once.

    The learning rate of a parameter is ``lr`` times the factor of the longest prefix in
    ``lr_scale`` that fits its name, times :math:`d^{L - i}` when it lies in layer :math:`i` of the
    :math:`L` in ``layers`` (from 0, at the input) and ``layer_decay`` is :math:`d`. Parameters
    under no layer, such as a fresh head, keep the whole rate.

    Args:
        model: Whose parameters; wrapped models keep their prefixes.
        weight_decay: Of all other parameters.
        skip: Further parameter names, or prefixes ending in ".", without weight decay.
        lr: Full learning rate; needed, and only then set, to scale it.
        lr_scale: Factor by name prefix, e.g. ``{"encoder": 0.1}``; None scales nothing.
        layer_decay: Factor from each layer to the one before, in (0, 1]; None scales nothing.
        layers: Name prefixes of the layers, from input to output.

    Returns:
        Groups for any ``torch.optim`` optimizer, those with weight decay first.

    Raises:
        ValueError: If a prefix or name fits no parameter, rates are scaled without ``lr``, or one
            of ``layer_decay`` and ``layers`` is given without the other.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.BatchNorm3d(4))
        >>> for group in param_groups(model, 0.01):
        ...     print(group["weight_decay"], [tuple(p.shape) for p in group["params"]])
        0.01 [(4, 1, 3, 3, 3)]
        0.0 [(4,), (4,), (4,)]

    References:
        Bao et al., BEiT, ICLR 2022, section 3.1 (layer-wise decay of the learning rate).
    """
    check.non_negative("weight_decay", weight_decay)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    scales = dict(lr_scale or {})
    for option, prefixes in (("skip", skip), ("lr_scale", scales), ("layers", layers)):
        for prefix in prefixes:
            if not any(is_under(name, prefix) for name, _ in model.named_parameters()):
                raise check.fail(option, "names or prefixes of parameters", repr(prefix))
    if (scales or layer_decay is not None) and lr is None:
        raise check.fail("lr", "given when learning rates are scaled", lr)
    _check_layers(layer_decay, layers)
    bare = _without_decay(model, skip)
    keys = {
        name: (name in bare, _scale(name, scales) * _depth_scale(name, layer_decay, layers))
        for name in names
    }
    parameters = dict(model.named_parameters())
    groups: list[dict[str, object]] = []
    for key in sorted(set(keys.values()), key=lambda key: (key[0], -key[1])):
        group: dict[str, object] = {"params": [parameters[n] for n in names if keys[n] == key]}
        group["weight_decay"] = 0.0 if key[0] else float(weight_decay)
        if lr is not None:
            group["lr"] = check.positive("lr", lr) * key[1]
        groups.append(group)
    return groups


def _check_layers(layer_decay: float | None, layers: Sequence[str]) -> None:
    """Refuse a decay that would touch nothing, and layers without one."""
    if layer_decay is not None:
        check.positive("layer_decay", check.fraction("layer_decay", layer_decay))
    if (layer_decay is None) != (not layers):
        raise check.fail("layers", "given with layer_decay, and only then", list(layers))


def _without_decay(model: nn.Module, skip: Collection[str]) -> set[str]:
    listed = {*skip, *(model.no_weight_decay() if isinstance(model, _NamesExceptions) else ())}
    of_norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _NORMS)
        for parameter in module.parameters(recurse=False)
    }
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim <= 1
        or id(parameter) in of_norms
        or any(is_under(name, prefix) for prefix in listed)
    }


def is_under(name: str, prefix: str) -> bool:
    """Return whether a parameter is ``prefix`` or lies under it, counting whole name parts."""
    return name == prefix or name.startswith(prefix if prefix.endswith(".") else prefix + ".")


def _scale(name: str, scales: Mapping[str, float]) -> float:
    fitting = [prefix for prefix in scales if is_under(name, prefix)]
    return scales[max(fitting, key=len)] if fitting else 1.0


def _depth_scale(name: str, decay: float | None, layers: Sequence[str]) -> float:
    if decay is None:
        return 1.0
    depth = next((i for i, prefix in enumerate(layers) if is_under(name, prefix)), len(layers))
    return decay ** (len(layers) - depth)
