"""One optimizer step, in the only order that is right."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from medkit._core import check

from ._agreement import any_process, means_over_processes
from ._amp import AmpMode, AmpPolicy
from ._ema import ModelEma
from ._nonfinite import spoiled_buffers, worst_gradients
from ._sharded import Sharded
from ._stateful import Stateful
from ._step_info import StepInfo
from ._window import Window, gradient_exchange, is_shared, windows

Batch = TypeVar("Batch")
_COUNTERS = ("num_steps", "num_skipped", "skips_in_a_row")


class Stepper:
    r"""Accumulation, mixed precision, clipping, stepping and scheduling for a loop of your own.

    Over a window of :math:`k` micro-batches with losses :math:`l_i` and weights :math:`w_i` the
    optimizer sees the gradient of :math:`\sum_i w_i l_i / \sum_i w_i`. The division happens when
    the window closes, by what it really held, so a ragged last window is scaled right. Then, in
    this order: unscale (fp16), check that loss and gradient are finite, clip, step, step the
    schedule, move the average, update the scaler, clear the gradients.

    With equal batches and mean losses that is the gradient of the big batch; pass ``weight=`` for
    losses that average over a varying number of voxels. Ratios over a whole batch (Dice with
    ``batch=True``) see micro-batches and are not equal to the big batch unless they are wrapped in
    ``medkit.losses.WholeBatch``; batch normalisation never is.
    The schedule steps once for each optimizer step, whatever the number of processes. Loss and norm
    are read back from the device once for each step.

    Args:
        model: The network, as it is called: wrapped for several processes or compiled.
        optimizer: Steps once for each window; its parameters are the ones clipped.
        scheduler: Steps after the optimizer; a skipped window does not move it.
        accumulate: Micro-batches in a full window.
        clip_norm: Largest norm of the whole gradient; None leaves it.
        clip_value: Largest absolute value of a gradient entry; None leaves it. Not together with
            ``clip_norm``.
        amp: Precision of ``autocast()``: a mode of :class:`AmpPolicy`, or a policy.
        ema: Follows the model after each optimizer step; a skipped window does not move it.
        nonfinite: What happens when the loss or the gradient is NaN or infinite. In every case
            the parameters stay as they were: ``"raise"`` an error, ``"skip"`` the window, or
            ``"warn"`` and skip it; a NaN that has got into running statistics cannot be skipped
            and is an error. An fp16 gradient that overflows under a finite loss is the
            scaler's daily work and only skipped.
        max_skips: So many skipped windows in a row are borne, one more is an error.
        compile: Whether to compile the model's forward pass, in place: it stays the same object
            with the same names, so checkpoints fit with and without.

    Attributes:
        num_steps: Optimizer steps taken.
        num_skipped: Windows skipped.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(3, 1)
        >>> stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.1), accumulate=4)
        >>> for x, window in stepper.micro_batches([torch.ones(2, 3)] * 6):
        ...     with stepper.autocast():
        ...         loss = model(x).square().mean()
        ...     stepper.backward(loss)
        ...     info = stepper.step()
        >>> stepper.num_steps, window.size
        (2, 2)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        scheduler: LRScheduler | None = None,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        amp: AmpMode | AmpPolicy = "off",
        ema: ModelEma | None = None,
        nonfinite: Literal["raise", "skip", "warn"] = "raise",
        max_skips: int = 10,
        compile: bool = False,
    ) -> None:
        if not isinstance(amp, AmpPolicy):
            check.one_of("amp", amp, get_args(AmpMode))
        check.one_of("nonfinite", nonfinite, ("raise", "skip", "warn"))
        if clip_norm is not None and clip_value is not None:
            raise check.fail("clip_value", "None when clip_norm is given", clip_value)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise check.fail("scheduler", "a function of the step", type(scheduler).__name__)
        _check_pair(model, optimizer)
        self.model: nn.Module = model
        self.optimizer: Optimizer = optimizer
        self.scheduler: LRScheduler | None = scheduler
        self.accumulate: int = check.integer("accumulate", accumulate, minimum=1)
        self.clip_norm: float | None = (
            None if clip_norm is None else check.positive("clip_norm", clip_norm)
        )
        self.clip_value: float | None = (
            None if clip_value is None else check.positive("clip_value", clip_value)
        )
        self.ema: ModelEma | None = ema
        self.nonfinite: Literal["raise", "skip", "warn"] = nonfinite
        self.max_skips: int = check.integer("max_skips", max_skips, minimum=0)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.amp: AmpPolicy = amp if isinstance(amp, AmpPolicy) else AmpPolicy(amp, device=device)
        self.scaler: torch.amp.GradScaler | None = self.amp.make_scaler()
        self.num_steps: int = 0
        self.num_skipped: int = 0
        self._skips_in_a_row: int = 0
        if compile:
            model.compile()  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
        self._shared = is_shared(model)
        self._window: Window | None = None
        self._losses: list[Tensor] = []
        self._weights: list[float | Tensor] = []
        self._batches: list[tuple[int, object]] = []

    def micro_batches(self, loader: Iterable[Batch]) -> Iterator[tuple[Batch, Window]]:
        """Yield each batch with its place in its window, and tell ``step`` where windows end.

        The size of every window is exact from its first micro-batch on. A loader without a
        dependable length is read one window ahead. Gradients are exchanged between processes
        (DDP, FSDP2) at the end of a window only. A window left by ``break`` is thrown away.

        Args:
            loader: Gives the batches of one epoch.

        Yields:
            The batch and its :class:`Window`.

        Raises:
            RuntimeError: If the loader does not give the batches its length promises, or if a
                window ends without ``step()``.
        """
        self._clear()
        try:
            for number, (batch, window) in enumerate(windows(loader, self.accumulate)):
                self._window = window
                self._batches.append((number, _identity(batch)))
                with (
                    gradient_exchange(self.model, last=window.last)
                    if self._shared
                    else nullcontext()
                ):
                    yield batch, window
                if window.last and self._losses:
                    raise RuntimeError("step() must be called at the end of every window")
        finally:
            self._window = None
            self._clear()

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context to compute the forward pass and the loss in.

        Returns:
            The autocast of the ``amp`` policy.
        """
        return self.amp.autocast()

    def backward(self, loss: Tensor, *, weight: float | Tensor | None = None) -> None:
        """Add the gradient of one micro-batch to the window.

        Args:
            loss: A single number, the mean over whatever the weight counts.
            weight: What this micro-batch counts in its window, e.g. the number of voxels behind
                its mean; None counts every micro-batch the same.

        Raises:
            ValueError: If ``loss`` is not a single number, or ``weight`` is negative.
        """
        if loss.ndim:
            raise check.fail("loss", "a single number (reduce it)", f"shape {tuple(loss.shape)}")
        if isinstance(weight, float | int):
            check.non_negative("weight", weight)
        counted = loss if weight is None else loss * weight
        scaled = counted if self.scaler is None else self.scaler.scale(counted)
        scaled.backward()  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
        self._losses.append(loss.detach())
        self._weights.append(1.0 if weight is None else weight)

    def step(self, *, last: bool | None = None) -> StepInfo:
        """Close the window: unscale, check, clip, step, schedule, clear. Inside one, do nothing.

        Args:
            last: Whether the window ends here. None goes by ``micro_batches``, and in a loop
                without it by the number of ``backward`` calls.

        Returns:
            What was done, as Python numbers.

        Raises:
            FloatingPointError: If the loss or the gradient is not finite and ``nonfinite`` is
                ``"raise"``, or too many windows in a row were skipped. The parameters are as
                they were before the step.
            RuntimeError: If there is nothing to step with.
        """
        lr = float(self.optimizer.param_groups[0]["lr"])
        if not self._losses:
            raise RuntimeError("step() must come after backward(); this window is empty")
        if not (self._closes() if last is None else last):
            return StepInfo(stepped=False, loss=math.nan, grad_norm=math.nan, lr=lr, skipped=False)
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        if not gradients:
            raise RuntimeError("no parameter of the optimizer received a gradient")
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        loss, norm = self._average(gradients)
        grad_norm = float(norm)
        sound = math.isfinite(loss) and math.isfinite(grad_norm)
        if self._shared:
            sound = not any_process(not sound)
        trouble = "" if sound else self._diagnosis(loss)
        if sound:
            self._apply(norm)
        if self.scaler is not None:
            self.scaler.update()
        self._clear()
        if not sound:
            self._refuse(trouble, overflow=self.scaler is not None and math.isfinite(loss))
        return StepInfo(stepped=sound, loss=loss, grad_norm=grad_norm, lr=lr, skipped=not sound)

    def state_dict(self) -> dict[str, object]:
        """Return the state of the parts and the counters, between two windows.

        Returns:
            A dict that ``torch.load(weights_only=True)`` can read back.

        Raises:
            RuntimeError: Inside a window, whose gradients would be lost.
        """
        if self._losses:
            raise RuntimeError("state_dict() must be called between windows, after step()")
        counters = (self.num_steps, self.num_skipped, self._skips_in_a_row)
        state: dict[str, object] = dict(zip(_COUNTERS, counters, strict=True))
        return {**state, **{name: part.state_dict() for name, part in self._parts().items()}}

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Continue from a state.

        Args:
            state_dict: As ``state_dict`` gave it, from a stepper with the same parts.

        Raises:
            ValueError: If it holds other parts than this stepper has.
        """
        parts = self._parts()
        if set(state_dict) != {*_COUNTERS, *parts}:
            rule = f"made of {', '.join((*_COUNTERS, *parts))}"
            raise check.fail("state_dict", rule, ", ".join(state_dict))
        for name, part in parts.items():
            part.load_state_dict(state_dict[name])
        counters = (check.integer(name, state_dict[name], minimum=0) for name in _COUNTERS)
        self.num_steps, self.num_skipped, self._skips_in_a_row = counters
        self._clear()

    def _parts(self) -> dict[str, Stateful]:
        parts: dict[str, Stateful] = {"optimizer": self.optimizer}
        if self.scheduler is not None:
            parts["scheduler"] = self.scheduler
        if self.scaler is not None:
            parts["scaler"] = self.scaler
        if self.ema is not None:
            parts["ema"] = self.ema
        return parts

    def _parameters(self) -> Iterator[Tensor]:
        return (p for group in self.optimizer.param_groups for p in group["params"])

    def _closes(self) -> bool:
        if self._window is not None:
            return self._window.last
        return len(self._losses) >= self.accumulate

    def _average(self, gradients: list[Tensor]) -> tuple[float, Tensor]:
        """Divide the summed gradients by the window's weight; return the mean loss and the norm."""
        losses, weights = _numbers(self._losses), [float(weight) for weight in self._weights]
        total = sum(weights)
        summed = math.fsum(w * loss for w, loss in zip(weights, losses, strict=True))
        if self._shared:
            summed, total = means_over_processes(summed, total)
        if total not in (0.0, 1.0):
            torch._foreach_div_(gradients, total)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]  no public one
        norm = get_total_norm(gradients)
        if self._shared and isinstance(norm, Sharded):
            norm = norm.full_tensor()
        if not total:
            return math.nan, norm
        return (losses[0] if len(losses) == 1 and not self._shared else summed / total), norm

    def _apply(self, norm: Tensor) -> None:
        if self.clip_norm is not None:
            clip_grads_with_norm_(self._parameters(), self.clip_norm, norm)
        if self.clip_value is not None:
            clip_grad_value_(self._parameters(), self.clip_value)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
        self.num_steps += 1
        self._skips_in_a_row = 0
        if self.scheduler is not None:
            self.scheduler.step()
        if self.ema is not None:
            self.ema.update(self.model)

    def _diagnosis(self, loss: float) -> str:
        place = f"in optimizer step {self.num_steps + 1}"
        names = [
            f"batch {number} of this pass" + ("" if identity is None else f" (id {identity})")
            for number, identity in self._batches or enumerate([None] * len(self._losses))
        ]
        if math.isfinite(loss):
            where = worst_gradients(self.model)
            return f"the gradient is not finite {place} ({', '.join(names)}), {where}"
        pairs = zip(names, self._losses, strict=False)
        wrong = [name for name, value in pairs if not value.isfinite()]
        elsewhere = "another process or " if self._shared else ""
        origin = ", ".join(wrong) or f"{elsewhere}weights that are all 0"
        return f"the loss is {loss} {place}, from {origin}"

    def _refuse(self, trouble: str, *, overflow: bool) -> None:
        """Count a window that was thrown away; raise or warn as asked."""
        self.num_skipped += 1
        self._skips_in_a_row += 1
        if self._skips_in_a_row > self.max_skips:
            raise FloatingPointError(f"{self._skips_in_a_row} windows skipped in a row: {trouble}")
        if overflow:
            return
        if spoiled := spoiled_buffers(self.model):
            raise FloatingPointError(
                f"{trouble}; the parameters are as they were before it, but its forward pass has "
                f"spoiled {spoiled}: go on from a checkpoint"
            )
        if self.nonfinite == "raise":
            raise FloatingPointError(f"{trouble}; the parameters are as they were before it")
        if self.nonfinite == "warn":
            warnings.warn(f"skipped a window: {trouble}", RuntimeWarning, stacklevel=3)

    def _clear(self) -> None:
        """Open a new window: no gradients, no losses."""
        self.optimizer.zero_grad(set_to_none=True)
        self._losses.clear()
        self._weights.clear()
        self._batches.clear()


def _numbers(losses: list[Tensor]) -> list[float]:
    """Return the losses as numbers, read back from the device at once."""
    if len(losses) == 1:
        return [losses[0].item()]
    return torch.stack(losses).tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  untyped


def _identity(batch: object) -> object:
    """Return what lets the user find a batch again, if it says so."""
    return cast("dict[object, object]", batch).get("id") if isinstance(batch, dict) else None


def _check_pair(model: nn.Module, optimizer: Optimizer) -> None:
    check.kind("model", model, nn.Module, "a module; the optimizer comes second")
    check.kind("optimizer", optimizer, Optimizer, "an optimizer of torch")
    own = {id(parameter) for parameter in model.parameters()}
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if own.isdisjoint(stepped):
        raise check.fail("optimizer", "made for parameters of this model", "none of them")
