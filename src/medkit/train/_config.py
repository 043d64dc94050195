"""A configuration of a run: typed, frozen, checked when made, and used to its last key."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, cast

from torch import nn
from torch.utils.data import DataLoader

from medkit._core import check

from ._batch_sampler import ResumableBatchSampler
from ._checked import Json
from ._config_keys import as_mapping, check_known, flat, leaves, parsed
from ._config_sections import (
    AmpConfig,
    CheckpointConfig,
    DataConfig,
    OptimConfig,
    ScheduleConfig,
)
from ._early_stopping import EarlyStopping
from ._ema import ModelEma
from ._seeded_dataset import Indexed, make_loader
from ._stepper import Stepper

Item = TypeVar("Item")
_SECTIONS = {
    "optim": OptimConfig,
    "schedule": ScheduleConfig,
    "amp": AmpConfig,
    "data": DataConfig,
    "checkpoint": CheckpointConfig,
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The options of a run in one frozen object, and the parts it makes of them.

    Values are checked when it is made, and a key that does not exist is refused with the nearest
    that does. Begin with a :func:`preset`, change keys with ``override``, and let
    :func:`all_keys_read` see to it that none is without effect. What belongs to the network or
    the loss is not in here.

    Attributes:
        epochs: Epochs in all.
        seed: For ``seed_everything`` and the order of the samples.
        compile: Whether the model is compiled, as in :class:`Stepper`.
        patience: Epochs without a better ``checkpoint.metric`` that are borne; None runs all.
        min_delta: How much better counts as better; None is anything. Needs ``patience``.
        optim: How the weights move.
        schedule: How the learning rate moves.
        amp: In which precision.
        data: How much is taken in at a time.
        checkpoint: What is kept.

    Example:
        >>> import torch
        >>> config = TrainConfig(epochs=3).override(["optim.lr=5e-4", "optim.accumulate=2"])
        >>> stepper = config.make_stepper(torch.nn.Linear(2, 1), batches_per_epoch=5)
        >>> stepper.accumulate, stepper.scheduler.total_steps
        (2, 9)
        >>> TrainConfig.from_dict({"optim": {"learning_rat": 1.0}, "data": {"batchsize": 2}})
        Traceback (most recent call last):
        ValueError: key must be 'data.batch_size', the nearest there is; got 'data.batchsize'
    """

    epochs: int = 100
    seed: int = 0
    compile: bool = False
    patience: int | None = None
    min_delta: float | None = None
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    amp: AmpConfig = field(default_factory=AmpConfig)
    data: DataConfig = field(default_factory=DataConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        check.integer("epochs", self.epochs, minimum=1)
        check.integer("seed", self.seed, minimum=0)
        check.kind("compile", self.compile, bool, "true or false")
        if self.patience is not None:
            check.integer("patience", self.patience, minimum=1)
        if self.min_delta is not None:
            if self.patience is None:
                raise check.fail("min_delta", "None without patience", self.min_delta)
            delta = check.non_negative("min_delta", self.min_delta)
            object.__setattr__(self, "min_delta", delta)
        for name, kind in _SECTIONS.items():
            check.kind(name, vars(self)[name], kind, f"of kind {kind.__name__}")
        if self.schedule.warmup_epochs >= self.epochs:
            rule = f"below epochs ({self.epochs})"
            raise check.fail("schedule.warmup_epochs", rule, self.schedule.warmup_epochs)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "TrainConfig":
        """Return the configuration that nested mappings describe, e.g. from a JSON or TOML file.

        Args:
            values: As ``to_dict`` gives them; a section may also be spelt ``{"optim.lr": 1e-3}``.
                Keys that are left out have their defaults.

        Returns:
            The configuration.

        Raises:
            ValueError: If a key does not exist or a value is out of range.
        """
        return _changed(cls(), dict(flat(values)))

    def to_dict(self) -> dict[str, Json]:
        """Return every key and value, ready for JSON and for ``extra`` of a checkpoint.

        Returns:
            Nested dicts.
        """
        return as_mapping(self)

    def override(self, assignments: str | Iterable[str]) -> "TrainConfig":
        """Return a copy with some keys changed, as a command line spells it.

        Args:
            assignments: ``"optim.lr=5e-4"``, or several such: numbers, words, true, false, none,
                and several values with commas.

        Returns:
            The changed copy.

        Raises:
            ValueError: If a key does not exist, a value is out of range, or one has no "=".

        Example:
            >>> TrainConfig().override("data.patch_size=64,64,32").data.patch_size
            (64, 64, 32)
        """
        changes: dict[str, object] = {}
        for text in [assignments] if isinstance(assignments, str) else assignments:
            name, equals, value = text.partition("=")
            if not equals:
                raise check.fail("override", "of the form key=value", repr(text))
            changes[name.strip()] = parsed(value)
        return _changed(self, changes)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that differ when any value differs.

        Returns:
            The first digits of the SHA-256 of ``to_dict`` as JSON.
        """
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def make_stepper(self, model: nn.Module, *, batches_per_epoch: int) -> Stepper:
        """Return the stepper with optimizer, schedule, average and precision as configured.

        Args:
            model: The network, on its device.
            batches_per_epoch: Length of the training loader, from which the schedule is laid out.

        Returns:
            The stepper.

        Raises:
            ValueError: If the warm-up is as long as the run.
        """
        optim = self.optim
        optimizer = optim.make_optimizer(model)
        steps = -(-check.integer("batches_per_epoch", batches_per_epoch) // optim.accumulate)
        return Stepper(
            model,
            optimizer,
            scheduler=self.schedule.make_schedule(
                optimizer, epochs=self.epochs, steps_per_epoch=steps
            ),
            accumulate=optim.accumulate,
            clip_norm=optim.clip_norm,
            amp=self.amp.mode,
            ema=None if optim.ema_decay is None else ModelEma(model, decay=optim.ema_decay),
            nonfinite=self.amp.nonfinite,
            compile=self.compile,
        )

    def make_loader(self, dataset: Indexed[Item], *, shuffle: bool = True) -> DataLoader[Item]:
        """Return a loader in batches, whose order depends on seed and epoch alone.

        Args:
            dataset: Gives items by number, with keyed randomness (:class:`SeededDataset`).
            shuffle: Whether the order is random.

        Returns:
            The loader.
        """
        sampler = ResumableBatchSampler(
            len(dataset), self.data.batch_size, seed=self.seed, shuffle=shuffle
        )
        return make_loader(dataset, sampler, num_workers=self.data.num_workers)

    def make_early_stopping(self) -> EarlyStopping | None:
        """Return what stops the run when ``checkpoint.metric`` no longer improves.

        Returns:
            It, or None without ``patience``.
        """
        if self.patience is None:
            return None
        return EarlyStopping(
            self.patience,
            metric=self.checkpoint.metric,
            mode=self.checkpoint.mode,
            min_delta=0.0 if self.min_delta is None else self.min_delta,
        )


def _changed(config: TrainConfig, changes: Mapping[str, object]) -> TrainConfig:
    """Return a copy with other values under some dotted names."""
    values = dict(leaves(config))
    for name, value in changes.items():
        check_known(name, list(values))
        values[name] = tuple(cast("list[object]", value)) if isinstance(value, list) else value
    options: dict[str, dict[str, object]] = {name: {} for name in ("", *_SECTIONS)}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        options[section][key] = value
    make = cast("Mapping[str, Callable[..., object]]", {"": TrainConfig, **_SECTIONS})
    sections = {name: make[name](**options[name]) for name in _SECTIONS}
    return cast("TrainConfig", make[""](**options[""], **sections))
