"""Learning rates as closed functions of the step: a resumed schedule is one integer."""

import abc
import math
from collections.abc import Mapping

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from medkit._core import check


def scaled_lr(
    batch_size: int, *, base: float = 1e-4, reference: int = 2, cap: float = 3e-4
) -> float:
    """Return the learning rate that grows with the batch, up to a cap.

    ``min(cap, base * batch_size / reference)``. The defaults are those of a published 3D surface
    detection pipeline. Nothing else in medkit scales a learning rate.

    Args:
        batch_size: Samples behind one optimizer step: batch x accumulation x processes.
        base: Learning rate at the reference batch.
        reference: Batch size that ``base`` belongs to.
        cap: Largest learning rate returned.

    Returns:
        The learning rate.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> [scaled_lr(batch) for batch in (1, 2, 4, 16)]
        [5e-05, 0.0001, 0.0002, 0.0003]
    """
    samples = check.integer("batch_size", batch_size, minimum=1)
    per_sample = check.positive("base", base) / check.integer("reference", reference, minimum=1)
    return min(check.positive("cap", cap), per_sample * samples)


class _ClosedSchedule(LRScheduler, abc.ABC):
    """A schedule whose rates are a function of the step, the group's own rate and its options."""

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        warmup_steps: int,
        warmup_start: float,
    ) -> None:
        self.total_steps: int = check.integer("total_steps", total_steps, minimum=1)
        self.warmup_steps: int = check.integer("warmup_steps", warmup_steps, minimum=0)
        self.warmup_start: float = check.non_negative("warmup_start", warmup_start)
        if self.warmup_steps >= self.total_steps:
            raise check.fail("warmup_steps", f"below total_steps ({total_steps})", warmup_steps)
        super().__init__(optimizer)

    @abc.abstractmethod
    def _decayed(self, lr: float, progress: float) -> float:
        """Return the rate at ``progress`` in [0, 1] of the part after the warm-up."""

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

    def state_dict(self) -> dict[str, int]:
        """Return all there is to remember: the number of steps taken.

        Returns:
            ``{"last_epoch": steps}``, in torch's word for it.
        """
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Continue after a number of steps; the optimizer's learning rates follow at once.

        Args:
            state_dict: ``{"last_epoch": steps}``; other entries are ignored.
        """
        self.last_epoch: int = check.integer("last_epoch", state_dict["last_epoch"], minimum=0)
        self._last_lr = self.get_lr()
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def _rate(self, lr: float, step: int) -> float:
        if step < self.warmup_steps:
            return self.warmup_start + (lr - self.warmup_start) * step / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self._decayed(lr, min(progress, 1.0))


class WarmupPoly(_ClosedSchedule):
    r"""Linear warm-up, then polynomial decay to a floor.

    With :math:`W` warm-up steps of :math:`T` in all and a parameter group's own rate
    :math:`\eta`, the rate of step :math:`t` (the first is 0) is

    .. math::
        t < W: \quad \eta_0 + (\eta - \eta_0)\, t / W, \qquad
        t \ge W: \quad \max\bigl(\eta_{min},\ \eta\,(1 - u)^{p}\bigr), \quad
        u = \min\bigl(1, (t - W) / (T - W)\bigr).

    Step it once after each optimizer step (:class:`Stepper` does). Past the end the rate stays
    where it ended. Without warm-up and floor it is ``torch.optim.lr_scheduler.PolynomialLR``.

    Args:
        optimizer: Its groups' present rates are the peaks.
        total_steps: Optimizer steps until the decay ends, warm-up included.
        warmup_steps: Steps of the warm-up; must be below ``total_steps``.
        warmup_start: Learning rate of step 0 when there is a warm-up.
        power: Exponent of the decay; 1 is linear.
        min_lr: Floor: a smaller decayed rate is raised to it.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = WarmupPoly(optimizer, 6, warmup_steps=2, power=1.0)
        >>> [schedule.lr_at(step)[0] for step in range(8)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]

    References:
        Chen et al., DeepLab, IEEE TPAMI 40(4), 2018, section 4.1.2 (the poly policy).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        warmup_steps: int = 0,
        warmup_start: float = 0.0,
        power: float = 0.9,
        min_lr: float = 0.0,
    ) -> None:
        self.power: float = check.positive("power", power)
        self.min_lr: float = check.non_negative("min_lr", min_lr)
        super().__init__(
            optimizer, total_steps, warmup_steps=warmup_steps, warmup_start=warmup_start
        )

    def _decayed(self, lr: float, progress: float) -> float:
        return max(self.min_lr, lr * (1.0 - progress) ** self.power)


class WarmupCosine(_ClosedSchedule):
    r"""Linear warm-up, then half a cosine down to a fraction of the peak.

    With :math:`W` warm-up steps of :math:`T` in all and a parameter group's own rate
    :math:`\eta`, the rate of step :math:`t` (the first is 0) is

    .. math::
        t < W: \quad \eta_0 + (\eta - \eta_0)\, t / W, \qquad
        t \ge W: \quad \eta\,\bigl((1 - \alpha)\tfrac{1 + \cos \pi u}{2} + \alpha\bigr), \quad
        u = \min\bigl(1, (t - W) / (T - W)\bigr).

    Step it once after each optimizer step (:class:`Stepper` does). Past the end the rate stays at
    :math:`\alpha\eta`; it does not climb again. It is Keras' ``CosineDecay`` with
    ``initial_learning_rate=warmup_start``, ``warmup_target`` the group's rate and
    ``decay_steps=total_steps - warmup_steps``; without warm-up it is torch's
    ``CosineAnnealingLR`` up to ``T_max``.

    Args:
        optimizer: Its groups' present rates are the peaks.
        total_steps: Optimizer steps until the decay ends, warm-up included.
        warmup_steps: Steps of the warm-up; must be below ``total_steps``.
        warmup_start: Learning rate of step 0 when there is a warm-up.
        alpha: Last rate, as a fraction of the peak.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = WarmupCosine(optimizer, 6, warmup_steps=2, alpha=0.1)
        >>> [round(schedule.lr_at(step)[0], 3) for step in range(8)]
        [0.0, 0.5, 1.0, 0.868, 0.55, 0.232, 0.1, 0.1]

    References:
        Loshchilov and Hutter, SGDR, ICLR 2017, equation 5 (one period).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        warmup_steps: int = 0,
        warmup_start: float = 0.0,
        alpha: float = 0.0,
    ) -> None:
        self.alpha: float = check.fraction("alpha", alpha)
        super().__init__(
            optimizer, total_steps, warmup_steps=warmup_steps, warmup_start=warmup_start
        )

    def _decayed(self, lr: float, progress: float) -> float:
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return lr * ((1.0 - self.alpha) * cosine + self.alpha)
