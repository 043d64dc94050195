"""A wish to stop, heard between two steps."""

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType

from medkit._core import check

from ._agreement import any_process

_DEFAULT_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)
)
_Handler = Callable[[int, FrameType | None], object]


class StopSignal:
    """Turn Ctrl-C and the signals of a cluster into a question that a loop asks after each step.

    Inside ``with StopSignal() as stop`` a first signal only makes ``stop.requested()`` true, so
    that the loop can finish its step, save and leave. A second Ctrl-C raises KeyboardInterrupt.
    The handlers that were there before come back at the end. Only the main thread can listen;
    elsewhere nothing is ever requested. Start loaders inside: their forked workers then bear the
    Ctrl-C that a terminal sends to all.

    Args:
        signals: Which signals ask to stop; None hears SIGTERM, SIGUSR1 and SIGINT (Ctrl-C).
        check_every: In a run of several processes, ask the others only on every so-many-th call.

    Example:
        >>> import signal
        >>> with StopSignal() as stop:
        ...     before = stop.requested()
        ...     signal.raise_signal(signal.SIGINT)
        ...     print(before, stop.requested())
        False True
    """

    def __init__(
        self, *, signals: Sequence[signal.Signals] | None = None, check_every: int = 1
    ) -> None:
        self.check_every: int = check.integer("check_every", check_every, minimum=1)
        self._signals = _DEFAULT_SIGNALS if signals is None else tuple(signals)
        self._previous: dict[signal.Signals, _Handler | int | None] = {}
        self._received = self._agreed = False
        self._calls = 0

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def requested(self) -> bool:
        """Return whether to stop now; in a run of several processes all get the same answer.

        Returns:
            Whether a signal has come, here or in another process.
        """
        self._calls += 1
        if not self._agreed and self._calls % self.check_every == 0:
            self._agreed = any_process(self._received)
        return self._agreed

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = True
