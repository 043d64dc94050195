"""Lines that say how far a run is."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import NoReturn

from tqdm import tqdm

from medkit._core import check

_PLAIN_S = 30.0
_LINE = "{desc}{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class Progress:
    """Progress bar with the latest numbers and the time left; plain lines where no terminal is.

    It writes to standard error. Where that is no terminal but a file, a line comes after the first
    step, at most every 30 seconds, and at the end. The time left goes by the average so far, so
    that pauses for validation are counted in.

    Args:
        total: Steps in all, or None if nobody knows.
        initial: Steps already done, after a resume.
        show: Whether to write.
        every_s: Seconds between two writes; None is 1 on a terminal and 30 elsewhere.

    Example:
        >>> with Progress(3, show=False) as bar:
        ...     for step in range(3):
        ...         bar.update({"loss": 1.0 / (step + 1)}, label="epoch 1/1")
        >>> bar.done
        3
    """

    def __init__(
        self,
        total: int | None,
        *,
        initial: int = 0,
        show: bool = True,
        every_s: float | None = None,
    ) -> None:
        self.done: int = check.integer("initial", initial, minimum=0)
        self.total = total
        terminal = sys.stderr.isatty()
        default = 1.0 if terminal else _PLAIN_S
        self.every_s: float = default if every_s is None else check.non_negative("every_s", every_s)
        self._initial, self._start = self.done, time.monotonic()
        self._next = 0.0
        self._plain = show and not terminal
        self._unsaid = False
        self._label = ""
        self._values: Mapping[str, float] = {}
        self._bar: tqdm[NoReturn] | None = None
        if show and terminal:
            self._bar = tqdm(
                total=total,
                initial=initial,
                mininterval=self.every_s,
                smoothing=0,
                dynamic_ncols=True,
                file=sys.stderr,
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def update(
        self, values: Mapping[str, float], *, advance: int = 1, label: str | None = None
    ) -> None:
        """Count steps and show numbers, at most once in ``every_s`` seconds.

        Args:
            values: What to show, by name.
            advance: Steps done since the last call.
            label: Words before the bar, e.g. the epoch; None leaves them.
        """
        self.done += advance
        if self._bar is None and not self._plain:
            return
        self._label = self._label if label is None else label
        self._values = values
        now = time.monotonic()
        due = now >= self._next
        if due:
            self._next = now + self.every_s
        if self._bar is None:
            self._unsaid = not due
            if due:
                self._write_line()
            return
        if due:
            self._bar.set_description_str(self._label, refresh=False)
            self._bar.set_postfix_str(_text(values), refresh=False)
        self._bar.update(advance)

    def close(self) -> None:
        """Leave the last line standing."""
        if self._bar is not None:
            self._bar.close()
        elif self._unsaid:
            self._write_line()
            self._unsaid = False

    def _write_line(self) -> None:
        line = tqdm.format_meter(
            self.done,
            self.total,  # pyright: ignore[reportArgumentType]  it takes None
            time.monotonic() - self._start,
            prefix=f"{self._label}: " if self._label else "",
            postfix=_text(self._values),
            initial=self._initial,
            bar_format=_LINE,
        )
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _text(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
