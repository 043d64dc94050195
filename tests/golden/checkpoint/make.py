"""Writes the checkpoint of a small run with everything in it, and what it must give back.

    python tests/golden/checkpoint/make.py <folder>

Only a release writes a new one, beside the old ones, which stay.
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

import medkit
from medkit.train import (
    CheckpointManager,
    CSVLogger,
    EarlyStopping,
    History,
    ModelEma,
    ResumableBatchSampler,
    ResumableLoader,
    Stepper,
    WarmupCosine,
    make_loader,
    param_groups,
    seed_everything,
)

STEPS = 5


class Run:
    """Every part that has a state."""

    def __init__(self, folder: Path) -> None:
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
        optimizer = torch.optim.AdamW(param_groups(self.model, 0.01), lr=0.1)
        self.ema = ModelEma(self.model, decay=0.5)
        self.stepper = Stepper(
            self.model,
            optimizer,
            scheduler=WarmupCosine(optimizer, 9, warmup_steps=2),
            accumulate=2,
            clip_norm=1.0,
            amp="fp16",
            ema=self.ema,
        )
        data = [torch.linspace(-1, 1, 3) * (item + 1) for item in range(14)]
        self.loader = ResumableLoader(make_loader(data, ResumableBatchSampler(14, 2, seed=1)))
        self.stopping = EarlyStopping(5, metric="loss")
        self.history = History()
        self.log = CSVLogger(folder / "log.csv")
        self.checkpoints = CheckpointManager(folder / "run", metric="loss", mode="min")
        self.checkpoints.register(
            {
                "model": self.model,
                "stepper": self.stepper,
                "data": self.loader,
                "early_stopping": self.stopping,
                "history": self.history,
                "log": self.log,
            }
        )

    def train(self, steps: int) -> None:
        """Go on until so many steps are taken, into the middle of an epoch."""
        while self.stepper.num_steps < steps:
            for batch, _ in self.stepper.micro_batches(self.loader):
                with self.stepper.autocast():
                    loss = self.model(batch).square().mean()
                self.stepper.backward(loss)
                info = self.stepper.step()
                if not info.stepped:
                    continue
                step = self.stepper.num_steps
                self.history.log_step(step, epoch=self.loader.epoch, info=info)
                self.log.log({"loss": info.loss}, step=step)
                self.stopping.update(info.loss)
                if step == steps:
                    break

    def facts(self) -> dict[str, object]:
        """Return what a later release must find again."""
        state = self.stepper.optimizer.state_dict()["state"]
        tensors = {
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{f"ema.{name}": tensor for name, tensor in self.ema.average.items()},
            **{f"adam.{number}": entry["exp_avg_sq"] for number, entry in state.items()},
        }
        return {
            "tensors": {name: tensor.tolist() for name, tensor in tensors.items()},
            "steps": self.stepper.num_steps,
            "updates": self.ema.num_updates,
            "lr": self.stepper.optimizer.param_groups[0]["lr"],
            "scale": self.stepper.scaler.get_scale() if self.stepper.scaler else None,
            "place": [self.loader.epoch, self.loader.done],
            "stopping": self.stopping.state_dict(),
            "losses": list(self.history.steps["loss"]),
            "random": torch.rand(
                3, generator=torch.Generator().set_state(torch.get_rng_state())
            ).tolist(),
        }


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    seed_everything(0)
    run = Run(folder)
    run.train(STEPS)
    run.checkpoints.save(STEPS, metric=0.5, extra={"release": medkit.__version__})
    (folder / "facts.json").write_text(json.dumps(run.facts(), indent=1) + "\n")


if __name__ == "__main__":
    main()
