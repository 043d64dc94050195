"""Erosion, dilation and opening of probabilities."""

from collections.abc import Callable, Iterator
from typing import Literal, Protocol, cast

import torch
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check

from ._chunks import CPU_ELEMENTS, DEVICE_ELEMENTS, Context, wide_dtype
from ._neighbourhood import dilate_with, erode_into, to_positions_, voxel_keys

Images = Shaped[Tensor, "batch channel *spatial"]
"""Floating-point images or boolean masks, two or three spatial axes."""

_Step = Literal["erode", "dilate", "open"]


def soft_erode(x: Images) -> Images:
    r"""Return the smallest value among each voxel and its 4 (2D) or 6 (3D) neighbours.

    .. math:: E(x)_v = \min_{u:\ |u - v|_1 \le 1} x_u

    Use it on probabilities, or on boolean masks. Voxels outside the image have no part in it.
    The values are those of clDice, MONAI and medicai. The gradient goes to the voxel that is the
    smallest, to the first in memory among equal ones.

    Args:
        x: Probabilities, or any values; or masks.

    Returns:
        The eroded images, in the type of ``x``.

    Raises:
        TypeError: If ``x`` is neither floating point nor boolean.
        ValueError: If ``x`` has not two or three spatial axes.

    Example:
        >>> import torch
        >>> soft_erode(torch.tensor([[[[0.9, 0.8, 0.7, 0.2]]]]))
        tensor([[[[0.8000, 0.7000, 0.2000, 0.2000]]]])

    References:
        Shit et al., "clDice: a novel topology-preserving loss function for tubular structure
        segmentation", CVPR 2021, section 3.3.
    """
    return _apply(x, "erode")


def soft_dilate(x: Images) -> Images:
    r"""Return the largest value in the square (2D) or cube (3D) of 3 voxels around each voxel.

    .. math:: D(x)_v = \max_{u:\ |u - v|_\infty \le 1} x_u

    Use it on probabilities, or on boolean masks. Voxels outside the image have no part in it.
    The values are those of clDice, MONAI and medicai. The gradient goes to the voxel that is the
    largest, to the last in memory among equal ones.

    Args:
        x: Probabilities, or any values; or masks.

    Returns:
        The dilated images, in the type of ``x``.

    Raises:
        TypeError: If ``x`` is neither floating point nor boolean.
        ValueError: If ``x`` has not two or three spatial axes.

    Example:
        >>> import torch
        >>> soft_dilate(torch.tensor([[[[0.9, 0.8, 0.7, 0.2]]]]))
        tensor([[[[0.9000, 0.9000, 0.8000, 0.7000]]]])

    References:
        Shit et al., "clDice: a novel topology-preserving loss function for tubular structure
        segmentation", CVPR 2021, section 3.3.
    """
    return _apply(x, "dilate")


def soft_open(x: Images) -> Images:
    r"""Return the images eroded and then dilated: what is thinner than 3 voxels is gone.

    .. math:: O(x) = D(E(x))

    Use it to find what an opening removes. Erosion and dilation use different neighbourhoods, so
    that the result may be larger than ``x`` at some voxels. The gradient goes to the voxel whose
    value is found, among equal ones to the one that the rules of both steps choose.

    Args:
        x: Probabilities, or any values; or masks.

    Returns:
        The opened images, in the type of ``x``.

    Raises:
        TypeError: If ``x`` is neither floating point nor boolean.
        ValueError: If ``x`` has not two or three spatial axes.

    Example:
        >>> import torch
        >>> soft_open(torch.tensor([[[[0.1, 0.9, 0.1, 0.8, 0.8, 0.8]]]]))
        tensor([[[[0.1000, 0.1000, 0.1000, 0.8000, 0.8000, 0.8000]]]])

    References:
        Shit et al., "clDice: a novel topology-preserving loss function for tubular structure
        segmentation", CVPR 2021, section 3.3.
    """
    return _apply(x, "open")


def check_images(x: Tensor) -> None:
    """Raise unless ``x`` holds 2D or 3D images of probabilities or masks."""
    if not x.is_floating_point() and x.dtype != torch.bool:
        raise TypeError(f"x must be floating point or boolean; got {x.dtype}")
    if x.ndim not in (4, 5) or 0 in x.shape[2:]:
        rule = "(batch, channel, *spatial) with two or three spatial axes, none of them empty"
        raise check.fail("x", rule, f"shape {tuple(x.shape)}")


def rows(x: Tensor) -> Iterator[slice]:
    """Yield the rows of ``(row, *spatial)`` in groups that fit in the processor's cache.

    A graph that is being compiled gets all rows at once.
    """
    budget = CPU_ELEMENTS if x.device.type == "cpu" else DEVICE_ELEMENTS
    group = max(1, budget // max(1, x[:1].numel()))
    if torch.compiler.is_compiling():
        group = max(1, x.shape[0])
    for first in range(0, x.shape[0], group):
        yield slice(first, first + group)


def _apply(x: Tensor, step: _Step) -> Tensor:
    check_images(x)
    images = x.reshape(-1, *x.shape[2:])
    if x.dtype == torch.bool:
        return _moved(images.view(torch.uint8), step).view(torch.bool).view(x.shape)
    apply = cast("Callable[..., Tensor]", _Selection.apply)  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
    return apply(images, step).view(x.shape)


def _moved(images: Tensor, step: _Step) -> Tensor:
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    for group in rows(images):
        result[group] = _moved_group(images[group].contiguous(), step)
    return result


def _moved_group(x: Tensor, step: _Step) -> Tensor:
    one = torch.empty_like(x)
    if step != "dilate":
        erode_into(one, x)
        if step == "erode":
            return one
        x, one = one, torch.empty_like(x)
    return dilate_with(x, one, torch.empty_like(x))


class _Context(Context, Protocol):
    step: _Step


class _Selection(torch.autograd.Function):
    """A step whose every result is a copy of one voxel, to which the gradient goes."""

    @staticmethod
    def forward(images: Tensor, step: _Step) -> Tensor:
        """Return the result of the step."""
        return _moved(images, step)

    @staticmethod
    def setup_context(
        ctx: _Context,
        inputs: tuple[Tensor, _Step],
        output: Tensor,  # noqa: ARG004  torch's form
    ) -> None:
        """Keep the images, which the caller holds anyway."""
        images, ctx.step = inputs
        ctx.save_for_backward(images)

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient, moved to where the values came from."""
        (images,) = ctx.saved_tensors
        (gradient,) = gradients
        parts = [_origins(images[group], gradient[group], ctx.step) for group in rows(images)]
        return torch.cat(parts) if parts else torch.zeros_like(images), None


def _origins(x: Tensor, gradient: Tensor, step: _Step) -> Tensor:
    """Return the gradient of some rows; it can be differentiated by ``gradient``."""
    origin = to_positions_(_moved_group(voxel_keys(x.contiguous()), step)).flatten()
    moved = gradient.new_zeros(x.numel(), dtype=wide_dtype(x))
    moved = moved.scatter_add(0, origin, gradient.flatten().to(moved.dtype))
    return moved.view(x.shape).to(x.dtype)
