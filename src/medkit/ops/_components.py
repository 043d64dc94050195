"""Connected components of masks and class maps, and what is cleaned by them."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int32, Shaped
from torch import Tensor

from medkit._core import check

from . import _ndimage

Connectivity = Literal[4, 6, 8, 18, 26]
Together = Literal["class", "foreground"]

_REACH = {2: {4: 1, 8: 2}, 3: {6: 1, 18: 2, 26: 3}}
"""Along how many axes at once a neighbour may differ, by spatial axes and connectivity."""

_COUNTABLE = 1 << 16  # values that are worth a table
_Kept = Callable[[np.ndarray], np.ndarray]
"""Which components stay, by the number of voxels of each; the first is the background."""


def connected_components(
    mask: Shaped[Tensor, "batch channel *spatial"], *, connectivity: Connectivity
) -> Int32[Tensor, "batch channel *spatial"]:
    """Number the connected parts of each mask from 1, in reading order of their first voxels.

    Use it to count lesions, to measure or score them one by one, or to see where a vessel is
    broken. Each sample and channel is numbered by itself. SciPy does the work, on the CPU.

    Args:
        mask: What is not zero or False belongs to a part; boolean or integers, two or three
            spatial axes.
        connectivity: How many neighbours of a voxel touch it: in 2D 4 (sides) or 8 (corners too),
            in 3D 6 (faces), 18 (edges too) or 26 (corners too).

    Returns:
        The number of the part of each voxel, 0 outside of the mask. The largest number of a mask
        is the number of its parts.

    Raises:
        TypeError: If ``mask`` is neither boolean nor integers.
        ValueError: If it has not two or three spatial axes, or ``connectivity`` is for another
            number of them.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[[1, 0, 0, 1], [0, 1, 0, 1]]]])
        >>> connected_components(mask, connectivity=4)[0, 0]
        tensor([[1, 0, 0, 2],
                [0, 3, 0, 2]], dtype=torch.int32)
        >>> connected_components(mask, connectivity=8).amax().item()
        2
    """
    neighbours = _neighbours(mask, "mask", connectivity)
    images = (mask != 0).cpu().numpy()
    parts = np.empty(images.shape, np.int32)
    for place in np.ndindex(*images.shape[:2]):
        parts[place] = _ndimage.label(images[place], neighbours)[0]
    return torch.as_tensor(parts).to(mask.device)


def keep_largest_component(
    labels: Shaped[Tensor, "batch channel *spatial"],
    *,
    connectivity: Connectivity,
    classes: Sequence[int] | None = None,
    per: Together = "class",
) -> Shaped[Tensor, "batch channel *spatial"]:
    """Set everything but the largest connected part to zero, for each class or for all together.

    Use it after segmentation where anatomy allows one piece only: a liver, a left ventricle.
    Where parts are equally large, the one whose first voxel comes first in reading order stays.

    Args:
        labels: Masks, or class maps with background 0; boolean or integers, two or three spatial
            axes. Each sample and channel is cleaned by itself.
        connectivity: How many neighbours of a voxel touch it, as in :func:`connected_components`.
        classes: Classes to clean; the others stay as they are. None means all above or below 0.
        per: "class" keeps the largest part of each class; "foreground" takes the classes together
            as one structure, such as an organ and the tumour in it.

    Returns:
        The cleaned labels, a new tensor of the same type.

    Raises:
        TypeError: If ``labels`` are neither boolean nor integers.
        ValueError: If ``labels`` have not two or three spatial axes, or an option is unknown.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[[[1, 2, 2, 0, 1, 1, 0, 2]]]])
        >>> keep_largest_component(labels, connectivity=4)
        tensor([[[[0, 2, 2, 0, 1, 1, 0, 0]]]])
        >>> keep_largest_component(labels, connectivity=4, per="foreground")
        tensor([[[[1, 2, 2, 0, 0, 0, 0, 0]]]])
    """

    def largest(sizes: np.ndarray) -> np.ndarray:
        return np.arange(len(sizes)) == 1 + int(sizes[1:].argmax())

    return _keep(labels, connectivity, classes, per, largest)


def remove_small_components(
    labels: Shaped[Tensor, "batch channel *spatial"],
    *,
    connectivity: Connectivity,
    min_voxels: int,
    classes: Sequence[int] | None = None,
    per: Together = "class",
) -> Shaped[Tensor, "batch channel *spatial"]:
    """Set connected parts of less than ``min_voxels`` voxels to zero.

    Use it after segmentation to take away specks. For a size in mm, divide by the volume of a
    voxel.

    Args:
        labels: Masks, or class maps with background 0, as in :func:`keep_largest_component`.
        connectivity: How many neighbours of a voxel touch it, as in :func:`connected_components`.
        min_voxels: Voxels of the smallest part that stays.
        classes: Classes to clean; the others stay as they are. None means all but 0.
        per: "class" measures the parts of each class; "foreground" takes the classes together.

    Returns:
        The cleaned labels, a new tensor of the same type.

    Raises:
        TypeError: If ``labels`` are neither boolean nor integers.
        ValueError: If ``labels`` have not two or three spatial axes, or an option is out of range.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[[[3, 3, 0, 3, 0, 3, 3]]]])
        >>> remove_small_components(labels, connectivity=4, min_voxels=2)
        tensor([[[[3, 3, 0, 0, 0, 3, 3]]]])
    """
    least = check.integer("min_voxels", min_voxels, minimum=1)
    return _keep(labels, connectivity, classes, per, lambda sizes: sizes >= least)


def fill_holes(
    mask: Bool[Tensor, "batch channel *spatial"], *, connectivity: Connectivity
) -> Bool[Tensor, "batch channel *spatial"]:
    """Fill what a mask encloses: background that no path connects with the edge of the image.

    Use it after segmentation of solid structures. In 3D a tunnel is no hole; for holes of slices
    make each slice a sample.

    Args:
        mask: Boolean masks with two or three spatial axes; each sample and channel by itself.
        connectivity: Through how many neighbours a path may lead, as in
            :func:`connected_components`. 4 or 6 fills what a wall with diagonal joints encloses.

    Returns:
        The filled masks, a new tensor.

    Raises:
        TypeError: If ``mask`` is not boolean.
        ValueError: If it has not two or three spatial axes, or ``connectivity`` is for another
            number of them.

    Example:
        >>> import torch
        >>> ring = torch.tensor([[[[0, 1, 0], [1, 0, 1], [0, 1, 0]]]]) > 0
        >>> [int(fill_holes(ring, connectivity=paths).sum()) for paths in (4, 8)]
        [5, 4]
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean; got {mask.dtype}")
    parts = connected_components(~mask, connectivity=connectivity).cpu().numpy()
    filled = np.empty(parts.shape, np.bool_)
    for place in np.ndindex(*parts.shape[:2]):
        image = parts[place]
        open_to_edge = np.zeros(int(image.max()) + 1, np.bool_)
        for axis in range(image.ndim):
            open_to_edge[image.take(0, axis)] = True
            open_to_edge[image.take(-1, axis)] = True
        open_to_edge[0] = False  # the mask itself
        filled[place] = ~open_to_edge[image]
    return torch.as_tensor(filled).to(mask.device)


