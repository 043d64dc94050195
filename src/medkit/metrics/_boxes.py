"""The boxes of structures: what two masks are cropped to before anything slow is done to them."""

from collections.abc import Callable
from importlib import import_module
from typing import cast

import numpy as np

Box = tuple[slice, ...]


def mask_box(mask: np.ndarray) -> Box | None:
    """Return the smallest box that holds a boolean mask, or None if it is empty."""
    box: list[slice] = []
    rest = mask
    for _ in range(mask.ndim):
        inside = np.flatnonzero(rest.reshape(len(rest), -1).any(1))
        if not len(inside):
            return None
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
        rest = np.logical_or.reduce(rest[box[-1]], axis=0)
    return tuple(box)


def class_boxes(labels: np.ndarray, num_classes: int) -> list[Box | None]:
    """Return the box of each class of a class map in one pass, except that of class 0.

    Args:
        labels: Class map; labels that are no class belong to no box.
        num_classes: Number of classes.
    """
    find = cast("Callable[..., list[Box | None]]", import_module("scipy.ndimage").find_objects)
    return [None, *find(labels, max_label=num_classes - 1)] if num_classes > 1 else [None]


def joint_box(first: Box, second: Box) -> Box:
    """Return the smallest box that holds two boxes."""
    pairs = zip(first, second, strict=True)
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in pairs)
