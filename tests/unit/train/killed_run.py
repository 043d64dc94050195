"""Trains with everything on, is killed at random moments, and must end as if it never was.

    python tests/unit/train/killed_run.py <folder> <kills> <workers>

Writes a JSON object: how many kills came, at which steps, and whether weights, average, optimizer,
random state and log are those of a run that was left alone. Many kills make it a soak test.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import torch._dynamo  # an optimizer imports it at its first step; here once for all children
from torch import Tensor, nn

from medkit.train import (
    CheckpointManager,
    CSVLogger,
    EarlyStopping,
    ModelEma,
    ResumableBatchSampler,
    ResumableLoader,
    Run,
    SeededDataset,
    Stepper,
    WarmupCosine,
    evaluate,
    make_loader,
    param_groups,
    rng_state,
    seed_everything,
)

EPOCHS, COUNT, STEPS = 4, 50, 20


class Items:
    """Numbers with noise of the global generators."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((1, 4, 4, 4), index / COUNT) + random.random() * torch.randn(1, 4, 4, 4)


class Error:
    """A metric that draws random numbers too."""

    def reset(self) -> None:
        self.total = 0.0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        self.total += float((prediction.mean() - target.mean()).abs() + torch.rand(()) * 1e-3)

    def compute(self) -> float:
        return self.total


def train(folder: Path, workers: int) -> None:
    seed_everything(0)
    model = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.Dropout3d(0.3), nn.ReLU(),
        nn.Conv3d(4, 1, 1),
    )  # fmt: skip
    sampler = ResumableBatchSampler(COUNT, 4, seed=1)
    data = SeededDataset(Items(), seed=2)
    loader = ResumableLoader(make_loader(data, sampler, num_workers=workers))
    optimizer = torch.optim.AdamW(param_groups(model, 0.01), lr=0.01)
    schedule = WarmupCosine(optimizer, 20, warmup_steps=3)
    ema = ModelEma(model, decay=0.9, warmup=True)
    stepper = Stepper(model, optimizer, scheduler=schedule, accumulate=3, clip_norm=1.0, ema=ema)
    stopping = EarlyStopping(9)
    log = CSVLogger(folder / "log.csv")
    checkpoints = CheckpointManager(
        folder / "run", every_steps=2, metric="error", mode="min", fsync=False
    )
    run = Run(
        stepper, loader, checkpoints=checkpoints, log=log, objects={"stopping": stopping},
        progress=False,
    )  # fmt: skip
    held_out = [{"image": torch.ones(1, 1, 4, 4, 4), "label": torch.zeros(1)}] * 3
    with run:
        for _ in run.epochs(EPOCHS):
            for batch in run.batches():
                run.step(model(batch).square().mean(), weight=float(len(batch)))
                (folder / "step").write_text(str(stepper.num_steps))
            with ema.swap(model):
                scores = evaluate(model, held_out, {"error": Error()})
            stopping.update(scores["error"])
            run.score(scores)
    states = [*model.state_dict().values(), *ema.average.values(), *rng_state().values()]
    states += [value for state in optimizer.state.values() for value in state.values()]
    digest = hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in states)).hexdigest()
    (folder / "digest").write_text(f"{digest} {stopping.state_dict()}")


def in_child(folder: Path, workers: int) -> int:
    folder.mkdir(exist_ok=True)
    (folder / "step").unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            train(folder, workers)
        except BaseException:  # noqa: BLE001  the child must not go on in the parent
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0 if (folder / "digest").exists() else 1)
    return child


def ends_within(seconds: float, child: int) -> bool:
    """Say whether a child ends by itself in this time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.001)
    return False


def reaches(step: int, child: int, folder: Path) -> bool:
    """Wait until a child has taken so many steps; say whether it did before its end."""
    while int(_read(folder / "step") or -1) < step:
        if ends_within(0.001, child):
            return False
    return True


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def main() -> None:
    folder, kills, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    ends_within(1e6, in_child(folder / "whole", 0))
    whole = [(folder / "whole" / name).read_bytes() for name in ("digest", "log.csv")]
    moments, same, steps, rounds = random.Random(workers), True, list[int](), 0
    while len(steps) < kills:
        place = folder / f"round {rounds}"
        rounds += 1
        while not (place / "digest").exists():
            child = in_child(place, workers)
            target = moments.randrange(STEPS) if len(steps) < kills else STEPS + 1
            if not reaches(target, child, place) or ends_within(moments.uniform(0, 0.05), child):
                if not (place / "digest").exists():
                    raise RuntimeError("the run failed by itself")
                continue
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            steps.append(int(_read(place / "step") or 0))
        same = same and whole == [(place / name).read_bytes() for name in ("digest", "log.csv")]
    sys.stdout.write(json.dumps({"kills": len(steps), "same": same, "steps": steps}))


if __name__ == "__main__":
    main()
