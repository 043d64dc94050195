"""Small parts for a training loop that stays yours, and a short loop made of them."""

from medkit._core.keyed_random import sample_rng

from ._agreement import gather_objects, is_main
from ._amp import AmpPolicy
from ._batch_sampler import ResumableBatchSampler, SampleIndex, eval_indices
from ._batch_size import BatchSizeReport, BatchSizeTrial, find_batch_size
from ._checked import CheckpointError
from ._checkpoint import CheckpointManager
from ._checkpoint_blocks import checkpoint_blocks
from ._checkpoint_folder import CheckpointReport
from ._config import TrainConfig
from ._config_reads import all_keys_read
from ._config_sections import (
    AmpConfig,
    CheckpointConfig,
    DataConfig,
    OptimConfig,
    ScheduleConfig,
)
from ._cyclic_schedules import OneCycle, TriangularCycles, WarmupCosineRestarts
from ._determinism import DeterminismReport, determinism_report
from ._distributed import DistInfo, SumMetrics, init_distributed, sum_across
from ._early_stopping import EarlyStopping
from ._ema import ModelEma
from ._fit import FitResult, Metric, evaluate, fit
from ._freezing import FreezeReport, freeze, unfreeze
from ._groups import param_groups
from ._history import History
from ._keras_adamw import KerasAdamW
from ._loader import ResumableLoader
from ._memory import memory_stats
from ._merge_sharded import merge_sharded
from ._presets import preset
from ._progress import Progress
from ._run import Run
from ._schedules import WarmupCosine, WarmupPoly, scaled_lr
from ._seeded_dataset import SeededDataset, make_loader
from ._seeding import fork_rng, rng_state, seed_everything, set_rng_state
from ._service_loggers import Logger, MultiLogger, TensorBoardLogger, WandbLogger
from ._stateful import Stateful
from ._step_info import StepInfo
from ._stepper import Stepper
from ._stop import StopSignal
from ._table_logger import CSVLogger, JSONLinesLogger
from ._throughput import Throughput
from ._weights import LoadReport, load_weights, save_weights
from ._window import Window
from ._wrap import unwrap, wrap_model

__all__ = [
    "AmpConfig",
    "AmpPolicy",
    "BatchSizeReport",
    "BatchSizeTrial",
    "CSVLogger",
    "CheckpointConfig",
    "CheckpointError",
    "CheckpointManager",
    "CheckpointReport",
    "DataConfig",
    "DeterminismReport",
    "DistInfo",
    "EarlyStopping",
    "FitResult",
    "FreezeReport",
    "History",
    "JSONLinesLogger",
    "KerasAdamW",
    "LoadReport",
    "Logger",
    "Metric",
    "ModelEma",
    "MultiLogger",
    "OneCycle",
    "OptimConfig",
    "Progress",
    "ResumableBatchSampler",
    "ResumableLoader",
    "Run",
    "SampleIndex",
    "ScheduleConfig",
    "SeededDataset",
    "Stateful",
    "StepInfo",
    "Stepper",
    "StopSignal",
    "SumMetrics",
    "TensorBoardLogger",
    "Throughput",
    "TrainConfig",
    "TriangularCycles",
    "WandbLogger",
    "WarmupCosine",
    "WarmupCosineRestarts",
    "WarmupPoly",
    "Window",
    "all_keys_read",
    "checkpoint_blocks",
    "determinism_report",
    "eval_indices",
    "evaluate",
    "find_batch_size",
    "fit",
    "fork_rng",
    "freeze",
    "gather_objects",
    "init_distributed",
    "is_main",
    "load_weights",
    "make_loader",
    "memory_stats",
    "merge_sharded",
    "param_groups",
    "preset",
    "rng_state",
    "sample_rng",
    "save_weights",
    "scaled_lr",
    "seed_everything",
    "set_rng_state",
    "sum_across",
    "unfreeze",
    "unwrap",
    "wrap_model",
]
