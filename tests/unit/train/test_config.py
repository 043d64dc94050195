"""A configuration is typed, refuses what it does not know, and has no key without effect."""

import json
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import cast, get_args

import pytest
import torch
from torch import nn

from medkit.train import (
    DataConfig,
    KerasAdamW,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
    all_keys_read,
    fit,
    preset,
    seed_everything,
)
from medkit.train._config_keys import leaves
from medkit.train._presets import PresetName

NAMES = get_args(PresetName)


class _Items:
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": torch.full((2,), index / 8), "label": torch.zeros(1)}


def _lr(config: TrainConfig, batches: int, step: int) -> float:
    stepper = config.make_stepper(nn.Linear(2, 1), batches_per_epoch=batches)
    return cast("float", stepper.scheduler.lr_at(step)[0])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        # epochs, lr, batch, accumulate, clip, warm-up, amp, patch, compile
        ("quick_test", (5, 1e-3, 2, 1, 1.0, 1, "off", 64, False)),
        ("production", (400, 1e-3, 2, 1, 1.0, 10, "auto", 128, False)),
        ("fine_tuning", (100, 1e-4, 2, 1, 1.0, 5, "auto", 128, False)),
        ("gtx1650ti_4gb", (100, 5e-4, 1, 8, 1.0, 5, "off", None, False)),
        ("a100_80gb", (100, 1e-3, 32, 2, 1.0, 5, "bf16", None, True)),
    ],
)
def test_presets_hold_the_published_figures(name: PresetName, figures: tuple[object, ...]) -> None:
    c = preset(name)

    found = (c.epochs, c.optim.lr, c.data.batch_size, c.optim.accumulate, c.optim.clip_norm)
    rest = (c.schedule.warmup_epochs, c.amp.mode, c.data.patch_size, c.compile)
    assert (*found, *rest) == figures
    assert c.optim.weight_decay == 1e-4
    assert c.optim.betas == (0.9, 0.999)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_survives_json(name: PresetName) -> None:
    config = preset(name)

    again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))

    assert again == config
    assert again.fingerprint() == config.fingerprint()


def test_production_falls_as_published_from_its_peak_to_its_floor() -> None:
    config = preset("production")

    # WarmupPolyLR: after 10 of 400 epochs (1 - t/390)^0.9, at the end the floor
    assert _lr(config, 10, 100) == pytest.approx(1e-3)
    assert _lr(config, 10, 100 + 1950) == pytest.approx(1e-3 * 0.5**0.9)
    assert _lr(config, 10, 4000) == _lr(config, 10, 5000) == 1e-7


def test_accumulation_is_counted_in_the_length_of_the_schedule() -> None:
    config = TrainConfig(epochs=3, optim=OptimConfig(accumulate=4))

    stepper = config.make_stepper(nn.Linear(2, 1), batches_per_epoch=10)

    assert stepper.scheduler.total_steps == 9  # type: ignore[union-attr]  4 + 4 + 2 batches, thrice


def test_a_constant_rate_and_a_floor_of_the_cosine_are_reached() -> None:
    constant = TrainConfig(epochs=4, schedule=ScheduleConfig(name="constant", warmup_epochs=0.5))
    cosine = TrainConfig(epochs=4, schedule=ScheduleConfig(min_lr=2e-4))

    assert [_lr(constant, 4, step) for step in (0, 1, 2, 16)] == [0.0, 5e-4, 1e-3, 1e-3]
    assert _lr(cosine, 4, 16) == pytest.approx(2e-4)


def test_the_optimizer_is_as_configured() -> None:
    config = OptimConfig(name="keras_adamw", lr=0.25, weight_decay=0.5, betas=(0.5, 0.75))

    optimizer = config.make_optimizer(nn.Linear(2, 1))

    assert isinstance(optimizer, KerasAdamW)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.5, 0.0]
    assert all(g["lr"] == 0.25 and g["betas"] == (0.5, 0.75) for g in optimizer.param_groups)


