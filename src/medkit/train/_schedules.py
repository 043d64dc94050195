"""Learning rates that rise once and then fall."""

from torch.optim import Optimizer

from medkit._core import check

from ._closed_schedule import DecayingSchedule, half_cosine


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


class WarmupPoly(DecayingSchedule):
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


class WarmupCosine(DecayingSchedule):
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
        return lr * ((1.0 - self.alpha) * half_cosine(progress) + self.alpha)
