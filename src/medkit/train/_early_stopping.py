"""Stop when nothing has improved for a while."""

import math
from collections.abc import Mapping
from typing import Literal, cast

from torch import Tensor, nn

from medkit._core import check

Mode = Literal["min", "max"]
_State = float | None | dict[str, Tensor]


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
        model: Whose weights and buffers are copied at every improvement, for ``restore`` to put
            back; the copy goes into the checkpoint too. None keeps none.

    Attributes:
        best: Best value so far, or None.
        num_bad: Updates since the best value.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> import torch
        >>> stopping = EarlyStopping(2, mode="max")
        >>> [stopping.update(dice) for dice in (0.5, 0.7, 0.6, 0.7)]
        [False, False, False, True]
        >>> model = torch.nn.Linear(1, 1)
        >>> stopping = EarlyStopping(2, model=model)
        >>> for loss, weight in ((0.5, 1.0), (0.2, 2.0), (0.4, 3.0)):
        ...     _ = torch.nn.init.constant_(model.weight, weight)
        ...     _ = stopping.update(loss)
        >>> stopping.restore()
        >>> model.weight.item()
        2.0
    """

    def __init__(
        self,
        patience: int,
        *,
        metric: str = "train_loss",
        mode: Mode = "min",
        min_delta: float = 0.0,
        model: nn.Module | None = None,
    ) -> None:
        check.one_of("mode", mode, ("min", "max"))
        self.patience: int = check.integer("patience", patience, minimum=1)
        self.metric = metric
        self.mode: Mode = mode
        self.min_delta: float = check.non_negative("min_delta", min_delta)
        self.best: float | None = None
        self.num_bad = 0
        self.model: nn.Module | None = model
        self._weights: dict[str, Tensor] = {}

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
            if self.model is not None:
                self._keep(self.model.state_dict())
        else:
            self.num_bad += 1
        return self.stopped

    def restore(self) -> None:
        """Give ``model`` the weights it had at the best value; nothing if there was none.

        Raises:
            ValueError: If no ``model`` was given.
        """
        if self.model is None:
            raise check.fail("model", "given to restore its best weights", self.model)
        if self._weights:
            self.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, _State]:
        """Return the best value, the number of updates since, and the weights that are kept.

        Returns:
            ``{"best": value, "num_bad": count}``, and "weights" if a model was given.
        """
        kept: dict[str, _State] = {} if self.model is None else {"weights": dict(self._weights)}
        return {"best": self.best, "num_bad": self.num_bad, **kept}

    def load_state_dict(self, state_dict: Mapping[str, _State]) -> None:
        """Continue from a state.

        Args:
            state_dict: As ``state_dict`` gave it.
        """
        self.best = cast("float | None", state_dict["best"])
        self.num_bad: int = check.integer("num_bad", state_dict["num_bad"], minimum=0)
        self._keep(cast("dict[str, Tensor]", state_dict.get("weights", {})))

    def _keep(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