def test_the_average_is_kept_as_configured() -> None:
    config = TrainConfig(optim=OptimConfig(ema_decay=0.75))

    assert config.make_stepper(nn.Linear(2, 1), batches_per_epoch=1).ema.decay == 0.75  # type: ignore[union-attr]
    assert TrainConfig().make_stepper(nn.Linear(2, 1), batches_per_epoch=1).ema is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optim": {"learning": 1.0}}, "'optim.lr', the nearest there is; got 'optim.learning'"),
        ({"wandb": {"project": "x"}}, "key must be one of epochs, seed, .*; got 'wandb.project'"),
        ({"training": {"accumulate": 2}}, "'optim.accumulate', the nearest there is; got 'train"),
        ({"lr": 1.0}, "'optim.lr', the nearest there is; got 'lr'"),
        ({"optim": {"clipnorm": 1.0}}, "'optim.clip_norm', the nearest there is"),
        ({"optim": 3}, "key must be .*; got 'optim'"),
        ({"optim": {"lr": -1}}, "optim.lr must be positive; got -1"),
        ({"optim": {"betas": (0.9,)}}, "optim.betas must be two numbers"),
        ({"optim": {"betas": (0.9, 1.0)}}, r"optim.betas must be in \[0, 1\); got 1.0"),
        ({"optim": {"name": "adam"}}, "optim.name must be one of 'adamw', 'keras_adamw'"),
        ({"schedule": {"power": 0.9}}, "schedule.power must be None for 'cosine'; got 0.9"),
        ({"schedule.name": "constant", "schedule.min_lr": 0.1}, "min_lr must be None for 'const"),
        ({"schedule": {"warmup_epochs": 10}, "epochs": 5}, r"below epochs \(5\); got 10"),
        ({"amp": {"mode": "half"}}, "amp.mode must be one of 'off', 'bf16', 'fp16', 'auto'"),
        ({"data": {"patch_size": [64, 0]}}, "data.patch_size must be at least 1; got 0"),
        ({"min_delta": 0.1}, "min_delta must be None without patience; got 0.1"),
        ({"checkpoint": {"mode": "up"}}, "checkpoint.mode must be one of 'min', 'max'"),
    ],
)
def test_what_is_wrong_is_refused_by_name(
    unhooked: None, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(values)


def test_wrong_kinds_are_refused_by_name(unhooked: None) -> None:
    with pytest.raises(TypeError, match=r"optim.lr must be a number; got 'fast'"):
        TrainConfig().override("optim.lr=fast")
    with pytest.raises(TypeError, match="compile must be true or false; got 1"):
        TrainConfig().override("compile=1")
    with pytest.raises(TypeError, match="epochs must be an integer"):
        TrainConfig().override("epochs=2.5")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("optim.lr=5e-4", "optim.lr", 5e-4),
        ("optim.lr = .5", "optim.lr", 0.5),
        ("optim.lr=1", "optim.lr", 1.0),
        ("optim.clip_norm=none", "optim.clip_norm", None),
        ("optim.betas=0.8,0.9", "optim.betas", (0.8, 0.9)),
        ("data.patch_size=(64, 64, 32)", "data.patch_size", (64, 64, 32)),
        ("data.patch_size=96", "data.patch_size", 96),
        ("compile=True", "compile", True),
        ("checkpoint.metric=dice/mean", "checkpoint.metric", "dice/mean"),
    ],
)
def test_a_key_is_overridden_as_a_command_line_spells_it(
    text: str, name: str, value: object
) -> None:
    config = TrainConfig().override(text)

    changed = dict(leaves(config))
    assert changed.pop(name) == value
    assert type(dict(leaves(config))[name]) is type(value)
    assert changed == {k: v for k, v in leaves(TrainConfig()) if k != name}


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="override must be of the form key=value; got 'epochs'"):
        TrainConfig().override(["epochs"])


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        TrainConfig().epochs = 3  # type: ignore[misc]


