"""Training and evaluation written with the public parts only: read it, copy it, change it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple, Protocol, SupportsFloat, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from medkit._core import check

from ._agreement import from_main, is_main
from ._checkpoint import CheckpointManager
from ._early_stopping import EarlyStopping
from ._history import History
from ._loader import ResumableLoader
from ._progress import Progress
from ._resuming import begin
from ._seeding import fork_rng
from ._stateful import Stateful
from ._stepper import Stepper
from ._stop import StopSignal

Batch = Mapping[str, Tensor]
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


@runtime_checkable
class Metric(Protocol[Result_co]):
    """What ``evaluate`` asks of a metric: take in batches, give a result, begin anew.

    Example:
        >>> class Voxels:
        ...     def reset(self): self.count = 0
        ...     def update(self, prediction, target): self.count += target.numel()
        ...     def compute(self): return self.count
        >>> isinstance(Voxels(), Metric)
        True
    """

    def update(self, prediction: Tensor, target: Tensor, /) -> object:
        """Take in one batch.

        Args:
            prediction: What the model, or ``predict``, gave.
            target: What it should have given.
        """
        ...

    def compute(self) -> Result_co:
        """Return the result over everything taken in."""
        ...

    def reset(self) -> object:
        """Forget everything taken in."""
        ...


class FitResult(NamedTuple):
    """What ``fit`` has done.

    Attributes:
        history: Numbers of every step and epoch, those before a resume included.
        reason: Why it ended: all epochs are ``"finished"``, the metric stopped improving
            (``"early"``), or a ``"signal"`` came.
    """

    history: History
    reason: Literal["finished", "early", "signal"]


def fit(
    model: nn.Module,
    train_loader: Iterable[Batch],
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    *,
    stepper: Stepper,
    epochs: int,
    validate: Callable[[], Mapping[str, float]] | None = None,
    checkpoints: CheckpointManager | None = None,
    early_stopping: EarlyStopping | None = None,
    resume: bool = False,
    keys: tuple[str, str] = ("image", "label"),
    progress: bool = True,
) -> FitResult:
    """Train a model: the loop most people write, made of parts that work in any loop.

    For each batch ``loss_fn(model(image), label)`` goes through ``stepper``, which holds the
    optimizer, schedule, precision, accumulation and clipping. After each epoch ``validate`` gives
    numbers by name, usually through :func:`evaluate`, and a checkpoint is saved. A Ctrl-C or
    SIGTERM ends the run after the step or validation it came in, with a checkpoint to go on from;
    what follows has the same bits as without the stop, under the conditions of
    :class:`ResumableLoader`.

    Args:
        model: The network that ``stepper`` steps.
        train_loader: Gives batches as dicts of tensors, moved to the model's device.
        loss_fn: Takes the model's output and the target.
        stepper: How to step.
        epochs: Epochs in all, those before a resume included.
        validate: Runs after each epoch. Its numbers are logged beside "train_loss", the mean loss
            of the epoch's steps.
        checkpoints: Saves after each epoch, whenever due, and at a stop; its metric must be one
            of the numbers. Also writes ``history.csv`` into its folder at the end. None saves
            nothing.
        early_stopping: Watches one of the numbers; None runs all epochs.
        resume: Whether to go on from the latest checkpoint, if there is one.
        keys: Names of the input and the target in a batch.
        progress: Whether to show a bar, or lines where no terminal is, in the first process.

    Returns:
        The history and why it ended. The model holds the last weights, or the best ones if
        ``early_stopping`` was given it; ``checkpoints.best()`` is the folder of those.

    Raises:
        ValueError: If ``stepper`` steps another model, an epoch has no batch, a watched number is
            missing, or ``checkpoints`` has a run and ``resume`` is not set.

    Example:
        >>> import torch
        >>> x = torch.linspace(-1, 1, 16)[:, None]
        >>> batches = [{"image": x, "label": 3 * x}] * 20
        >>> model = torch.nn.Linear(1, 1)
        >>> stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.5))
        >>> result = fit(model, batches, torch.nn.functional.mse_loss, stepper=stepper, epochs=2)
        >>> round(model.weight.item(), 2), result.reason, len(result.history.steps["loss"])
        (3.0, 'finished', 40)
    """
    check.integer("epochs", epochs, minimum=0)
    data, history = ResumableLoader(train_loader), History()
    _check(model, stepper, data)
    _check_watched(checkpoints, early_stopping, validated=validate is not None)
    parts: dict[str, Stateful] = {"model": model, "stepper": stepper}
    parts |= {"data": data, "history": history}
    if early_stopping is not None:
        parts["early_stopping"] = early_stopping
    begin(checkpoints, parts, resume=resume)
    total = None if data.per_epoch is None else data.per_epoch * epochs
    initial = data.epoch * (data.per_epoch or 0) + data.done
    device = next(model.parameters()).device
    shown: dict[str, float] = {}
    progress = progress and is_main()
    with StopSignal() as stop, Progress(total, initial=initial, show=progress) as bar:
        while data.epoch < epochs and not (_is_over(early_stopping) or stop.requested()):
            epoch = data.epoch
            label = f"epoch {epoch + 1}/{epochs}"
            model.train()
            for batch, window in stepper.micro_batches(data):
                image, target = _pair(batch, keys, device)
                with stepper.autocast():
                    loss = loss_fn(model(image), target)
                stepper.backward(loss)
                info = stepper.step()
                if info.stepped:
                    history.log_step(stepper.num_steps, epoch=epoch, info=info)
                    shown["loss"] = info.loss
                bar.update(shown, label=label)
                stopping = window.last and stop.requested()
                if stopping or (
                    info.stepped and checkpoints and checkpoints.due(stepper.num_steps)
                ):
                    _save(checkpoints, stepper, None)
                if stopping:
                    return _finish(history, data.epoch < epochs, early_stopping, checkpoints)
            scores = {} if validate is None else dict(validate())
            values = {"train_loss": history.mean_loss(epoch), **scores}
            history.log_epoch(stepper.num_steps, epoch=epoch, values=values)
            shown |= scores
            bar.update(shown, advance=0, label=label)
            if early_stopping is not None:
                early_stopping.update(_watched(values, early_stopping.metric))
            _save(checkpoints, stepper, values)
    return _finish(history, data.epoch < epochs, early_stopping, checkpoints)


def evaluate(
    model: nn.Module,
    loader: Iterable[Batch],
    metrics: Mapping[str, Metric[Result]],
    *,
    predict: Callable[[Tensor], Tensor] | None = None,
    score: Callable[[Result], float | Mapping[str, float]] | None = None,
    keys: tuple[str, str] = ("image", "label"),
) -> dict[str, float]:
    """Return the metrics of a model over a loader.

    The model predicts without gradients and in evaluation mode; afterwards every module is in
    the mode it was in, and the global random state is what it was.

    Args:
        model: The network.
        loader: Gives batches as dicts of tensors, moved to the model's device.
        metrics: By name; they are reset first.
        predict: Turns an input into what the metrics take, e.g. a sliding window followed by an
            argmax; None calls the model.
        score: Turns the result of a metric into a number, or into several by name; None takes
            ``float(result)``.
        keys: Names of the input and the target in a batch.

    Returns:
        Numbers by name; several from one metric are named "metric/name".

    Example:
        >>> import torch
        >>> class Accuracy:
        ...     def reset(self): self.right, self.seen = 0, 0
        ...     def update(self, p, t): self.right += (p == t).sum(); self.seen += t.numel()
        ...     def compute(self): return self.right / self.seen
        >>> batch = {"image": torch.tensor([[1.0, 0.0]]), "label": torch.tensor([0])}
        >>> evaluate(torch.nn.Linear(2, 2), [batch], {"accuracy": Accuracy()},
        ...          predict=lambda image: image.argmax(1))
        {'accuracy': 1.0}
    """
    device = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), fork_rng():
            for name, metric in metrics.items():
                if isinstance(metric, type):
                    got = f"the class {metric.__name__}"
                    raise check.fail(f"metrics[{name!r}]", "a metric", got)
                metric.reset()
            for batch in loader:
                image, target = _pair(batch, keys, device)
                prediction = model(image) if predict is None else predict(image)
                for metric in metrics.values():
                    metric.update(prediction, target)
            results = {name: metric.compute() for name, metric in metrics.items()}
    finally:
        for module, training in modes:
            module.training = training
    return _numbers(results, score)


def _check(model: nn.Module, stepper: Stepper, data: ResumableLoader[Batch]) -> None:
    if stepper.model is not model:
        raise check.fail("stepper", "made for this model", type(stepper.model).__name__)
    if data.per_epoch == 0:
        raise check.fail("train_loader", "one that gives batches", "an empty one")


def _pair(batch: Batch, keys: tuple[str, str], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the input and the target of a batch on the device."""
    rule = f"a dict with {keys[0]!r} and {keys[1]!r} (the argument keys names others)"
    check.kind("batch", batch, Mapping, rule)
    if not set(keys) <= set(batch):
        raise check.fail("batch", rule, f"{sorted(batch)}")
    image, target = (batch[key].to(device, non_blocking=True) for key in keys)
    return image, target


