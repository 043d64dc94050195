"""Saves over and over in a child process, kills it, and looks at what is left.

Run as ``killed_while_saving.py <weights|checkpoint> <folder>``; writes one JSON object.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from medkit.train import CheckpointManager, load_weights, save_weights

SIZE = 200_000
RANDOM_KILLS = 12


class Model(torch.nn.Module):
    """Every number in it is the version that was saved."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.full((SIZE,), float(version)))
        self.b = torch.nn.Parameter(torch.full((SIZE // 2,), float(version)))


class Counter:
    """A second object in the checkpoint, of the same version."""

    def __init__(self, version: int) -> None:
        self.version = version

    def state_dict(self) -> dict[str, int]:
        return {"version": self.version}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.version = state["version"]


def save(kind: str, folder: Path, version: int) -> None:
    if kind == "weights":
        save_weights(Model(version), folder / "weights.pt")
    else:
        checkpoints = CheckpointManager(folder, keep_last=1)
        checkpoints.register({"model": Model(version), "counter": Counter(version)})
        checkpoints.save(version)


def load(kind: str, folder: Path) -> set[float]:
    """Return every version found in what is left; a whole one holds a single version."""
    model, counter = Model(-1), Counter(-1)
    if kind == "weights":
        load_weights(folder / "weights.pt", model)
        counter.version = int(model.a[0])
    else:
        checkpoints = CheckpointManager(folder)
        checkpoints.register({"model": model, "counter": counter})
        counter.version = checkpoints.restore()
    return {*model.a.unique().tolist(), *model.b.unique().tolist(), float(counter.version)}


def in_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return child


def kill_at(phase: int, kind: str, folder: Path, version: int) -> bool:
    """Save, and die at the ``phase``-th call that touches the disk; say whether it died."""

    def work() -> None:
        calls = 0

        def deadly(function: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **options: object) -> object:
                nonlocal calls
                calls += 1
                if calls == phase:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **options)

            return call

        os.fsync = deadly(os.fsync)  # type: ignore[assignment]
        Path.replace = deadly(Path.replace)  # type: ignore[method-assign, assignment]
        Path.rename = deadly(Path.rename)  # type: ignore[method-assign, assignment]
        Path.open = deadly(Path.open)  # type: ignore[method-assign, assignment]
        Path.mkdir = deadly(Path.mkdir)  # type: ignore[method-assign, assignment]
        save(kind, folder, version)

    _, status = os.waitpid(in_child(work), 0)
    return os.WIFSIGNALED(status)


def kill_after(seconds: float, kind: str, folder: Path, version: int) -> None:
    def work() -> None:
        for later in range(version, version + 1000):
            save(kind, folder, later)

    child = in_child(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    save(kind, folder, 1)
    outcomes: list[bool] = []
    version, phase = 2, 1
    while kill_at(phase, kind, folder, version):
        found = load(kind, folder)
        outcomes.append(found in ({float(version - 1)}, {float(version)}))
        save(kind, folder, version + 1)
        version, phase = version + 2, phase + 1
    moments = random.Random(0)
    for _ in range(RANDOM_KILLS):
        kill_after(moments.uniform(0.0, 0.1), kind, folder, version)
        found = load(kind, folder)
        outcomes.append(len(found) == 1)
        version = int(found.pop()) + 1
    save(kind, folder, version)
    left = [path.name for path in folder.iterdir() if path.name.startswith((".", "damaged"))]
    sys.stdout.write(json.dumps({"phases": phase - 1, "outcomes": outcomes, "left": left}))


if __name__ == "__main__":
    main()
