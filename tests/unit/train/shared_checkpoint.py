"""One of several processes that save a model in parts together, and go on from what was saved.

Run as ``shared_checkpoint.py <rank> <folder> <world size> <save|alone|resume>``; writes what it
found as a JSON object.
"""

import json
import os
import resource
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from cut_model import adamw, cut, make
from torch import Tensor, distributed, nn

from medkit.train import (
    CheckpointManager,
    ModelEma,
    ResumableLoader,
    Stepper,
    load_weights,
    merge_sharded,
    wrap_model,
)

SAVED, STEPS = 3, 5


class Count(nn.Module):
    """Counts in a buffer how often it was called."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


class Run:
    """A model, in parts or whole, and what a run needs with it."""

    def __init__(self, root: Path, *, parts: bool, **options: Any) -> None:
        net = nn.Sequential(make(), Count())
        self.model = cut(net) if parts else net
        self.ema = ModelEma(self.model, decay=0.9)
        self.stepper = Stepper(self.model, adamw(self.model), clip_norm=1.0, ema=self.ema)
        self.loader = ResumableLoader(range(100))
        self.checkpoints = CheckpointManager(root, fsync=False, **options)
        self.checkpoints.register(
            {"model": self.model, "stepper": self.stepper, "data": self.loader}
        )

    def steps(self, count: int, rank: int, world: int) -> None:
        """Step on parts of batches that are the same for any number of processes."""
        for _ in range(count):
            generator = torch.Generator().manual_seed(self.stepper.num_steps)
            batch = torch.randn(8, 3, generator=generator)[rank::world]
            self.stepper.backward(self.model(batch).square().mean())
            self.stepper.step()

    def tensors(self) -> dict[str, Tensor]:
        """Return every number of the run, whole; all processes must ask."""
        found = {f"model {n}": t for n, t in self.model.state_dict().items()}
        found |= {f"ema {n}": t for n, t in self.ema.average.items()}
        for number, state in enumerate(self.stepper.optimizer.state.values()):
            found |= {f"optimizer {number} {name}": t for name, t in state.items()}
        return {name: shared(tensor) for name, tensor in found.items()}


def shared(tensor: Tensor) -> Tensor:
    """Return the whole of a tensor, or what the first process has where each has its own."""
    if hasattr(tensor, "full_tensor"):
        full: Tensor = tensor.full_tensor().detach()
        return full
    tensor = tensor.detach().clone()
    if distributed.is_initialized():
        distributed.broadcast(tensor, src=0)
    return tensor


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def furthest(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a | b)


def save(rank: int, world: int, folder: Path) -> dict[str, object]:
    run = Run(folder / "run", parts=True)
    torch.manual_seed(rank)
    run.steps(SAVED, rank, world)
    path = run.checkpoints.save(SAVED)
    saved = run.tensors()
    run.steps(STEPS - SAVED, rank, world)
    ended = run.tensors()
    if rank == 0:
        torch.save({"saved": saved, "ended": ended}, folder / "expected.pt")
    files = sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())

    again = Run(folder / "run", parts=True)
    torch.manual_seed(99)
    step = again.checkpoints.restore()
    restored = same(again.tensors(), saved)
    again.steps(STEPS - SAVED, rank, world)
    found = {"files": files, "step": step, "restored": restored}
    found["ended"] = same(again.tensors(), ended)

    whole = Run(folder / "whole", parts=True, sharded="never")
    whole.steps(1, rank, world)
    held = sorted(p.name for p in whole.checkpoints.save(1).iterdir())
    return {**found, "held": held, **full_disk(rank, folder), **damaged(rank, folder, run, saved)}


def full_disk(rank: int, folder: Path) -> dict[str, object]:
    """Let no file of the second process grow beyond 20 kB."""
    checkpoints = CheckpointManager(folder / "full", fsync=False)
    checkpoints.register({"model": wrap_model(nn.Linear(200, 200), strategy="fsdp")})
    checkpoints.save(1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        checkpoints.save(2)
        refused = ""
    except OSError as error:
        refused = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    distributed.barrier()
    left = sorted(path.name for path in checkpoints.root.iterdir())
    return {"refused": refused, "left": left, "latest": checkpoints.restore()}


def damaged(rank: int, folder: Path, run: Run, saved: dict[str, Tensor]) -> dict[str, object]:
    """Change one bit of what the second process wrote."""
    path = run.checkpoints.save(STEPS)
    if rank == 0:
        shutil.copytree(folder / "run", folder / "damaged")
        file = next((folder / "damaged" / path.name).rglob("__1_*"))
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    distributed.barrier()
    other = Run(folder / "damaged", parts=True)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        step = other.checkpoints.restore()
    said = [str(w.message) for w in heard]
    return {"fallback": step, "intact": same(other.tensors(), saved), "said": said}


def alone(rank: int, world: int, folder: Path) -> dict[str, object]:
    """Go on in one process, whose model is whole; save; and make one weight file of the parts."""
    expected = torch.load(folder / "expected.pt", weights_only=True)
    path = folder / "run" / f"step_{SAVED:09d}"
    run = Run(folder / "alone", parts=False)
    run.checkpoints.restore(path=path)
    found: dict[str, object] = {"restored": same(run.tensors(), expected["saved"])}
    run.checkpoints.save(SAVED)
    run.steps(STEPS - SAVED, rank, world)
    found["ended"] = furthest(run.tensors(), expected["ended"])
    merge_sharded(path, folder / "merged.pt")
    report = load_weights(folder / "merged.pt", run.model)
    plain = torch.load(folder / "merged.pt", weights_only=True)
    merged = {f"model {n}": t for n, t in plain.items()}
    wanted = {n: t for n, t in expected["saved"].items() if n.startswith("model ")}
    found |= {"merged": same(merged, wanted), "metadata": report.metadata}
    found["averaged"] = []
    for checkpoint in (path, folder / "alone" / path.name):
        merge_sharded(checkpoint, folder / "averaged.pt", averaged=True)
        plain = torch.load(folder / "averaged.pt", weights_only=True)
        wanted = {n: t for n, t in expected["saved"].items() if n.startswith("ema ")}
        found["averaged"].append(same({f"ema {n}": t for n, t in plain.items()}, wanted))  # type: ignore[attr-defined]
    return found


def resume(rank: int, world: int, folder: Path) -> dict[str, object]:
    """Go on from parts of another number, and from what one process saved whole."""
    expected = torch.load(folder / "expected.pt", weights_only=True)
    found: dict[str, object] = {}
    for name in ("run", "alone"):
        run = Run(folder / name, parts=True)
        run.checkpoints.restore(path=folder / name / f"step_{SAVED:09d}")
        found[name] = same(run.tensors(), expected["saved"])
        run.steps(STEPS - SAVED, rank, world)
        found[f"{name} ended"] = furthest(run.tensors(), expected["ended"])
    return found


def main() -> None:
    rank, folder, world = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/store{world}", rank=rank, world_size=world
        )
    work = {"save": save, "alone": alone, "resume": resume}[sys.argv[4]]
    found = work(rank, world, folder)
    if world > 1:
        distributed.barrier()
        distributed.destroy_process_group()
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