def _keep(
    labels: Tensor,
    connectivity: Connectivity,
    classes: Sequence[int] | None,
    per: Together,
    kept: _Kept,
) -> Tensor:
    """Return the labels with zeros in the parts that do not stay."""
    check.one_of("per", per, ("class", "foreground"))
    neighbours = _neighbours(labels, "labels", connectivity)
    result = labels.cpu().numpy().copy()
    for place in np.ndindex(*result.shape[:2]):
        image = result[place]
        chosen = _classes(image) if classes is None else [c for c in classes if c]
        groups = [chosen] if per == "foreground" else [[one] for one in chosen]
        for group in groups:
            mask = np.isin(image, group)
            parts, number = _ndimage.label(mask, neighbours)
            if number:
                stays = kept(np.bincount(parts.ravel()))
                stays[0] = True
                image[~stays[parts]] = 0
    return torch.as_tensor(result).to(labels.device)


def _classes(image: np.ndarray) -> list[int]:
    """Return the values of an image that are not zero; counting is faster than sorting."""
    if image.dtype == np.bool_:
        return [1]
    if image.min() >= 0 and image.max() < _COUNTABLE:
        return [value for value in np.flatnonzero(np.bincount(image.ravel())).tolist() if value]
    return [value for value in np.unique(image).tolist() if value]


def _neighbours(mask: Tensor, name: str, connectivity: int) -> np.ndarray:
    """Return which of the voxels around one touch it."""
    _ndimage.check_masks(name, mask)
    spatial_dims = mask.ndim - 2
    reach = _REACH[spatial_dims]
    if connectivity not in reach:
        rule = f"one of {', '.join(map(str, reach))} for {spatial_dims} spatial axes"
        raise check.fail("connectivity", rule, connectivity)
    steps = np.abs(np.indices((3,) * spatial_dims) - 1).sum(0)
    return steps <= reach[connectivity]
