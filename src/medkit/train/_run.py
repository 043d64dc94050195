"""A run that keeps itself while the loop stays yours."""

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Generic, TypeVar

from torch import Tensor

from medkit._core import check

from ._agreement import is_main
from ._checkpoint import CheckpointManager
from ._early_stopping import EarlyStopping
from ._loader import ResumableLoader
from ._progress import Progress
from ._resuming import begin
from ._service_loggers import Logger
from ._stateful import Stateful
from ._step_info import StepInfo
from ._stepper import Stepper
from ._stop import StopSignal

Batch = TypeVar("Batch")


class Run(Generic[Batch]):
    """Yields epochs and batches, goes on where it stopped, saves when due; the loop stays yours.

    On entering, it registers model, stepper, place in the data and log with the checkpoints and
    goes on from the latest one, if there is one. ``batches()`` is ``Stepper.micro_batches`` over
    the loader, so that a window is never torn; ``step()`` is ``backward`` and ``step`` of the
    stepper.
    Checkpoints are written after steps when due, after each epoch, and when Ctrl-C or SIGTERM asks
    the run to stop: the loops then end by themselves. :func:`fit` is the same with the loop in it.

    Args:
        stepper: Steps the model.
        loader: Gives the batches, and knows where it stands.
        checkpoints: Where to save; None saves nothing.
        log: Gets loss, learning rate and gradient norm of every step; None logs nothing. One with a
            state is cut back to where the run goes on.
        early_stopping: Watches one of the numbers given to ``score`` and ends the epochs; None runs
            all of them. If it was given the model, that ends with the best weights.
        objects: Whatever else belongs into a checkpoint, by name.
        progress: Whether to show a bar, or lines where no terminal is, in the first process.

    Attributes:
        stopped: Whether a signal asked to stop.

    Raises:
        ValueError: If a name in ``objects`` is taken, or the watched number is not among those of
            ``score``.

    Example:
        >>> import torch
        >>> from medkit.train import ResumableLoader, Stepper
        >>> model = torch.nn.Linear(1, 1)
        >>> stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> loader = ResumableLoader([torch.ones(2, 1)] * 3)
        >>> with Run(stepper, loader) as run:
        ...     for epoch in run.epochs(2):
        ...         for batch in run.batches():
        ...             info = run.step(model(batch).square().mean())
        >>> stepper.num_steps, loader.epoch
        (6, 2)
    """

    def __init__(
        self,
        stepper: Stepper,
        loader: ResumableLoader[Batch],
        *,
        checkpoints: CheckpointManager | None = None,
        log: Logger | None = None,
        early_stopping: EarlyStopping | None = None,
        objects: Mapping[str, Stateful] | None = None,
        progress: bool = True,
    ) -> None:
        self.stepper = stepper
        self.loader = loader
        self.checkpoints = checkpoints
        self.log = log
        self.early_stopping: EarlyStopping | None = early_stopping
        self.stopped: bool = False
        self._parts: dict[str, Stateful] = {
            "model": stepper.model,
            "stepper": stepper,
            "data": loader,
        }
        if isinstance(log, Stateful):
            self._parts["log"] = log
        if early_stopping is not None:
            self._parts["early_stopping"] = early_stopping
        if taken := self._parts.keys() & (objects or {}).keys():
            raise check.fail("objects", "of new names", ", ".join(sorted(taken)))
        self._parts |= objects or {}
        self._show = progress and is_main()
        self._values: dict[str, float] = {}
        self._stop = StopSignal()
        self._bar: Progress | None = None

    def __enter__(self) -> "Run[Batch]":
        resumed = begin(self.checkpoints, self._parts, resume=self.checkpoints is not None)
        if self.checkpoints is not None and not resumed and isinstance(self.log, Stateful):
            self.log.load_state_dict(dict.fromkeys(self.log.state_dict(), 0))  # none was saved
        self._stop.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.__exit__(kind, error, trace)
        if self._bar is not None:
            self._bar.close()
        if self.log is not None:
            self.log.close()

    def epochs(self, count: int) -> Iterator[int]:
        """Yield the numbers of the epochs that are left, until early stopping; save after each.

        Args:
            count: Epochs in all, those before a resume included.

        Yields:
            The number of the epoch, from 0.
        """
        check.integer("count", count, minimum=0)
        per_epoch = self.loader.per_epoch
        total = None if per_epoch is None else per_epoch * count
        initial = self.loader.epoch * (per_epoch or 0) + self.loader.done
        self._bar = Progress(total, initial=initial, show=self._show)
        while self.loader.epoch < count and not (self._is_over() or self._must_stop()):
            epoch, self._values = self.loader.epoch, {}
            yield epoch
            if self.loader.epoch == epoch:
                if not self.stopped:
                    raise RuntimeError("batches() must be read to its end in every epoch")
                return
            self._save(self._values)
        stopping = self.early_stopping
        if not self.stopped and stopping is not None and stopping.model is not None:
            stopping.restore()

    def batches(self) -> Iterator[Batch]:
        """Yield the batches of this epoch that are left.

        Yields:
            The batch; call ``step`` once for each.
        """
        self.stepper.model.train()
        for batch, window in self.stepper.micro_batches(self.loader):
            before = self.stepper.num_steps
            yield batch
            if not window.last:
                continue
            stepped = self.stepper.num_steps > before
            if self._must_stop():
                self._save({})
                return
            if stepped and self.checkpoints and self.checkpoints.due(self.stepper.num_steps):
                self._save({})

    def step(self, loss: Tensor, *, weight: float | Tensor | None = None) -> StepInfo:
        """Add the gradient of a batch; at the end of its window step, log and show.

        Args:
            loss: A single number.
            weight: What this batch counts in its window; None counts every one the same.

        Returns:
            What was done.
        """
        self.stepper.backward(loss, weight=weight)
        info = self.stepper.step()
        if info.stepped and self.log is not None:
            values = {"loss": info.loss, "lr": info.lr, "grad_norm": info.grad_norm}
            self.log.log({"epoch": self.loader.epoch, **values}, step=self.stepper.num_steps)
        if self._bar is not None:
            self._bar.update({"loss": info.loss} if info.stepped else {})
        return info

    def score(self, values: Mapping[str, float]) -> None:
        """Log the numbers of an epoch; the checkpoint after it is ranked by its metric among them.

        Early stopping takes the number that it watches from them too: call it once in an epoch.

        Args:
            values: Numbers by name, e.g. from :func:`evaluate`.
        """
        if self.early_stopping is not None:
            watched = self.early_stopping.metric
            if watched not in values:
                raise check.fail("values", f"with {watched!r} for early stopping", list(values))
            self.early_stopping.update(values[watched])
        self._values.update(values)
        if self.log is not None:
            self.log.log({"epoch": self.loader.epoch - 1, **values}, step=self.stepper.num_steps)

    def _is_over(self) -> bool:
        return self.early_stopping is not None and self.early_stopping.stopped

    def _must_stop(self) -> bool:
        self.stopped = self.stopped or self._stop.requested()
        return self.stopped

    def _save(self, values: Mapping[str, float]) -> None:
        if self.checkpoints is not None:
            metric = values.get(self.checkpoints.metric or "")
            self.checkpoints.save(self.stepper.num_steps, metric=metric)