def _is_over(early_stopping: EarlyStopping | None) -> bool:
    return early_stopping is not None and early_stopping.stopped


def _finish(
    history: History,
    unfinished: bool,
    early_stopping: EarlyStopping | None,
    checkpoints: CheckpointManager | None,
) -> FitResult:
    if checkpoints is not None:
        from_main(lambda: history.save(checkpoints.root / "history.csv"))
    if unfinished and not _is_over(early_stopping):
        return FitResult(history, "signal")
    if early_stopping is not None and early_stopping.model is not None:
        early_stopping.restore()
    return FitResult(history, "early" if unfinished else "finished")


def _save(
    checkpoints: CheckpointManager | None, stepper: Stepper, values: Mapping[str, float] | None
) -> None:
    if checkpoints is None:
        return
    name = checkpoints.metric
    metric = None if values is None or name is None else _watched(values, name)
    checkpoints.save(stepper.num_steps, metric=metric)


def _watched(values: Mapping[str, float], name: str) -> float:
    if name not in values:
        raise check.fail("metric", f"one of {', '.join(values)}", name)
    return values[name]


def _check_watched(
    checkpoints: CheckpointManager | None, early_stopping: EarlyStopping | None, *, validated: bool
) -> None:
    """Refuse before the first epoch what could only fail after it."""
    names = {part.metric for part in (checkpoints, early_stopping) if part is not None}
    unknown = sorted(name for name in names - {"train_loss"} if name is not None)
    if unknown and not validated:
        raise check.fail("metric", "train_loss without validate", unknown[0])


def _numbers(
    results: Mapping[str, Result],
    score: Callable[[Result], float | Mapping[str, float]] | None,
) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, result in results.items():
        if score is None and not isinstance(result, SupportsFloat):
            raise TypeError(
                f"metric {name!r} must give a number or score must turn its result into one; "
                f"got {type(result).__name__}"
            )
        value = float(cast("SupportsFloat", result)) if score is None else score(result)
        if isinstance(value, Mapping):
            numbers |= {f"{name}/{part}": float(number) for part, number in value.items()}
        else:
            numbers[name] = float(value)
    return numbers
