"""A line that says how far a run is."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import NoReturn

from tqdm import tqdm

from medkit._core import check


class Progress:
    """Progress bar with the latest numbers and the time left; silent where nobody watches.

    It writes to standard error, and only if that is a terminal, unless asked. The time left goes
    by the average so far, so that pauses for validation are counted in.

    Args:
        total: Steps in all, or None if nobody knows.
        initial: Steps already done, after a resume.
        show: Whether to write; None writes to a terminal only.
        every_s: Seconds between two writes.

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
        show: bool | None = None,
        every_s: float = 1.0,
    ) -> None:
        self.done: int = check.integer("initial", initial, minimum=0)
        self.every_s: float = check.non_negative("every_s", every_s)
        shown = sys.stderr.isatty() if show is None else show
        self._next = 0.0
        self._bar: tqdm[NoReturn] | None = (
            tqdm(
                total=total,
                initial=initial,
                mininterval=self.every_s,
                smoothing=0,
                dynamic_ncols=True,
                file=sys.stderr,
            )
            if shown
            else None
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
        if self._bar is None:
            return
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.every_s
            if label is not None:
                self._bar.set_description_str(label, refresh=False)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update(advance)

    def close(self) -> None:
        """Leave the last line standing."""
        if self._bar is not None:
            self._bar.close()
