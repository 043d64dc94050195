"""Stop when nothing has improved for a while."""

import math
from collections.abc import Mapping
from typing import Literal

from medkit._core import check

Mode = Literal["min", "max"]


def improves(value: float, best: float | None, *, mode: Mode, min_delta: float = 0.0) -> bool:
    """Return whether ``value`` beats ``best`` by more than ``min_delta``; NaN never does."""
    if math.isnan(value):
        return False
    if best is None:
        return True
    return value < best - min_delta if mode == "min" else value > best + min_delta


class EarlyStopping:
    """Say when a value has not improved for ``patience`` updates in a row.

    A value improves when it beats the best one so far by more than ``min_delta``. NaN never
    improves. Its state belongs into the checkpoint: :func:`fit` puts it there.

    Args:
        patience: Updates without improvement that are borne before it stops.
        metric: Name of the value, for :func:`fit` to find it among the results.
        mode: Whether the value is better when it is smaller or larger.
        min_delta: How much better counts as better.

    Attributes:
        best: Best value so far, or None.
        num_bad: Updates since the best value.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> stopping = EarlyStopping(2, mode="max")
        >>> [stopping.update(dice) for dice in (0.5, 0.7, 0.6, 0.7)]
        [False, False, False, True]
    """

    def __init__(
        self,
        patience: int,
        *,
        metric: str = "train_loss",
        mode: Mode = "min",
        min_delta: float = 0.0,
    ) -> None:
        check.one_of("mode", mode, ("min", "max"))
        self.patience: int = check.integer("patience", patience, minimum=1)
        self.metric = metric
        self.mode: Mode = mode
        self.min_delta: float = check.non_negative("min_delta", min_delta)
        self.best: float | None = None
        self.num_bad = 0

    @property
    def stopped(self) -> bool:
        """Whether patience has run out."""
        return self.num_bad >= self.patience

    def update(self, value: float) -> bool:
        """Take in a new value.

        Args:
            value: The watched number after one more epoch.

        Returns:
            Whether to stop.
        """
        if improves(value, self.best, mode=self.mode, min_delta=self.min_delta):
            self.best, self.num_bad = float(value), 0
        else:
            self.num_bad += 1
        return self.stopped

    def state_dict(self) -> dict[str, float | None]:
        """Return the best value and the number of updates since.

        Returns:
            ``{"best": value, "num_bad": count}``.
        """
        return {"best": self.best, "num_bad": self.num_bad}

    def load_state_dict(self, state_dict: Mapping[str, float | None]) -> None:
        """Continue from a state.

        Args:
            state_dict: As ``state_dict`` gave it.
        """
        self.best = state_dict["best"]
        self.num_bad: int = check.integer("num_bad", state_dict["num_bad"], minimum=0)
