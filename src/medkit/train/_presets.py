"""Configurations to begin with."""

from typing import Literal, get_args

from medkit._core import check

from ._config import TrainConfig
from ._config_sections import (
    AmpConfig,
    CheckpointConfig,
    DataConfig,
    OptimConfig,
    ScheduleConfig,
)

PresetName = Literal["quick_test", "production", "fine_tuning", "gtx1650ti_4gb", "a100_80gb"]


def preset(name: PresetName) -> TrainConfig:
    """Return a configuration by name.

    The first three are those of a published hybrid U-Net for volumes, the last two of a published
    network for layers of the retina on two cards. AdamW, weight decay 1e-4, clipping at 1.0.

    ================= ====== ===== ===== ========== ======= ====== ==== =======
    name              epochs lr    batch accumulate warm-up decay  amp  patch
    ================= ====== ===== ===== ========== ======= ====== ==== =======
    ``quick_test``    5      1e-3  2     1          1       poly   off  64
    ``production``    400    1e-3  2     1          10      poly   auto 128
    ``fine_tuning``   100    1e-4  2     1          5       poly   auto 128
    ``gtx1650ti_4gb`` 100    5e-4  1     8          5       cosine off  none
    ``a100_80gb``     100    1e-3  32    2          5       cosine bf16 none
    ================= ====== ===== ===== ========== ======= ====== ==== =======

    ``production`` and ``fine_tuning`` keep five checkpoints and stop after 30 epochs without an
    improvement of 0.001; ``a100_80gb`` compiles. Where the published programs could not do what
    their files say, these do what can be done: ``quick_test`` warms up for 1 of its 5 epochs, not
    10, and the retina's rate falls with the steps, not with the score of the test set.

    Args:
        name: Which.

    Returns:
        The configuration; change it with ``override``.

    Raises:
        ValueError: If there is none of that name.

    Example:
        >>> config = preset("gtx1650ti_4gb")
        >>> config.data.batch_size, config.optim.accumulate, config.optim.lr
        (1, 8, 0.0005)
    """
    check.one_of("name", name, get_args(PresetName))
    return _PRESETS[name]


_POLY = ScheduleConfig(name="poly", warmup_epochs=10, power=0.9, min_lr=1e-7)
_PRODUCTION = TrainConfig(
    epochs=400,
    patience=30,
    min_delta=1e-3,
    optim=OptimConfig(lr=1e-3, weight_decay=1e-4, clip_norm=1.0),
    schedule=_POLY,
    amp=AmpConfig(mode="auto"),
    data=DataConfig(batch_size=2, patch_size=128, num_workers=4),
    checkpoint=CheckpointConfig(keep_last=5),
)
_PRESETS: dict[PresetName, TrainConfig] = {
    "quick_test": TrainConfig(
        epochs=5,
        schedule=ScheduleConfig(name="poly", warmup_epochs=1, power=0.9, min_lr=1e-7),
        data=DataConfig(batch_size=2, patch_size=64),
    ),
    "production": _PRODUCTION,
    "fine_tuning": _PRODUCTION.override(
        ["epochs=100", "optim.lr=1e-4", "schedule.warmup_epochs=5"]
    ),
    "gtx1650ti_4gb": TrainConfig(
        optim=OptimConfig(lr=5e-4, accumulate=8),
        schedule=ScheduleConfig(warmup_epochs=5),
        data=DataConfig(batch_size=1, num_workers=2),
    ),
    "a100_80gb": TrainConfig(
        compile=True,
        optim=OptimConfig(lr=1e-3, accumulate=2),
        schedule=ScheduleConfig(warmup_epochs=5),
        amp=AmpConfig(mode="bf16"),
        data=DataConfig(batch_size=32, num_workers=8),
    ),
}
