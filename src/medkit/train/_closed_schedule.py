"""Learning rates as closed functions of the step: a resumed schedule is one integer."""

import abc
import math
import warnings
from collections.abc import Mapping
from typing import cast

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from medkit._core import check


class ClosedSchedule(LRScheduler, abc.ABC):
    """A schedule whose rates are a function of the step, the group's own rate and its options."""

    @abc.abstractmethod
    def _rate(self, lr: float, step: int) -> float:
        """Return the rate of a group with the peak ``lr`` at any ``step``."""

    def lr_at(self, step: int) -> list[float]:
        """Return the learning rate of every parameter group at any step, to plot or to check.

        Args:
            step: Optimizer steps taken before; 0 is the first step, past the end is allowed.

        Returns:
            One rate for each parameter group of the optimizer.
        """
        return [self._rate(float(lr), step) for lr in self.base_lrs]

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of every parameter group at the present step.

        Returns:
            One rate for each parameter group of the optimizer.
        """
        return list(self.lr_at(self.last_epoch))

    def state_dict(self) -> dict[str, object]:
        """Return the number of steps taken, and the options to compare with.

        Returns:
            ``{"last_epoch": steps, "options": by name}``, steps in torch's word for them.
        """
        return {"last_epoch": self.last_epoch, "options": self._options()}

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Continue after a number of steps; the optimizer's learning rates follow at once.

        The options stay those of this schedule. A run may so be made longer; that they differ from
        those it began with is a ``RuntimeWarning``.

        Args:
            state_dict: As ``state_dict`` gave it; ``{"last_epoch": steps}`` will do.
        """
        then = cast("Mapping[str, object]", state_dict.get("options", {}))
        now = self._options()
        changed = [f"{n} {now[n]}, was {then[n]}" for n in now if then.get(n, now[n]) != now[n]]
        if changed:
            text = f"the schedule goes on with other options than it began: {'; '.join(changed)}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        self.last_epoch: int = check.integer("last_epoch", state_dict["last_epoch"], minimum=0)
        self._last_lr = self.get_lr()
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def _options(self) -> dict[str, object]:
        own = {
            name: value
            for name, value in vars(self).items()
            if isinstance(value, int | float | str) and name[0] != "_" and name != "last_epoch"
        }
        return {**own, "lr": [float(lr) for lr in self.base_lrs]}


class WarmedSchedule(ClosedSchedule, abc.ABC):
    """A closed schedule that begins with a linear warm-up."""

    def __init__(self, optimizer: Optimizer, *, warmup_steps: int, warmup_start: float) -> None:
        self.warmup_steps: int = check.integer("warmup_steps", warmup_steps, minimum=0)
        self.warmup_start: float = check.non_negative("warmup_start", warmup_start)
        super().__init__(optimizer)

    @abc.abstractmethod
    def _after(self, lr: float, step: int) -> float:
        """Return the rate ``step`` steps after the end of the warm-up."""

    def _rate(self, lr: float, step: int) -> float:
        if step < self.warmup_steps:
            return self.warmup_start + (lr - self.warmup_start) * step / self.warmup_steps
        return self._after(lr, step - self.warmup_steps)


class DecayingSchedule(WarmedSchedule, abc.ABC):
    """A closed schedule with a last step, after which its rate no longer moves."""

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        warmup_steps: int,
        warmup_start: float,
    ) -> None:
        self.total_steps: int = check.integer("total_steps", total_steps, minimum=1)
        if check.integer("warmup_steps", warmup_steps, minimum=0) >= self.total_steps:
            raise check.fail("warmup_steps", f"below total_steps ({total_steps})", warmup_steps)
        super().__init__(optimizer, warmup_steps=warmup_steps, warmup_start=warmup_start)

    @abc.abstractmethod
    def _decayed(self, lr: float, progress: float) -> float:
        """Return the rate at ``progress`` in [0, 1] of the part after the warm-up."""

    def _after(self, lr: float, step: int) -> float:
        return self._decayed(lr, min(step / (self.total_steps - self.warmup_steps), 1.0))


def half_cosine(progress: float) -> float:
    """Return half a cosine from 1 at ``progress`` 0 down to 0 at 1."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))
