"""One of two processes that train together.

Run as ``two_processes.py <rank> <folder>``; writes a JSON object with what it found.
"""

import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from medkit.train import (
    CheckpointManager,
    ResumableLoader,
    Run,
    Stepper,
    StopSignal,
    SumMetrics,
    eval_indices,
    wrap_model,
)

SAMPLES, MICRO, ACCUMULATE = 20, 2, 2  # of each process: 5 micro-batches, windows of 2, 2 and 1


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def together(rank: int, x: Tensor) -> float:
    """Train on both processes; return how far that is from one process with the whole batches."""
    model = DistributedDataParallel(make())
    stepper = Stepper(model, sgd(model), accumulate=ACCUMULATE, clip_norm=0.5)
    mine = x.reshape(-1, 2, MICRO, 3)[:, rank]
    for batch, _ in stepper.micro_batches(list(mine)):
        stepper.backward(loss_of(model, batch))
        stepper.step()

    alone = make()
    stepper = Stepper(alone, sgd(alone), clip_norm=0.5)
    for batch in x.split(2 * MICRO * ACCUMULATE):
        stepper.backward(loss_of(alone, batch))
        stepper.step()
    pairs = zip(model.module.parameters(), alone.parameters(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def weighted(rank: int, x: Tensor) -> dict[str, float]:
    """The same with unequal shares: three samples here, five there."""
    model, alone = DistributedDataParallel(make()), make()
    mine = x[:3] if rank == 0 else x[3:8]
    stepper = Stepper(model, sgd(model))
    stepper.backward(loss_of(model, mine), weight=float(len(mine)))
    loss = stepper.step().loss
    stepper = Stepper(alone, sgd(alone))
    stepper.backward(loss_of(alone, x[:8]))
    loss_alone = stepper.step().loss
    pairs = zip(model.module.parameters(), alone.parameters(), strict=True)
    apart = max(float((a - b).abs().max()) for a, b in pairs)
    return {"weighted": apart, "loss": loss, "loss_alone": loss_alone}


def spoiled(rank: int, x: Tensor) -> str:
    """One process alone meets a NaN in half precision, where only an overflow may pass."""
    model = DistributedDataParallel(make().float())
    stepper = Stepper(model, sgd(model), amp="fp16")
    stepper.backward(loss_of(model, x[:4].float()) + (math.nan if rank == 1 else 0.0))
    try:
        stepper.step()
    except FloatingPointError as error:
        return str(error)
    return "taken for an overflow"


def skipped(rank: int, x: Tensor) -> list[bool]:
    """One process alone meets a loss whose NaN never reaches a gradient."""
    model = DistributedDataParallel(make())
    stepper = Stepper(model, sgd(model), nonfinite="skip")
    infos = []
    for number in range(3):
        bad = rank == 1 and number == 1
        stepper.backward(loss_of(model, x[:4]) + (math.nan if bad else 0.0))
        infos.append(stepper.step().skipped)
    return infos


def stopped(rank: int) -> list[bool]:
    """One process alone hears a signal."""
    answers = []
    with StopSignal() as stop:
        for number in range(3):
            if rank == 1 and number == 1:
                signal.raise_signal(signal.SIGTERM)
            answers.append(stop.requested())
    return answers


def interrupted(rank: int, folder: Path) -> dict[str, object]:
    """One process alone hears SIGTERM in its fourth step; then the run goes on to its end."""
    steps, weights = [], []
    for deadly in (0, 4, 0):
        model = wrap_model(make())
        stepper = Stepper(model, sgd(model))
        name = "whole" if not steps else "stopped"
        checkpoints = CheckpointManager(folder / name, fsync=False)
        loader = ResumableLoader(list(torch.linspace(-1, 1, 36).double().reshape(6, 2, 3)))
        with Run(stepper, loader, checkpoints=checkpoints, progress=False) as run:
            for _ in run.epochs(2):
                for batch in run.batches():
                    run.step(loss_of(model, batch[rank : rank + 1]))
                    if rank == 1 and stepper.num_steps == deadly:
                        os.kill(os.getpid(), signal.SIGTERM)
        latest = checkpoints.latest()
        steps.append([stepper.num_steps, run.stopped, "" if latest is None else latest.name])
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    return {"interrupted": steps, "same": bool(torch.equal(weights[0], weights[2]))}


def synced() -> list[str]:
    """Normalisation that sees all processes: torch has it for GPUs alone, and says so."""
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8))
    try:
        wrap_model(net, sync_bn=True)
    except ValueError as error:
        return [type(net[1]).__name__, str(error)]
    return [type(net[1]).__name__]


def sums() -> dict[str, float]:
    """Each counts its share of seven cases; one of them has a name of its own."""
    found = SumMetrics()
    for index in eval_indices(7):
        loss = torch.tensor(0.1 * index, dtype=torch.float64)
        found.add({"cases": 1, "voxels": torch.tensor(2**53 + index), "loss": loss})
        if index == 5:
            found.add({"only": 5})
    return found.reduce()  # type: ignore[return-value]


def saved(rank: int, folder: Path) -> dict[str, object]:
    """Save together, disturb everything, go back; then let the disk of the first be full."""
    model = wrap_model(make())
    torch.manual_seed(rank)
    loader = ResumableLoader(range(4))
    checkpoints = CheckpointManager(folder / "run")
    checkpoints.register({"model": model, "data": loader})
    next(iter(loader))
    path = checkpoints.save(1)
    drawn = torch.rand(2).tolist()
    weights = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    step = checkpoints.restore()
    same = all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    state = loader.state_dict()["start"]
    own = torch.equal(state["torch"], torch.Generator().manual_seed(rank).get_state())  # type: ignore[index]
    again = torch.rand(2).tolist()
    shutil.disk_usage = lambda _: SimpleNamespace(free=0)  # type: ignore[assignment, return-value]
    try:
        checkpoints.save(2)
        refused = ""
    except OSError as error:
        refused = str(error)
    restored = step == 1 and same and own and again == drawn and checkpoints.latest() == path
    return {"restored": restored, "drawn": drawn, "refused": refused}


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    x = torch.randn(SAMPLES, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = {
        "together": together(rank, x),
        **weighted(rank, x),
        "nan": spoiled(rank, x),
        "skipped": skipped(rank, x),
        "stopped": stopped(rank),
        "sums": sums(),
        "synced": synced(),
        **interrupted(rank, folder),
        **saved(rank, folder),
    }
    distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
