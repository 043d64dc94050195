"""A script as a user writes it, started by ``python -m medkit.train.launch`` or by others.

Run with ``<folder> <step at which process 1 is killed once, or 0> <who joins the processes>
<strategy>``; the first process writes what is left at the end to ``<folder>/result.json``. With
"fsdp" the kill comes while process 1 saves its parts.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Literal

import torch
from torch import distributed, nn

from medkit.train import (
    CheckpointManager,
    CSVLogger,
    ModelEma,
    ResumableBatchSampler,
    ResumableLoader,
    SeededDataset,
    Stepper,
    WarmupCosine,
    _shard_files,
    gather_objects,
    init_distributed,
    is_main,
    make_loader,
    seed_everything,
    unwrap,
    wrap_model,
)

EPOCHS = 3


class Items:
    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((3,), float(index)) / 10 + torch.randn(3)


def kill_once(folder: Path) -> None:
    if not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    full: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full.detach()


def train(folder: Path, fatal_step: int, strategy: Literal["auto", "fsdp"] = "auto") -> None:
    torch.set_num_threads(1)
    info = init_distributed(backend="gloo")
    seed_everything(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Dropout(0.3), nn.Linear(8, 1))
    seed_everything(0, rank=info.rank)
    model = wrap_model(net, strategy=strategy)
    sampler = ResumableBatchSampler(23, 4, seed=1)
    loader = ResumableLoader(make_loader(SeededDataset(Items(), seed=2), sampler))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    ema = ModelEma(net, decay=0.9)
    schedule = WarmupCosine(optimizer, 9)
    stepper = Stepper(model, optimizer, scheduler=schedule, accumulate=2, ema=ema)
    log = CSVLogger(folder / "log.csv")
    checkpoints = CheckpointManager(folder / "run", every_steps=2, fsync=False)
    checkpoints.register({"model": model, "stepper": stepper, "data": loader, "log": log})
    try:
        checkpoints.restore()
    except FileNotFoundError:
        log.load_state_dict({"rows": 0})
    checksum = _shard_files.file_crc32

    def deadly(path: Path) -> tuple[int, int]:
        if info.rank == 1 and stepper.num_steps == fatal_step:
            kill_once(folder)
        return checksum(path)

    _shard_files.file_crc32 = deadly
    while loader.epoch < EPOCHS:
        for batch, _ in stepper.micro_batches(loader):
            loss = model(batch).square().mean()
            stepper.backward(loss, weight=float(len(batch)))
            step = stepper.step()
            if not step.stepped:
                continue
            log.log({"loss": step.loss, "norm": step.grad_norm}, step=stepper.num_steps)
            if checkpoints.due(stepper.num_steps):
                checkpoints.save(stepper.num_steps)
            if info.rank == 1 and stepper.num_steps == fatal_step and strategy == "auto":
                kill_once(folder)
    states = [*unwrap(model).state_dict().values(), *ema.average.values()]
    states += [value for state in optimizer.state.values() for value in state.values()]
    digest = hashlib.sha256(b"".join(whole(t).numpy().tobytes() for t in states)).hexdigest()
    found = gather_objects((digest, torch.rand(2).tolist()))
    if is_main():
        result = {"found": found, "size": info.world_size, "log": log.path.read_text()}
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "adopted").write_text(str(info.adopted))


def join(who: str) -> None:
    """Let another library join the processes, which ``init_distributed`` then adopts."""
    if who == "fabric":
        from lightning_fabric import Fabric

        Fabric(accelerator="cpu", strategy="ddp", devices=2).launch()
    elif who == "accelerate":
        from accelerate import Accelerator

        Accelerator(cpu=True)


def main() -> None:
    join(sys.argv[3])
    train(Path(sys.argv[1]), int(sys.argv[2]), "fsdp" if sys.argv[4] == "fsdp" else "auto")
    distributed.barrier()
    distributed.destroy_process_group()
    os._exit(0)  # gloo's threads may abort an ordinary exit


if __name__ == "__main__":
    main()
