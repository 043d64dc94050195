"""The functions of ``scipy.ndimage`` that medkit uses, with types, loaded at the first call."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import cast

import numpy as np
from torch import Tensor

from medkit._core import check


def label(mask: np.ndarray, neighbours: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the connected components of a mask, numbered from 1, and how many there are."""
    function = cast("Callable[..., tuple[np.ndarray, int]]", _find("label"))
    return function(mask, neighbours)


def distance_to_zero(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return the distance of each voxel to the nearest zero of a mask that has one, float64."""
    function = cast("Callable[..., np.ndarray]", _find("distance_transform_edt"))
    return function(mask, sampling=spacing)


def check_masks(name: str, mask: Tensor) -> None:
    """Raise unless a tensor holds 2D or 3D masks or class maps."""
    if mask.is_floating_point() or mask.is_complex():
        raise TypeError(f"{name} must be boolean or integers; got {mask.dtype}")
    if mask.ndim not in (4, 5) or 0 in mask.shape[2:]:
        rule = "(batch, channel, *spatial) with two or three spatial axes, none of them empty"
        raise check.fail(name, rule, f"shape {tuple(mask.shape)}")


def _find(name: str) -> object:
    return getattr(import_module("scipy.ndimage"), name)