def test_the_fingerprint_tells_any_two_values_apart() -> None:
    changed = [TrainConfig().override(t) for t in ("optim.lr=5e-4", "seed=1", "data.patch_size=8")]

    assert len({c.fingerprint() for c in [*changed, TrainConfig()]}) == 4
    # the same for ever: stored beside results
    assert TrainConfig().fingerprint() == TrainConfig.from_dict({"optim.lr": 1e-3}).fingerprint()


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_run_reads_every_key_of_a_preset(name: PresetName, tmp_path: Path) -> None:
    small = preset(name).override(["epochs=2", "schedule.warmup_epochs=1", "data.num_workers=0"])
    small = small.override(["compile=false", "optim.ema_decay=0.9", "patience=2"])

    with all_keys_read(small, unused=("data.patch_size",)) as config:
        seed_everything(config.seed)
        loader = config.make_loader(_Items())
        model = nn.Linear(2, 1)
        stepper = config.make_stepper(model, batches_per_epoch=len(loader))
        result = fit(
            model,
            loader,
            nn.functional.mse_loss,
            stepper=stepper,
            epochs=config.epochs,
            checkpoints=config.checkpoint.make_manager(tmp_path),
            early_stopping=config.make_early_stopping(),
        )

    assert result.reason == "finished"


@pytest.mark.parametrize("unread", [name for name, _ in leaves(TrainConfig())])
def test_a_key_that_nothing_reads_is_named(unread: str) -> None:
    set_everywhere = TrainConfig(
        patience=3,
        min_delta=0.1,
        optim=OptimConfig(ema_decay=0.9),
        schedule=ScheduleConfig(name="poly", power=1.0, min_lr=0.1),
        data=DataConfig(patch_size=8),
    ).override(["checkpoint.every_steps=1", "checkpoint.every_minutes=1"])

    def read_the_others() -> None:
        with all_keys_read(set_everywhere) as config:
            for name, _ in leaves(set_everywhere):
                section, _, key = name.rpartition(".")
                if name != unread:
                    getattr(getattr(config, section) if section else config, key)

    with pytest.raises(ValueError, match=f"or named in unused; got {unread}$"):
        read_the_others()


def test_printing_and_fingerprints_read_nothing() -> None:
    plain = TrainConfig()

    def look() -> None:
        with all_keys_read(plain) as config:
            assert repr(config) == repr(plain)
            assert config == plain
            assert hash(config) == hash(plain)
            assert config.fingerprint() == plain.fingerprint()
            assert config.override("seed=1").seed == 1
            assert isinstance(config, TrainConfig)

    with pytest.raises(ValueError, match=r"got epochs, seed, compile, optim\.name"):
        look()


def test_keys_of_your_own_dataclass_count_beside_those_inside() -> None:
    @dataclass(frozen=True)
    class Preset:
        train: TrainConfig
        width: int = 3
        depth: int | None = None

    names = [f"train.{name}" for name, _ in leaves(TrainConfig())]

    with all_keys_read(Preset(TrainConfig()), unused=names) as config:
        assert config.width == 3
    with (
        pytest.raises(ValueError, match=r"or named in unused; got width$"),
        all_keys_read(Preset(TrainConfig()), unused=names[1:]) as config,
    ):
        assert config.train.epochs == TrainConfig().epochs
    with pytest.raises(TypeError, match="config must be a dataclass; got dict"), all_keys_read({}):
        pass


def test_an_error_inside_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="of its own"), all_keys_read(TrainConfig()):
        raise RuntimeError("of its own")


def test_an_unused_key_must_exist() -> None:
    with (
        pytest.raises(ValueError, match=r"unused must be made of epochs, .*; got data\.patch"),
        all_keys_read(TrainConfig(), unused=["data.patch"]),
    ):
        pass
