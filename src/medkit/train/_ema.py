"""The moving average of a model's weights."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# (torch's operations on lists of tensors have no public names)

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Literal, cast

import torch
from torch import Tensor, nn

from medkit._core import check

from ._modules import named_modules
from ._weights import plain_name


class ModelEma:
    r"""Exponential moving average of a model's weights, often better than the last of them.

    Update :math:`n` (the first is 1) moves every averaged number :math:`a` towards the model's
    :math:`w`,

    .. math::
        a \leftarrow d_n\,a + (1 - d_n)\,w, \qquad
        d_n = \min\bigl(d,\ 1 - (1 + k_n / \gamma)^{-p}\bigr), \quad
        k_n = \max(0,\ n - 1 - \text{update_after}),

    where without ``warmup`` the second term of the minimum is left out for :math:`k_n > 0`. At
    :math:`k_n = 0` it copies the model. That is timm's ``ModelEmaV3``. All tensors move in one
    fused operation; the shards of an FSDP2 model are averaged where they lie. Give it to
    :class:`Stepper`, or call ``update`` after each optimizer step.

    Args:
        model: Gives the first values and the names; wrappers do not matter.
        decay: :math:`d`, how much of the average stays in one update.
        warmup: Whether to begin with smaller decays; else the first values weigh long.
        gamma: :math:`\gamma` of the warm-up, in updates.
        power: :math:`p` of the warm-up.
        update_after: So many updates after the first also just copy the model.
        device: Where to keep the average; None keeps each number beside the model's.
        dtype: Of the averaged numbers; None takes the model's own, and float32 for half precision,
            in which a small step would be rounded away.
        buffers: Whether buffers, such as running statistics, are copied from the model or
            averaged too. Whole numbers are always copied.

    Attributes:
        num_updates: Updates so far.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> ema = ModelEma(model, decay=0.9)
        >>> for value in (0.0, 1.0, 1.0):
        ...     _ = torch.nn.init.constant_(model.weight, value)
        ...     ema.update(model)
        >>> with ema.swap(model):
        ...     print(round(model.weight.item(), 2))
        0.19
        >>> model.weight.item()
        1.0

    References:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging, SIAM J. Control
        and Optimization, 1992.
        Tarvainen and Valpola, Mean teachers, NeurIPS 2017, section 2 (the average with a decay).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        decay: float = 0.9999,
        warmup: bool = False,
        gamma: float = 1.0,
        power: float = 2 / 3,
        update_after: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        buffers: Literal["copy", "ema"] = "copy",
    ) -> None:
        check.one_of("buffers", buffers, ("copy", "ema"))
        self.decay: float = check.fraction("decay", decay)
        self.warmup: bool = warmup
        self.gamma: float = check.positive("gamma", gamma)
        self.power: float = check.positive("power", power)
        self.update_after: int = check.integer("update_after", update_after, minimum=0)
        self.buffers: Literal["copy", "ema"] = buffers
        self.num_updates: int = 0
        self._swapped = False
        moving, rest = self._sorted(model)
        self._average = {
            name: value.to(device=device, dtype=dtype or _wide(value.dtype), copy=True)
            for name, value in moving.items()
        }
        self._average |= {name: value.to(device=device, copy=True) for name, value in rest.items()}

    @property
    def average(self) -> dict[str, Tensor]:
        """The averaged weights under the model's names, ready for :func:`save_weights`."""
        return dict(self._average)

    def decay_at(self, update: int) -> float:
        """Return the decay of an update, to plot or to check.

        Args:
            update: Its number, from 1.

        Returns:
            How much of the average stays in it.
        """
        behind = max(0, update - 1 - self.update_after)
        if not behind:
            return 0.0
        if not self.warmup:
            return self.decay
        return min(self.decay, 1.0 - (1.0 + behind / self.gamma) ** -self.power)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model, after an optimizer step.

        Args:
            model: The one that was averaged from the beginning, however wrapped.

        Raises:
            ValueError: If it has other tensors.
            RuntimeError: Inside ``swap``.
        """
        self._refuse_while_swapped()
        moving, rest = self._sorted(model)
        self._check_names([*moving, *rest])
        self.num_updates += 1
        weight = 1.0 - self.decay_at(self.num_updates)
        averages = [self._average[name] for name in moving]
        pairs = zip(moving.values(), averages, strict=True)
        values = [value.to(average.device, average.dtype) for value, average in pairs]
        torch._foreach_lerp_(averages, values, weight)
        _copy((self._average[name] for name in rest), rest.values())

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Put the average into a model.

        Args:
            model: Receives all weights and buffers.

        Raises:
            ValueError: If it has other tensors.
        """
        moving, rest = self._sorted(model)
        own = {**moving, **rest}
        self._check_names(list(own))
        _copy(own.values(), (self._average[name] for name in own))

    @contextmanager
    def swap(self, model: nn.Module) -> Generator[None, None, None]:
        """Give a model the averaged weights for a while, e.g. to validate, then its own again.

        Inside, the average can neither be updated nor saved, so that no checkpoint takes the
        averaged weights for the model's.

        Args:
            model: The model.

        Yields:
            Nothing.

        Raises:
            RuntimeError: If it is swapped already.

        Example:
            >>> import torch
            >>> model = torch.nn.Linear(1, 1)
            >>> ema = ModelEma(model)
            >>> with ema.swap(model):
            ...     ema.state_dict()
            Traceback (most recent call last):
            RuntimeError: the average is in the model's place; leave swap() first
        """
        self._refuse_while_swapped()
        moving, rest = self._sorted(model)
        own = [*moving.values(), *rest.values()]
        kept = [tensor.clone() for tensor in own]
        self.copy_to(model)
        self._swapped = True
        try:
            yield
        finally:
            self._swapped = False
            with torch.no_grad():
                _copy(own, kept)

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        """Return the average and the number of updates.

        Returns:
            ``{"num_updates": count, "average": tensors by name}``.

        Raises:
            RuntimeError: Inside ``swap``.
        """
        self._refuse_while_swapped()
        return {"num_updates": self.num_updates, "average": self.average}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, int | dict[str, Tensor]]) -> None:
        """Go on from a state.

        Args:
            state_dict: As ``state_dict`` gave it, for an equal model.

        Raises:
            ValueError: If it has other tensors.
        """
        average = cast("dict[str, Tensor]", state_dict["average"])
        self._check_names(list(average))
        _copy((self._average[name] for name in average), average.values())
        self.num_updates = check.integer("num_updates", state_dict["num_updates"], minimum=0)

    def _refuse_while_swapped(self) -> None:
        if self._swapped:
            raise RuntimeError("the average is in the model's place; leave swap() first")

    def _sorted(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the tensors that move and those that are copied, by plain name."""
        named = model.named_parameters(remove_duplicate=False)
        moving = {plain_name(name): parameter.detach() for name, parameter in named}
        copied: dict[str, Tensor] = {}
        for name, buffer in _persistent_buffers(model).items():
            averaged = self.buffers == "ema" and buffer.is_floating_point()
            (moving if averaged else copied)[plain_name(name)] = buffer
        return moving, copied

    def _check_names(self, names: list[str]) -> None:
        if len(names) != len(self._average) or not all(name in self._average for name in names):
            odd = sorted(set(names) ^ set(self._average))
            raise check.fail("model", "the one that was averaged", f"other tensors: {odd[:3]}")


def _persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for prefix, module in named_modules(model, twice=True):
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:  # noqa: SLF001  no public name
                found[f"{prefix}.{name}" if prefix else name] = buffer
    return found


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in {torch.float16, torch.bfloat16} else dtype


def _copy(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
