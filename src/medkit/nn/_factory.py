"""Where and of what type layers make their parameters."""

from typing import TypedDict

import torch


class Factory(TypedDict):
    """The two arguments that every layer of PyTorch takes."""

    device: torch.device | str | None
    dtype: torch.dtype | None
