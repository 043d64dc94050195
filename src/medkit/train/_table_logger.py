"""Logs as text files, one row at a time, cut back to where a run goes on."""

import abc
import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path

from medkit._core import check

from ._agreement import is_main
from ._commit import write_bytes

Row = dict[str, float | int]


class _TableLogger(abc.ABC):
    """A file of rows whose number is the state: going on cuts the file back to so many."""

    def __init__(self, path: str | Path) -> None:
        self.path: Path = Path(path)
        self._rows = 0
        self._columns: list[str] = []
        self._begun = False

    @abc.abstractmethod
    def _text(self, rows: list[Row]) -> tuple[str, bool]:
        """Return the text of new rows, and whether it takes the place of the whole file."""

    @abc.abstractmethod
    def _parse(self, text: str) -> list[Row]:
        """Return the rows of a file; a last line that was cut off is left out."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Write one row, at once; in a run of several processes only the first writes.

        Args:
            values: Numbers by name; "step" is taken.
            step: Steps taken so far.

        Raises:
            ValueError: If a name is taken.
            FileExistsError: If the file is there and no state of this run was loaded.
        """
        if "step" in values:
            raise check.fail("values", "named other than step", ", ".join(values))
        row: Row = {"step": step, **{name: float(value) for name, value in values.items()}}
        self._rows += 1
        if not is_main():
            return
        if not self._begun:
            self._begin()
        text, whole = self._text([row])
        if whole:
            write_bytes(self.path, text.encode())
            return
        with self.path.open("a", newline="") as stream:
            stream.write(text)

    def close(self) -> None:  # noqa: B027  there is nothing to override
        """Do nothing: the file is closed after every row."""

    def state_dict(self) -> dict[str, int]:
        """Return the number of rows.

        Returns:
            ``{"rows": count}``.
        """
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Cut the file back to the rows of a state; 0 rows begin it anew.

        Args:
            state_dict: As ``state_dict`` gave it.

        Raises:
            ValueError: If the file has fewer rows.
        """
        rows = check.integer("rows", state_dict["rows"], minimum=0)
        self._rows, self._begun = rows, True
        if not is_main():
            return
        found = self._parse(self.path.read_text()) if self.path.exists() else []
        if len(found) < rows:
            raise check.fail("rows", f"at most {len(found)}, as in {self.path}", rows)
        self._columns = []
        write_bytes(self.path, self._text(found[:rows])[0].encode())

    def _begin(self) -> None:
        if self.path.exists() and self.path.stat().st_size:
            raise FileExistsError(
                f"{self.path} is the log of another run: load its state, or choose another path"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._begun = True


class CSVLogger(_TableLogger):
    """Rows of numbers as a table; the file opens in any spreadsheet while the run goes on.

    A row is in the file when ``log`` returns. Put the logger into a checkpoint: its state is the
    number of rows, and going on cuts the file back to it, so that a run that was killed leaves the
    same file as one that was not. A column that comes later is added on the right, which writes the
    file again; a value that is missing or not finite is left blank.

    Args:
        path: The file; folders are made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = CSVLogger(f"{folder}/log.csv")
        ...     log.log({"loss": 0.5}, step=1)
        ...     log.log({"loss": 0.25, "dice": 0.75}, step=2)
        ...     log.close()
        ...     print(log.path.read_text().split())
        ['step,loss,dice', '1,0.5,', '2,0.25,0.75']
    """

    def _text(self, rows: list[Row]) -> tuple[str, bool]:
        columns = list(dict.fromkeys([*self._columns, *(name for row in rows for name in row)]))
        new = columns != self._columns
        if new and self._columns:
            rows = [*self._parse(self.path.read_text()), *rows]
        self._columns = columns
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows({k: v for k, v in row.items() if math.isfinite(v)} for row in rows)
        return text.getvalue(), new

    def _parse(self, text: str) -> list[Row]:
        whole = text[: text.rfind("\n") + 1]
        return [
            {name: _number(name, value) for name, value in row.items() if value}
            for row in csv.DictReader(io.StringIO(whole))
        ]


class JSONLinesLogger(_TableLogger):
    """Rows of numbers as one JSON object in a line, for programs to read.

    It behaves as :class:`CSVLogger`; a value that is not finite is null.

    Args:
        path: The file; folders are made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = JSONLinesLogger(f"{folder}/log.jsonl")
        ...     log.log({"loss": 0.5}, step=1)
        ...     log.close()
        ...     print(log.path.read_text().strip())
        {"step": 1, "loss": 0.5}
    """

    def _text(self, rows: list[Row]) -> tuple[str, bool]:
        clean = ({k: v if math.isfinite(v) else None for k, v in row.items()} for row in rows)
        return "".join(json.dumps(row, allow_nan=False) + "\n" for row in clean), False

    def _parse(self, text: str) -> list[Row]:
        whole = text[: text.rfind("\n") + 1].splitlines()
        rows: list[dict[str, float | int | None]] = [json.loads(line) for line in whole]
        return [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]


def _number(name: str, value: str) -> float | int:
    return int(value) if name == "step" else float(value)
