"""What a run has done so far, step by step and epoch by epoch."""

import csv
import io
import json
import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medkit._core import check

from ._commit import write_bytes
from ._step_info import StepInfo

STEP_COLUMNS = ("step", "epoch", "loss", "lr", "grad_norm")
Row = dict[str, float]

if TYPE_CHECKING:
    from typing import TypeAlias

    Column: TypeAlias = "array[float]"
else:
    Column = array  # before Python 3.12 an array takes no type


class History:
    """Columns of numbers: one row for each optimizer step, one for each epoch.

    ``steps`` has the columns step, epoch, loss, lr and grad_norm; ``epochs`` has epoch, step and
    whatever was logged. A number that an epoch lacks is NaN. Columns are plain arrays of floats,
    8 bytes a number, that NumPy and matplotlib take as they are.

    Example:
        >>> history = History()
        >>> info = StepInfo(stepped=True, loss=0.9, grad_norm=2.0, lr=1e-3, skipped=False)
        >>> history.log_step(1, epoch=0, info=info)
        >>> history.log_epoch(1, epoch=0, values={"dice": 0.7})
        >>> history.log_epoch(2, epoch=1, values={"dice": 0.8})
        >>> list(history.epochs["dice"])
        [0.7, 0.8]
    """

    def __init__(self) -> None:
        self.steps: dict[str, Column] = {name: array("d") for name in STEP_COLUMNS}
        self.epochs: dict[str, Column] = {"epoch": array("d"), "step": array("d")}

    def log_step(self, step: int, *, epoch: int, info: StepInfo) -> None:
        """Add the row of one optimizer step.

        Args:
            step: Steps taken, this one included.
            epoch: Epoch it belongs to, from 0.
            info: What ``Stepper.step`` gave back.
        """
        row = (step, epoch, info.loss, info.lr, info.grad_norm)
        for column, value in zip(self.steps.values(), row, strict=True):
            column.append(value)

    def log_epoch(self, step: int, *, epoch: int, values: Mapping[str, float]) -> None:
        """Add the row of one epoch.

        Args:
            step: Steps taken so far.
            epoch: Number of the epoch, from 0.
            values: Numbers by name; "epoch" and "step" are taken.

        Raises:
            ValueError: If a name is taken.
        """
        if taken := {"epoch", "step"} & set(values):
            raise check.fail("values", "named other than epoch and step", ", ".join(sorted(taken)))
        rows = len(self.epochs["epoch"])
        row = {"epoch": epoch, "step": step, **values}
        for name in {**self.epochs, **row}:
            column = self.epochs.setdefault(name, array("d", [math.nan] * rows))
            column.append(float(row.get(name, math.nan)))

    def mean_loss(self, epoch: int) -> float:
        """Return the mean loss of an epoch's steps.

        Args:
            epoch: Its number, from 0.

        Returns:
            The mean, NaN if the epoch has no step.
        """
        epochs, losses = self.steps["epoch"], self.steps["loss"]
        chosen = losses[bisect_left(epochs, epoch) : bisect_right(epochs, epoch)]
        return math.fsum(chosen) / len(chosen) if chosen else math.nan

    def rows(self) -> Iterator[Row]:
        """Yield all rows in the order of time, an epoch after its last step.

        Yields:
            The numbers of one row by name, without those that are missing.
        """
        starts = self.epochs["epoch"]
        done = 0
        for index in range(len(self.steps["step"])):
            while done < len(starts) and starts[done] < self.steps["epoch"][index]:
                yield _row(self.epochs, done)
                done += 1
            yield _row(self.steps, index)
        yield from (_row(self.epochs, index) for index in range(done, len(starts)))

    def save(self, path: str | Path) -> None:
        """Write all rows to a file, which is replaced whole or not at all.

        Args:
            path: ``.jsonl`` (one JSON object in a line) or ``.csv`` (one table, blank where a row
                lacks a column). Whole numbers are written without a point.

        Raises:
            ValueError: If ``path`` ends in neither.
        """
        path = Path(path)
        rows = [
            {k: int(v) if k in ("step", "epoch") else v for k, v in r.items()} for r in self.rows()
        ]
        if path.suffix == ".jsonl":
            text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        elif path.suffix == ".csv":
            stream = io.StringIO()
            names = list(dict.fromkeys([*self.steps, *self.epochs]))
            writer = csv.DictWriter(stream, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            text = stream.getvalue()
        else:
            raise check.fail("path", "a .jsonl or .csv file", str(path))
        write_bytes(path, text.encode())

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return all columns as tensors.

        Returns:
            ``{"steps": columns, "epochs": columns}``.
        """
        return {
            "steps": {name: _tensor(column) for name, column in self.steps.items()},
            "epochs": {name: _tensor(column) for name, column in self.epochs.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Replace all rows by those of a state.

        Args:
            state_dict: As ``state_dict`` gave it.
        """
        for name in ("steps", "epochs"):
            columns = {k: array("d", v.numpy().tolist()) for k, v in state_dict[name].items()}
            setattr(self, name, columns)


def _row(table: Mapping[str, Column], index: int) -> Row:
    values = {name: column[index] for name, column in table.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _tensor(column: Column) -> Tensor:
    return torch.tensor(column, dtype=torch.float64)
