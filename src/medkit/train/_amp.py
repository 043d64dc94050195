"""Which precision a forward pass runs in, decided once."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from medkit._core import check

AmpMode = Literal["off", "bf16", "fp16", "auto"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class AmpPolicy:
    """Mixed precision for one device: the autocast to enter and the scaler to use.

    bf16 needs no loss scaling; fp16 does, because gradients below 6e-8 would become zero. Enter
    ``autocast()`` round the forward pass and the loss; :class:`Stepper` does the rest.

    Args:
        mode: ``"off"`` computes in the parameters' own precision. ``"auto"`` is bf16 on a GPU
            that computes in it, fp16 on an older one, and off on a CPU, where few machines gain.
        device: Where the model lives; the index does not matter.

    Attributes:
        mode: ``"off"``, ``"bf16"`` or ``"fp16"``: what was decided.
        device: Type of the device, e.g. ``"cuda"``.

    Raises:
        ValueError: If ``mode`` is none of the four.

    Example:
        >>> import torch
        >>> policy = AmpPolicy("bf16")
        >>> with policy.autocast():
        ...     print((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        torch.bfloat16
        >>> policy.make_scaler(), AmpPolicy("auto").mode
        (None, 'off')
    """

    mode: Literal["off", "bf16", "fp16"]
    device: str

    def __init__(self, mode: AmpMode, *, device: torch.device | str = "cpu") -> None:
        check.one_of("mode", mode, ("off", "bf16", "fp16", "auto"))
        self.device = torch.device(device).type
        self.mode = _best_mode(self.device) if mode == "auto" else mode

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context for the forward pass and the loss.

        Returns:
            ``torch.autocast`` in the chosen precision, or a context that does nothing.
        """
        if self.mode == "off":
            return nullcontext()
        return torch.autocast(self.device, dtype=_DTYPES[self.mode])

    def make_scaler(self) -> torch.amp.GradScaler | None:
        """Return a new gradient scaler where one is needed.

        Returns:
            A ``torch.amp.GradScaler`` for fp16, else None.
        """
        return torch.amp.GradScaler(self.device) if self.mode == "fp16" else None


def _best_mode(device: str) -> Literal["off", "bf16", "fp16"]:
    if device != "cuda":
        return "off"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
