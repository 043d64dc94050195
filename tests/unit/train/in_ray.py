"""Runs ``launched.train`` on two workers of Ray Train.

Run with ``<folder>``.
"""

import sys
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def work(config: dict[str, Any]) -> None:
    sys.path.insert(0, config["scripts"])
    from launched import train

    train(Path(config["folder"]), 0)


def main() -> None:
    folder = Path(sys.argv[1])
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    trainer = TorchTrainer(
        work,
        train_loop_config={"scripts": str(Path(__file__).parent), "folder": str(folder)},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=str(folder / "ray")),
    )
    trainer.fit()
    ray.shutdown()


if __name__ == "__main__":
    main()
