"""What one optimizer step did."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """What one call of ``Stepper.step`` did.

    Attributes:
        stepped: Whether the parameters were updated.
        loss: Mean loss of the window, weighted as its gradient, over all processes; NaN inside a
            window.
        grad_norm: Norm of the whole gradient before clipping; NaN inside a window.
        lr: Learning rate of the first parameter group in this step.
        skipped: Whether the window was thrown away because a number in it was not finite.

    Example:
        >>> import torch
        >>> from medkit.train import Stepper
        >>> model = torch.nn.Linear(1, 1)
        >>> stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> stepper.backward(model(torch.ones(1, 1)).sum())
        >>> info = stepper.step()
        >>> info.stepped, info.lr, round(info.grad_norm, 3)
        (True, 0.1, 1.414)
    """

    stepped: bool
    loss: float
    grad_norm: float
    lr: float
    skipped: bool
