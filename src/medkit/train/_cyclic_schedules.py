"""Learning rates that rise and fall more than once, or both within one run."""

from itertools import pairwise
from typing import Literal

from torch.optim import Optimizer

from medkit._core import check

from ._closed_schedule import ClosedSchedule, WarmedSchedule, half_cosine


class WarmupCosineRestarts(WarmedSchedule):
    r"""Linear warm-up, then half a cosine over and over, each longer and lower than the last.

    Cycle :math:`i` (from 0) is :math:`T_i = T_0 m^i` steps long. At step :math:`t` of it a group
    with its own rate :math:`\eta` learns at

    .. math::
        \eta\,\bigl((1 - \alpha)\,g^i\,\tfrac{1 + \cos(\pi t / T_i)}{2} + \alpha\bigr).

    After the warm-up it is Keras' ``CosineDecayRestarts`` and, with whole ``period_factor`` and
    ``peak_factor=1``, torch's ``CosineAnnealingWarmRestarts``. It has no end.

    Args:
        optimizer: Its groups' present rates are the first peaks.
        period: Steps of the first cycle.
        period_factor: :math:`m`, how much longer each cycle is than the one before, at least 1.
        peak_factor: :math:`g`, how much of the peak the next cycle keeps.
        warmup_steps: Steps of the warm-up, before the first cycle.
        warmup_start: Learning rate of step 0 when there is a warm-up.
        alpha: Lowest rate, as a fraction of the first peak.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = WarmupCosineRestarts(optimizer, 2, period_factor=2, peak_factor=0.5)
        >>> [round(schedule.lr_at(step)[0], 3) for step in range(7)]
        [1.0, 0.5, 0.5, 0.427, 0.25, 0.073, 0.25]

    References:
        Loshchilov and Hutter, SGDR, ICLR 2017, equation 5.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        period: int,
        *,
        period_factor: float = 1.0,
        peak_factor: float = 1.0,
        warmup_steps: int = 0,
        warmup_start: float = 0.0,
        alpha: float = 0.0,
    ) -> None:
        self.period: int = check.integer("period", period, minimum=1)
        self.period_factor: float = check.real("period_factor", period_factor)
        if self.period_factor < 1:
            raise check.fail("period_factor", "at least 1", period_factor)
        self.peak_factor: float = check.fraction("peak_factor", peak_factor)
        self.alpha: float = check.fraction("alpha", alpha)
        super().__init__(optimizer, warmup_steps=warmup_steps, warmup_start=warmup_start)

    def _after(self, lr: float, step: int) -> float:
        if self.period_factor == 1:
            cycle, place = divmod(step, self.period)
            length: float = self.period
        else:
            cycle, place, length = 0, float(step), self.period
            while place >= length:
                cycle, place, length = cycle + 1, place - length, length * self.period_factor
        peak = (1.0 - self.alpha) * self.peak_factor**cycle
        return lr * (peak * half_cosine(place / length) + self.alpha)


class OneCycle(ClosedSchedule):
    r"""One rise to the peak, one fall far below where it began: the super-convergence policy.

    A group with its own rate :math:`\eta` starts at :math:`\eta\,s`, reaches :math:`\eta` at step
    :math:`r T - 1` of :math:`T` (the first is 0) and ends at :math:`\eta\,e` in step
    :math:`T - 1`, where it stays. With ``back`` the fall first takes as long as the rise and ends
    where that began, and the rest of the steps go down to the end. It is torch's ``OneCycleLR``
    with ``div_factor`` :math:`1 / s`, ``final_div_factor`` :math:`s / e`, ``pct_start``
    :math:`r` and ``cycle_momentum=False``.

    Args:
        optimizer: Its groups' present rates are the peaks.
        total_steps: Optimizer steps of the whole cycle.
        rise: Fraction of the steps until the peak, at most 0.5 with ``back``.
        start: First rate, as a fraction of the peak.
        end: Last rate, as a fraction of the peak.
        shape: Half a cosine, or a straight line, between the turning points.
        back: Whether to come down in two pieces.

    Raises:
        ValueError: If an option is out of range, or a piece would have no step.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = OneCycle(optimizer, 10, rise=0.3, shape="linear")
        >>> [round(schedule.lr_at(step)[0], 2) for step in (0, 1, 2, 5, 9, 20)]
        [0.04, 0.52, 1.0, 0.57, 0.0, 0.0]

    References:
        Smith and Topin, Super-convergence, 2018 (arXiv:1708.07120), section 4.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        rise: float = 0.3,
        start: float = 1 / 25,
        end: float = 1 / 250_000,
        shape: Literal["cosine", "linear"] = "cosine",
        back: bool = False,
    ) -> None:
        self.total_steps: int = check.integer("total_steps", total_steps, minimum=1)
        self.rise: float = check.fraction("rise", rise)
        self.start: float = check.fraction("start", start)
        self.end: float = check.fraction("end", end)
        check.one_of("shape", shape, ("cosine", "linear"))
        self.shape: Literal["cosine", "linear"] = shape
        self.back: bool = back
        top = rise * total_steps - 1
        corners = [(0.0, start), (top, 1.0), (total_steps - 1.0, end)]
        if back:
            corners.insert(2, (2 * top, start))
        if any(later <= earlier for (earlier, _), (later, _) in pairwise(corners)):
            raise check.fail("rise", "such that every piece of the cycle has a step", rise)
        self._corners = corners
        super().__init__(optimizer)

    def _rate(self, lr: float, step: int) -> float:
        for (left, high), (right, low) in pairwise(self._corners):
            if step <= right:
                progress = (step - left) / (right - left)
                kept = half_cosine(progress) if self.shape == "cosine" else 1.0 - progress
                return lr * (low + (high - low) * kept)
        return lr * self.end


