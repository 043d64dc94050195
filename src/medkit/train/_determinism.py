"""Whether two runs can be the same bit for bit, and what stands against it."""

import os
import platform
from typing import NamedTuple

import torch
from torch import nn

from ._modules import named_modules

_UNSURE_ON_GPU = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool2d,
    nn.AvgPool3d,
    nn.CTCLoss,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
    nn.MaxUnpool2d,
    nn.MaxUnpool3d,
    nn.NLLLoss,
    nn.ReflectionPad1d,
    nn.ReflectionPad2d,
    nn.ReflectionPad3d,
    nn.ReplicationPad1d,
    nn.ReplicationPad2d,
    nn.ReplicationPad3d,
)
_SMOOTH_MODES = {"linear", "bilinear", "bicubic", "trilinear"}


class DeterminismReport(NamedTuple):
    """What decides whether a run can be repeated.

    Attributes:
        settings: Versions, threads and switches of this process.
        problems: What may make two runs differ; empty if nothing is known to.
    """

    settings: dict[str, str | int | bool]
    problems: tuple[str, ...]


def determinism_report(
    *, model: nn.Module | None = None, device: torch.device | str | None = None
) -> DeterminismReport:
    """Say what may make two runs with one seed differ.

    On a CPU, equal versions and threads give equal bits. A GPU needs
    ``seed_everything(..., deterministic=True)``, and some operations have no deterministic
    backward pass there at all: torch then raises an error in the middle of the first step.

    Args:
        model: Searched for layers of such operations; functions that a ``forward`` calls cannot
            be seen.
        device: Where it will run; None goes by the model, and without one is the CPU.

    Returns:
        Settings and problems.

    Example:
        >>> import torch
        >>> determinism_report(model=torch.nn.Upsample(mode="trilinear"), device="cuda").problems[0]
        'deterministic algorithms are off: seed_everything(..., deterministic=True)'
        >>> determinism_report().problems
        ()
    """
    place = _device(model) if device is None else torch.device(device)
    settings: dict[str, str | int | bool] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(place) if _here(place) else place.type,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
    }
    if place.type != "cuda":
        return DeterminismReport(settings, ())
    found = {
        "deterministic algorithms are off: seed_everything(..., deterministic=True)": (
            not settings["deterministic"]
        ),
        "cuDNN chooses algorithms by timing: torch.backends.cudnn.benchmark = False": (
            settings["cudnn_benchmark"]
        ),
        "CUBLAS_WORKSPACE_CONFIG is not :4096:8 or :16:8": (
            settings["cublas_workspace"] not in {":4096:8", ":16:8"}
        ),
    }
    layers = [] if model is None else _unsure_layers(model)
    return DeterminismReport(settings, (*(text for text, holds in found.items() if holds), *layers))


def _unsure_layers(model: nn.Module) -> list[str]:
    lacks = "has no deterministic backward pass on a GPU"
    return [
        f"{name or 'the model'} ({type(module).__name__}) {lacks}"
        for name, module in named_modules(model)
        if isinstance(module, _UNSURE_ON_GPU)
        or (isinstance(module, nn.Upsample) and module.mode in _SMOOTH_MODES)
    ]


def _device(model: nn.Module | None) -> torch.device:
    parameters = iter(()) if model is None else model.parameters()
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


def _here(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_available()
