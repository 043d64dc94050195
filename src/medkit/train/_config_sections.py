"""The sections of a configuration: options that belong together, checked when made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from torch import nn
from torch.optim import AdamW, Optimizer

from medkit._core import check

from ._amp import AmpMode
from ._checkpoint import CheckpointManager
from ._early_stopping import Mode
from ._groups import param_groups
from ._keras_adamw import KerasAdamW
from ._schedules import WarmupCosine, WarmupPoly

Nonfinite = Literal["raise", "skip", "warn"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the weights move.

    Attributes:
        name: ``"adamw"``, or ``"keras_adamw"`` to repeat a run of a Keras program.
        lr: Peak learning rate.
        weight_decay: Of weights; biases and normalisation layers have none (:func:`param_groups`).
        betas: Decays of the two moments.
        accumulate: Batches behind one optimizer step.
        clip_norm: Largest norm of the whole gradient; None leaves it.
        ema_decay: Decay of a :class:`ModelEma`; None keeps no average.

    Example:
        >>> import torch
        >>> optimizer = OptimConfig(lr=5e-4).make_optimizer(torch.nn.Linear(2, 1))
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["weight_decay"]
        (0.0005, 0.0)
    """

    name: Literal["adamw", "keras_adamw"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    accumulate: int = 1
    clip_norm: float | None = 1.0
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        check.one_of("optim.name", self.name, ("adamw", "keras_adamw"))
        check.kind("optim.betas", self.betas, (tuple, list), "two numbers")
        if len(self.betas) != 2:
            raise check.fail("optim.betas", "two numbers", self.betas)
        first, second = (check.fraction("optim.betas", b, below_one=True) for b in self.betas)
        _set(self, "betas", (first, second))
        _set(self, "lr", check.positive("optim.lr", self.lr))
        _set(self, "weight_decay", check.non_negative("optim.weight_decay", self.weight_decay))
        check.integer("optim.accumulate", self.accumulate, minimum=1)
        if self.clip_norm is not None:
            _set(self, "clip_norm", check.positive("optim.clip_norm", self.clip_norm))
        if self.ema_decay is not None:
            _set(self, "ema_decay", check.fraction("optim.ema_decay", self.ema_decay))

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """Return the optimizer of a model, its parameters sorted by :func:`param_groups`.

        Args:
            model: The network.

        Returns:
            The optimizer.
        """
        groups = param_groups(model, self.weight_decay)
        if self.name == "adamw":
            return AdamW(groups, lr=self.lr, betas=self.betas)
        return KerasAdamW(groups, lr=self.lr, weight_decay=self.weight_decay, betas=self.betas)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate moves. None stands for what the schedule's own class has.

    Attributes:
        name: ``"cosine"`` (:class:`WarmupCosine`), ``"poly"`` (:class:`WarmupPoly`) or
            ``"constant"`` after the warm-up.
        warmup_epochs: Epochs of the linear warm-up, also parts of one.
        power: Exponent of ``"poly"``; None is 0.9.
        min_lr: Last learning rate of ``"cosine"``, floor of ``"poly"``; None is 0.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> config = ScheduleConfig(name="poly", warmup_epochs=1, power=1.0)
        >>> schedule = config.make_schedule(optimizer, epochs=3, steps_per_epoch=2)
        >>> [schedule.lr_at(step)[0] for step in range(7)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    name: Literal["cosine", "poly", "constant"] = "cosine"
    warmup_epochs: float = 0.0
    power: float | None = None
    min_lr: float | None = None

    def __post_init__(self) -> None:
        check.one_of("schedule.name", self.name, ("cosine", "poly", "constant"))
        warmup = check.non_negative("schedule.warmup_epochs", self.warmup_epochs)
        _set(self, "warmup_epochs", warmup)
        if self.power is not None:
            if self.name != "poly":
                raise check.fail("schedule.power", f"None for {self.name!r}", self.power)
            _set(self, "power", check.positive("schedule.power", self.power))
        if self.min_lr is not None:
            if self.name == "constant":
                raise check.fail("schedule.min_lr", f"None for {self.name!r}", self.min_lr)
            _set(self, "min_lr", check.non_negative("schedule.min_lr", self.min_lr))

    def make_schedule(
        self, optimizer: Optimizer, *, epochs: int, steps_per_epoch: int
    ) -> WarmupPoly | WarmupCosine:
        """Return the schedule over a whole run.

        Args:
            optimizer: Its groups' present rates are the peaks.
            epochs: Epochs in all.
            steps_per_epoch: Optimizer steps in each.

        Returns:
            The schedule, to be stepped once after each optimizer step.

        Raises:
            ValueError: If the warm-up is as long as the run, or ``min_lr`` is above the peak.
        """
        total = check.integer("epochs", epochs, minimum=1) * check.integer(
            "steps_per_epoch", steps_per_epoch, minimum=1
        )
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if warmup >= total:
            raise check.fail("schedule.warmup_epochs", f"below {epochs} epochs", self.warmup_epochs)
        if self.name == "constant":
            return WarmupCosine(optimizer, total, warmup_steps=warmup, alpha=1.0)
        floor = 0.0 if self.min_lr is None else self.min_lr
        if self.name == "poly":
            power = 0.9 if self.power is None else self.power
            return WarmupPoly(optimizer, total, warmup_steps=warmup, power=power, min_lr=floor)
        peak = max(float(group["lr"]) for group in optimizer.param_groups)
        if floor > peak:
            raise check.fail("schedule.min_lr", f"at most the peak rate {peak}", floor)
        return WarmupCosine(optimizer, total, warmup_steps=warmup, alpha=floor / peak)


@dataclass(frozen=True, kw_only=True)
class AmpConfig:
    """In which precision, and what happens when it does not suffice.

    Attributes:
        mode: Precision of the forward pass, as in :class:`AmpPolicy`.
        nonfinite: What happens when loss or gradient is NaN, as in :class:`Stepper`.

    Example:
        >>> AmpConfig(mode="bf16")
        AmpConfig(mode='bf16', nonfinite='raise')
    """

    mode: AmpMode = "off"
    nonfinite: Nonfinite = "raise"

    def __post_init__(self) -> None:
        check.one_of("amp.mode", self.mode, get_args(AmpMode))
        check.one_of("amp.nonfinite", self.nonfinite, get_args(Nonfinite))


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How much is taken in at a time.

    Attributes:
        batch_size: Samples of one batch over all processes.
        patch_size: Voxels of a patch along each axis, or one number for all; None is whole images.
        num_workers: Processes that make samples; 0 makes them in the loop's own.

    Example:
        >>> DataConfig(batch_size=2, patch_size=(64, 64, 32)).patch_size
        (64, 64, 32)
    """

    batch_size: int = 2
    patch_size: int | tuple[int, ...] | None = None
    num_workers: int = 0

    def __post_init__(self) -> None:
        check.integer("data.batch_size", self.batch_size, minimum=1)
        check.integer("data.num_workers", self.num_workers, minimum=0)
        if isinstance(self.patch_size, tuple | list):
            sizes = (check.integer("data.patch_size", n, minimum=1) for n in self.patch_size)
            _set(self, "patch_size", tuple(sizes))
        elif self.patch_size is not None:
            check.integer("data.patch_size", self.patch_size, minimum=1)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What is kept of a run, as in :class:`CheckpointManager`.

    Attributes:
        every_steps: Save after so many steps; None saves after each epoch only.
        every_minutes: Save after so many minutes; None saves after each epoch only.
        keep_last: Newest checkpoints that are kept.
        keep_best: Best ones by ``metric`` that are kept besides.
        metric: Number of an epoch that ranks checkpoints and stops early, e.g. "dice/mean".
        mode: Whether a larger or a smaller one is better.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     CheckpointConfig(keep_last=5).make_manager(folder).keep_last
        5
    """

    every_steps: int | None = None
    every_minutes: float | None = None
    keep_last: int = 2
    keep_best: int = 1
    metric: str = "train_loss"
    mode: Mode = "min"

    def __post_init__(self) -> None:
        if self.every_steps is not None:
            check.integer("checkpoint.every_steps", self.every_steps, minimum=1)
        if self.every_minutes is not None:
            minutes = check.positive("checkpoint.every_minutes", self.every_minutes)
            _set(self, "every_minutes", minutes)
        check.integer("checkpoint.keep_last", self.keep_last, minimum=1)
        check.integer("checkpoint.keep_best", self.keep_best, minimum=0)
        check.kind("checkpoint.metric", self.metric, str, "a name")
        check.one_of("checkpoint.mode", self.mode, get_args(Mode))

    def make_manager(self, root: str | Path) -> CheckpointManager:
        """Return the manager of a run's checkpoints.

        Args:
            root: Folder of the run; made if needed.

        Returns:
            The manager.
        """
        return CheckpointManager(
            root,
            keep_last=self.keep_last,
            keep_best=self.keep_best,
            metric=self.metric,
            mode=self.mode,
            every_steps=self.every_steps,
            every_minutes=self.every_minutes,
        )


def _set(config: object, name: str, value: object) -> None:
    """Write a value of a frozen dataclass in the form it is kept in."""
    object.__setattr__(config, name, value)
