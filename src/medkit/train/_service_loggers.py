"""Logs for TensorBoard and Weights & Biases, and several logs as one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, cast, runtime_checkable

from medkit._core import check
from medkit._core.optional import require

from ._agreement import is_main


@runtime_checkable
class Logger(Protocol):
    """Anything that takes numbers as a run goes on.

    Example:
        >>> class Printed:
        ...     def log(self, values, *, step): print(step, values)
        ...     def close(self): pass
        >>> isinstance(Printed(), Logger)
        True
    """

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Take the numbers of one step.

        Args:
            values: Numbers by name.
            step: Steps taken so far.
        """
        ...

    def close(self) -> None:
        """Write what is still to be written."""
        ...


@runtime_checkable
class _Writer(Protocol):
    def add_scalar(self, name: str, value: float, step: int) -> object: ...

    def close(self) -> object: ...


@runtime_checkable
class _Run(Protocol):
    def log(self, values: dict[str, float], *, step: int) -> object: ...

    def finish(self) -> object: ...


class TensorBoardLogger:
    """Curves for TensorBoard, which needs ``pip install 'medkit[log]'``.

    Put it into a checkpoint: after a run has gone on, TensorBoard hides what was logged after the
    step it went on from.

    Args:
        folder: Where the event files go.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
        ...     log = TensorBoardLogger(folder)
        ...     log.log({"loss": 0.5}, step=1)
        ...     log.close()
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder: Path = Path(folder)
        self._step = 0
        self._writer: _Writer | None = None
        self._purge: int | None = None
        require("tensorboard", extra="log")

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Add a point to each curve; in a run of several processes only the first writes.

        Args:
            values: Numbers by name.
            step: Steps taken so far.
        """
        self._step = step
        if not is_main():
            return
        if self._writer is None:
            module = require("torch.utils.tensorboard", extra="log")
            self._writer = cast(
                "_Writer", module.SummaryWriter(self.folder, purge_step=self._purge)
            )
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is still to be written."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, int]:
        """Return the last step.

        Returns:
            ``{"step": steps}``.
        """
        return {"step": self._step}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Go on after a step.

        Args:
            state_dict: As ``state_dict`` gave it.
        """
        self.close()
        self._step = check.integer("step", state_dict["step"], minimum=0)
        self._purge = self._step + 1


class WandbLogger:
    """Curves for Weights & Biases, which needs ``pip install 'medkit[log]'``.

    Steps that the service has seen already are not sent again after a run has gone on: it keeps the
    first values of a step.

    Args:
        project: Name of the project there.
        folder: Where files go until they are sent.
        mode: ``"offline"`` sends nothing; ``wandb sync`` does later.
        name: Of this run; None lets the service choose.
        config: Options to show beside the curves.

    Example:
        >>> log = WandbLogger("brains", folder="runs")  # doctest: +SKIP
        >>> log.log({"loss": 0.5}, step=1)  # doctest: +SKIP
    """

    def __init__(
        self,
        project: str,
        *,
        folder: str | Path,
        mode: Literal["online", "offline"] = "offline",
        name: str | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        check.one_of("mode", mode, ("online", "offline"))
        self._run: _Run | None = None
        if is_main():
            Path(folder).mkdir(parents=True, exist_ok=True)
            run = require("wandb", extra="log").init(
                project=project, dir=str(folder), mode=mode, name=name, config=dict(config or {})
            )
            self._run = cast("_Run", run)

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Send the numbers of one step; in a run of several processes only the first does.

        Args:
            values: Numbers by name.
            step: Steps taken so far.
        """
        if self._run is not None:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Send what is still to be sent."""
        if self._run is not None:
            self._run.finish()
            self._run = None


class MultiLogger:
    """Several logs as one.

    Args:
        loggers: Each gets every row.

    Example:
        >>> import tempfile
        >>> from medkit.train import CSVLogger, JSONLinesLogger
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     csv, lines = CSVLogger(f"{folder}/a.csv"), JSONLinesLogger(f"{folder}/a.jsonl")
        ...     log = MultiLogger([csv, lines])
        ...     log.log({"loss": 0.5}, step=1)
        ...     log.close()
        ...     print(csv.state_dict(), lines.state_dict())
        {'rows': 1} {'rows': 1}
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers: tuple[Logger, ...] = tuple(loggers)

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Give the numbers of one step to all.

        Args:
            values: Numbers by name.
            step: Steps taken so far.
        """
        for logger in self.loggers:
            logger.log(values, step=step)

    def close(self) -> None:
        """Close all."""
        for logger in self.loggers:
            logger.close()
