"""Dilation, erosion, closing and opening of masks by structuring elements."""

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from medkit._core import check


def binary_dilation(
    mask: Bool[Tensor, "batch channel *spatial"], *, element: Bool[Tensor, "*size"]
) -> Bool[Tensor, "batch channel *spatial"]:
    r"""Put the structuring element on every voxel of a mask.

    .. math:: M \oplus B = \{m + b : m \in M,\, b \in B\}

    The number of passes over the mask is that of the voxels of the element, of one face of it for
    a box. It runs where the mask is.

    Args:
        mask: Boolean masks; each sample and channel by itself.
        element: One axis per spatial axis of the mask, of odd sizes, e.g. from
            :func:`ball_element`; its middle lies on the voxel.

    Raises:
        TypeError: If ``mask`` or ``element`` is not boolean.
        ValueError: If the axes of ``element`` are not those of the mask, or even in size.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[False, False, True, False]]])
        >>> binary_dilation(mask, element=torch.tensor([True, True, False]))
        tensor([[[False,  True,  True, False]]])

    References:
        P. Soille, "Morphological Image Analysis", 2nd edition, 2003, equation 3.9.
    """
    _check(mask, element)
    return _dilated(mask, element)


def binary_erosion(
    mask: Bool[Tensor, "batch channel *spatial"], *, element: Bool[Tensor, "*size"]
) -> Bool[Tensor, "batch channel *spatial"]:
    r"""Keep the voxels at which the structuring element fits into the mask.

    .. math:: M \ominus B = \{v : v + b \in M \ \text{for all}\ b \in B\}

    What lies outside of the image counts as mask, so that the edge of the image erodes nothing.

    Args:
        mask: Boolean masks; each sample and channel by itself.
        element: As in :func:`binary_dilation`.

    Raises:
        TypeError: If ``mask`` or ``element`` is not boolean.
        ValueError: If the axes of ``element`` are not those of the mask, or even in size.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[True, True, True, False]]])
        >>> binary_erosion(mask, element=torch.ones(3, dtype=torch.bool))
        tensor([[[ True,  True, False, False]]])

    References:
        P. Soille, "Morphological Image Analysis", 2nd edition, 2003, equation 3.1.
    """
    _check(mask, element)
    return ~_dilated(~mask, element.flip(tuple(range(element.ndim))))


def binary_closing(
    mask: Bool[Tensor, "batch channel *spatial"], *, element: Bool[Tensor, "*size"]
) -> Bool[Tensor, "batch channel *spatial"]:
    r"""Fill the gaps of a mask that the structuring element does not fit into.

    .. math:: M \bullet B = (M \oplus B) \ominus B

    Use it to join what a threshold tore apart. Nothing of the mask is lost, also at the edge of
    the image, where SciPy's ``binary_closing`` takes voxels away.

    Args:
        mask: Boolean masks; each sample and channel by itself.
        element: As in :func:`binary_dilation`.

    Raises:
        TypeError: If ``mask`` or ``element`` is not boolean.
        ValueError: If the axes of ``element`` are not those of the mask, or even in size.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[True, False, True, False, False, False, True]]])
        >>> binary_closing(mask, element=torch.ones(3, dtype=torch.bool)).int()
        tensor([[[1, 1, 1, 0, 0, 0, 1]]], dtype=torch.int32)

    References:
        P. Soille, "Morphological Image Analysis", 2nd edition, 2003, equation 4.3.
    """
    return binary_erosion(binary_dilation(mask, element=element), element=element)


def binary_opening(
    mask: Bool[Tensor, "batch channel *spatial"], *, element: Bool[Tensor, "*size"]
) -> Bool[Tensor, "batch channel *spatial"]:
    r"""Keep of a mask what the structuring element fits into.

    .. math:: M \circ B = (M \ominus B) \oplus B

    Use it to take away thin bridges and specks.

    Args:
        mask: Boolean masks; each sample and channel by itself.
        element: As in :func:`binary_dilation`.

    Raises:
        TypeError: If ``mask`` or ``element`` is not boolean.
        ValueError: If the axes of ``element`` are not those of the mask, or even in size.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[False, True, False, True, True, True, False]]])
        >>> binary_opening(mask, element=torch.ones(3, dtype=torch.bool)).int()
        tensor([[[0, 0, 0, 1, 1, 1, 0]]], dtype=torch.int32)

    References:
        P. Soille, "Morphological Image Analysis", 2nd edition, 2003, equation 4.1.
    """
    return binary_dilation(binary_erosion(mask, element=element), element=element)


def _check(mask: Tensor, element: Tensor) -> None:
    for name, each in (("mask", mask), ("element", element)):
        if each.dtype != torch.bool:
            raise TypeError(f"{name} must be boolean; got {each.dtype}")
    if element.ndim != mask.ndim - 2 or any(n % 2 == 0 for n in element.shape):
        rule = f"of {mask.ndim - 2} axes of odd sizes"
        raise check.fail("element", rule, f"shape {tuple(element.shape)}")


def _dilated(mask: Tensor, element: Tensor) -> Tensor:
    """Return the union of the mask moved to each voxel of the element; a box goes by axes."""
    if bool(element.all()) and sum(n > 1 for n in element.shape) > 1:
        for axis, length in enumerate(element.shape):
            line = element.new_ones([length if a == axis else 1 for a in range(element.ndim)])
            mask = _dilated(mask, line)
        return mask
    result = torch.zeros_like(mask)
    for voxel in np.argwhere(element.cpu().numpy()).tolist():
        offset = [at - n // 2 for at, n in zip(voxel, element.shape, strict=True)]
        if any(abs(o) >= n for o, n in zip(offset, mask.shape[2:], strict=True)):
            continue
        ours = (..., *(slice(max(o, 0), min(o, 0) or None) for o in offset))
        theirs = (..., *(slice(max(-o, 0), min(-o, 0) or None) for o in offset))
        result[ours] |= mask[theirs]
    return result
