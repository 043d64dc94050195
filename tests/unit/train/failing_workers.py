"""Trains while a worker dies, fails or hangs, then again without the trouble.

Run as ``failing_workers.py <folder>``; writes a JSON object: for each trouble the error that ended
the run, what is wrong with its last checkpoint, and whether the run that went on from there ended
in the same weights as one without trouble.
"""

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Literal, get_args

import torch
import torch._dynamo  # an optimizer imports it at its first step; here once for all children
from torch import Tensor, nn

from medkit.train import (
    CheckpointManager,
    ResumableBatchSampler,
    SeededDataset,
    Stepper,
    fit,
    make_loader,
    seed_everything,
)

COUNT, FATAL = 24, 20  # in the last batch of the first epoch, after some checkpoints
Trouble = Literal["none", "killed", "exception", "hang"]


class _Items:
    """Random samples, one of which may be the end of its worker."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index == FATAL and self.trouble == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == FATAL and self.trouble == "exception":
            raise KeyError("case_013 has no label")
        if index == FATAL and self.trouble == "hang":
            time.sleep(60)
        return {"image": torch.randn(3), "label": torch.tensor([index / COUNT])}


def _train(folder: Path, trouble: Trouble) -> str:
    seed_everything(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    sampler = ResumableBatchSampler(COUNT, 2, seed=3)
    data = SeededDataset(_Items(trouble), seed=4)
    fit(
        model,
        make_loader(data, sampler, num_workers=2, timeout_s=1 if trouble == "hang" else 0),
        nn.functional.mse_loss,
        stepper=Stepper(model, torch.optim.AdamW(model.parameters(), lr=0.1)),
        epochs=2,
        checkpoints=CheckpointManager(folder, every_steps=1, fsync=False),
        resume=True,
        progress=False,
    )
    weights = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
    return hashlib.sha256(weights).hexdigest()


def in_child(folder: Path, trouble: Trouble) -> str:
    """Return the digest of the weights, or the traceback."""
    told = folder.with_suffix(".txt")
    child = os.fork()
    if child == 0:
        try:
            text = _train(folder, trouble)
        except BaseException:  # noqa: BLE001  the child must not go on in the parent
            text = traceback.format_exc()
        told.write_text(text)
        os._exit(0)
    os.waitpid(child, 0)
    return told.read_text()


def main() -> None:
    root = Path(sys.argv[1])
    torch.set_num_threads(1)
    whole = in_child(root / "none", "none")
    found: dict[str, object] = {}
    for trouble in get_args(Trouble)[1:]:
        error = in_child(root / trouble, trouble)
        checkpoints = CheckpointManager(root / trouble)
        latest = checkpoints.latest()
        problems = ["none was saved"] if latest is None else checkpoints.verify(latest).problems
        same = in_child(root / trouble, "none") == whole
        found[trouble] = {"error": error, "problems": problems, "same": same}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