class TriangularCycles(ClosedSchedule):
    r"""Straight lines up and down between a low rate and a peak, over and over.

    In cycle :math:`i` (from 0) a group with its own rate :math:`\eta` climbs from
    :math:`\eta\,\lambda` to :math:`\eta\,(\lambda + (1 - \lambda) g^i)` and falls back. It is
    torch's ``CyclicLR`` with ``base_lr`` :math:`\eta\,\lambda` and ``max_lr`` :math:`\eta`, in
    mode "triangular" with ``peak_factor=1`` and "triangular2" with ``peak_factor=0.5``, and
    ``cycle_momentum=False``. It has no end.

    Args:
        optimizer: Its groups' present rates are the peaks.
        up_steps: Steps of a climb.
        down_steps: Steps of a fall; None means as many as of a climb.
        low: Lowest rate, as a fraction of the peak.
        peak_factor: :math:`g`, how much of its height the next cycle keeps.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = TriangularCycles(optimizer, 2, low=0.2, peak_factor=0.5)
        >>> [round(schedule.lr_at(step)[0], 3) for step in range(8)]
        [0.2, 0.6, 1.0, 0.6, 0.2, 0.4, 0.6, 0.4]

    References:
        Smith, Cyclical learning rates for training neural networks, WACV 2017, section 3.1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        up_steps: int,
        *,
        down_steps: int | None = None,
        low: float = 0.25,
        peak_factor: float = 1.0,
    ) -> None:
        self.up_steps: int = check.integer("up_steps", up_steps, minimum=1)
        down = up_steps if down_steps is None else down_steps
        self.down_steps: int = check.integer("down_steps", down, minimum=1)
        self.low: float = check.fraction("low", low)
        self.peak_factor: float = check.fraction("peak_factor", peak_factor)
        super().__init__(optimizer)

    def _rate(self, lr: float, step: int) -> float:
        cycle, place = divmod(step, self.up_steps + self.down_steps)
        falling = (self.up_steps + self.down_steps - place) / self.down_steps
        height = min(place / self.up_steps, falling) * self.peak_factor**cycle
        return lr * (self.low + (1.0 - self.low) * height)
