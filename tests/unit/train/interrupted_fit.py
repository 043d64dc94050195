"""A run that a signal may end.

Run as ``interrupted_fit.py <folder> <seconds per batch> <workers>``; writes a line when under
way, and one with the reason at the end.
"""

import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from medkit.train import (
    CheckpointManager,
    Stepper,
    WarmupCosine,
    fit,
    param_groups,
    seed_everything,
)

EPOCHS = 4


def make(workers: int = 0) -> tuple[nn.Module, DataLoader[dict[str, Tensor]], Stepper]:
    seed_everything(3)
    x = torch.randn(26, 4)
    data = [{"image": a, "label": (a.sum(0, keepdim=True) > 0).float()} for a in x]
    loader = DataLoader(data, batch_size=4, shuffle=True, num_workers=workers)  # type: ignore[arg-type]  a list will do
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(param_groups(model, 1e-2), lr=1e-2)
    schedule = WarmupCosine(optimizer, EPOCHS * 4, warmup_steps=3)
    return model, loader, Stepper(model, optimizer, scheduler=schedule, accumulate=2, clip_norm=1.0)


def loss_fn(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(output, target)


def main() -> None:
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    model, loader, stepper = make(int(sys.argv[3]))

    def slow_loss(output: Tensor, target: Tensor) -> Tensor:
        time.sleep(seconds)
        if stepper.num_steps == 5:
            sys.stdout.write("under way\n")
            sys.stdout.flush()
        return loss_fn(output, target)

    checkpoints = CheckpointManager(folder)
    result = fit(
        model,
        loader,
        slow_loss,
        stepper=stepper,
        epochs=EPOCHS,
        checkpoints=checkpoints,
        resume=True,
        progress=False,
    )
    sys.stdout.write(f"{result.reason} after {stepper.num_steps} steps\n")


if __name__ == "__main__":
    main()
