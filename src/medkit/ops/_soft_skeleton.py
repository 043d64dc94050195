"""Soft skeleton."""

from collections.abc import Callable
from typing import Protocol, cast

import torch
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check

from ._chunks import Context, gradient_of, wide_dtype
from ._morphology import Images, check_images, rows
from ._neighbourhood import dilate_with, erode_into, extremes, to_positions_, voxel_keys


def soft_skeletonize(
    x: Images, *, iterations: int = 10, mask: Shaped[Tensor, "batch ..."] | None = None
) -> Images:
    r"""Return the soft skeleton: what openings remove from ever thinner images.

    With erosion :math:`E` and opening :math:`O`, and :math:`x_0 = x`, :math:`x_{j+1} = E(x_j)`

    .. math::
        d_j = \max(x_j - O(x_j), 0), \quad
        s_j = s_{j-1} + \max(d_j - s_{j-1}\,d_j, 0), \quad s_{-1} = 0

    and the result is :math:`s_n` for :math:`n` iterations. Use it on probabilities to compare the
    centre lines of tubes, or the middle layers of sheets; on boolean masks for their skeletons,
    with less memory. Voxels of the skeleton need not touch each other.

    Values equal those of clDice, MONAI and medicai bit for bit in float32. So does the gradient, to
    rounding, wherever no two neighbours are equal. Each :math:`x_j` and :math:`O(x_j)` is a copy of
    one voxel of ``x``; among equal ones it is the first in memory where the smallest is taken and
    the last where the largest is, as if every tie were broken by a tiny amount in the order of
    memory. Where an opening takes nothing away, :math:`d_j = 0` has gradient 0. On a GPU the
    gradient is not the same to the last bit in every run, unless PyTorch is told to be
    deterministic.

    The backward pass goes down the levels again, so that ``x`` and 4 bytes per voxel (8 in float64)
    are kept for it, whatever the number of iterations. On the CPU the loop ends when an erosion
    changes nothing; elsewhere and in a compiled graph, where looking would stall the device, it
    goes on.

    Args:
        x: Probabilities, or masks. Half precision is computed in float32.
        iterations: How many erosions to go down. It must reach half the width, in voxels, of the
            thickest structure: what is left inside after them has no skeleton.
        mask: Voxels that exist, ``(batch, *spatial)`` or ``(batch, 1, *spatial)``. The others are
            treated as those outside the image: they do not erode their neighbours, and their
            skeleton is 0. None for all.

    Returns:
        The skeletons, in the type of ``x``; for probabilities in [0, 1].

    Raises:
        TypeError: If ``x`` is neither floating point nor boolean, or ``mask`` is not boolean.
        ValueError: If ``x`` has not two or three spatial axes, or ``mask`` does not fit.

    Example:
        >>> import torch
        >>> bar = torch.zeros(1, 1, 5, 9, dtype=torch.bool)
        >>> bar[..., 1:4, 1:8] = True
        >>> soft_skeletonize(bar)[0, 0, 2].int()
        tensor([0, 0, 1, 1, 1, 1, 1, 0, 0], dtype=torch.int32)

    References:
        Shit et al., "clDice: a novel topology-preserving loss function for tubular structure
        segmentation", CVPR 2021, algorithm 1.
    """
    check_images(x)
    check.integer("iterations", iterations, minimum=0)
    images = x.reshape(-1, *x.shape[2:])
    outside = None if mask is None else _outside(x, mask)
    if x.dtype == torch.bool:
        return _binary_skeletons(images, outside, iterations).view(x.shape)
    apply = cast("Callable[..., Tensor]", _SoftSkeleton.apply)  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
    return apply(images, outside, iterations).view(x.shape)


def _outside(x: Tensor, mask: Tensor) -> Tensor:
    """Return which voxels of each row are no part of the image."""
    batch, spatial = x.shape[0], tuple(x.shape[2:])
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean; got {mask.dtype}")
    if tuple(mask.shape) not in {(batch, *spatial), (batch, 1, *spatial)}:
        rule = f"(batch, *spatial) or (batch, 1, *spatial), for an x of shape {tuple(x.shape)}"
        raise check.fail("mask", rule, f"shape {tuple(mask.shape)}")
    return ~mask.reshape(batch, 1, *spatial).expand(x.shape).reshape(-1, *spatial)


def _copied(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format)


class _Levels:
    """The erosions of some rows, one at a time, each with its opening; ``x`` is used up."""

    def __init__(self, x: Tensor, outside: Tensor | None) -> None:
        self.outside = outside
        self.low, self.high = extremes(x.dtype)
        self.level = x if outside is None else x.masked_fill_(outside, self.high)
        self.eroded = torch.empty_like(x)
        self._buffers = (torch.empty_like(x), torch.empty_like(x))

    def erode(self) -> bool:
        """Erode the level; return whether that, and so all that follows, changes nothing.

        Where an answer would stall the device, or break the graph that is being compiled, it is
        always no.
        """
        erode_into(self.eroded, self.level)
        if self.outside is not None:
            self.eroded.masked_fill_(self.outside, self.high)
        if self.level.device.type != "cpu" or torch.compiler.is_compiling():
            return False
        return torch.equal(self.eroded, self.level)

    def opened(self) -> Tensor:
        """Return the opening of the level, in a buffer that the next call uses again."""
        if self.outside is None:
            return dilate_with(self.eroded, *self._buffers)
        self.eroded.masked_fill_(self.outside, self.low)
        opened = dilate_with(self.eroded, *self._buffers)
        self.eroded.masked_fill_(self.outside, self.high)
        return opened

    def removed(self) -> Tensor:
        """Return how much the opening takes away, in the buffer of ``opened``."""
        removed = self.opened().neg_().add_(self.level).relu_()
        return removed if self.outside is None else removed.masked_fill_(self.outside, 0)

    def descend(self) -> None:
        """Go on to the erosion."""
        self.level, self.eroded = self.eroded, self.level


def _binary_skeletons(masks: Tensor, outside: Tensor | None, iterations: int) -> Tensor:
    skeletons = torch.zeros_like(masks, memory_format=torch.contiguous_format)
    for group in rows(masks):
        levels = _Levels(
            _copied(masks[group], torch.bool).view(torch.uint8),
            None if outside is None else outside[group],
        )
        for _ in range(iterations + 1):
            if levels.erode():
                break
            skeletons[group] |= levels.level > levels.opened()
            levels.descend()
    return skeletons if outside is None else skeletons.masked_fill_(outside, 0)


def _soft_skeletons(
    x: Tensor, outside: Tensor | None, iterations: int, rest: Tensor | None
) -> Tensor:
    """Return the skeletons of rows, which are used up.

    Multiply ``rest``, unless None, by what each level leaves of 1.
    """
    levels = _Levels(x, outside)
    skeleton, added = torch.zeros_like(x), torch.empty_like(x)
    for _ in range(iterations + 1):
        if levels.erode():
            break
        removed = levels.removed()
        _add(skeleton, removed, added)
        if rest is not None:
            rest.mul_(_left_over(removed, added.sign_()))
        levels.descend()
    return skeleton


def _add(skeleton: Tensor, removed: Tensor, added: Tensor) -> None:
    """Add to a skeleton in place what is removed and not in it yet; write that to ``added``."""
    torch.mul(skeleton, removed, out=added)
    torch.sub(removed, added, out=added).relu_()
    skeleton.add_(added)


def _left_over(removed: Tensor, adds: Tensor) -> Tensor:
    """Return ``1 - removed``, or one where the level adds nothing, in place and never exactly zero.

    The number that replaces zero is lost in rounding everywhere else.
    """
    return removed.mul_(adds).neg_().add_(1).add_(torch.finfo(removed.dtype).eps ** 3)


class _Context(Context, Protocol):
    needs_input_grad: tuple[bool, ...]
    iterations: int


class _SoftSkeleton(torch.autograd.Function):
    r"""Soft skeletons whose gradient is found by going down the levels once more.

    What is left of 1 is :math:`1 - s_n = \prod_j (1 - a_j d_j)`, with :math:`a_j` one where a level
    adds something and zero elsewhere. So the derivative by :math:`d_j` is the product without its
    factor, times :math:`a_j`, and that of :math:`d_j` is one at the voxel that :math:`x_j` copies
    and minus one at the voxel that :math:`O(x_j)` copies. Only the input and the product are kept.
    """

    @staticmethod
    def forward(ctx: _Context, images: Tensor, outside: Tensor | None, iterations: int) -> Tensor:
        """Return the skeletons of ``(row, *spatial)``."""
        skeletons = torch.empty_like(images, memory_format=torch.contiguous_format)
        rest = None
        if ctx.needs_input_grad[0]:
            rest = torch.ones_like(skeletons, dtype=wide_dtype(images))
        for group in rows(images):
            skeletons[group] = _soft_skeletons(
                _copied(images[group], wide_dtype(images)),
                None if outside is None else outside[group],
                iterations,
                None if rest is None else rest[group],
            )
        ctx.save_for_backward(images, outside, rest)
        ctx.iterations = iterations
        return skeletons

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        """Return the gradient of the images."""
        images, outside, rest = ctx.saved_tensors
        (gradient,) = gradients
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():

            def formula(x: Tensor) -> tuple[Tensor]:
                return (_differentiable_skeletons(x, outside, ctx.iterations),)

            return gradient_of(formula, images, (gradient,)), None, None
        result = torch.empty_like(images, memory_format=torch.contiguous_format)
        for group in rows(images):
            result[group] = _gradient(
                _copied(images[group], rest.dtype),
                None if outside is None else outside[group],
                ctx.iterations,
                gradient[group] * rest[group],
            )
        return result, None, None


def _gradient(x: Tensor, outside: Tensor | None, iterations: int, weight: Tensor) -> Tensor:
    """Return the gradient of rows, which are used up.

    ``weight`` is the gradient of the skeleton times the rest.
    """
    keys, levels = _Levels(voxel_keys(x), outside), _Levels(x, outside)
    skeleton, added = torch.zeros_like(x), torch.empty_like(x)
    result = x.new_zeros(x.numel())
    for _ in range(iterations + 1):
        if levels.erode():
            break
        keys.erode()
        removed = levels.removed()
        _add(skeleton, removed, added)
        scale = _left_over(removed, added.sign_()).reciprocal_().mul_(weight).mul_(added)
        opened = to_positions_(keys.opened()).flatten()
        result.scatter_add_(0, to_positions_(keys.level).flatten(), scale.flatten())
        result.scatter_add_(0, opened, scale.neg_().flatten())
        levels.descend()
        keys.descend()
    return result.view(x.shape)


def _differentiable_skeletons(x: Tensor, outside: Tensor | None, iterations: int) -> Tensor:
    """Return the skeletons in plain operations, to be differentiated more than once."""
    keys = _Levels(voxel_keys(_copied(x.detach(), x.dtype)), outside)
    values = x.to(wide_dtype(x)).flatten()
    skeleton = torch.zeros_like(x, dtype=values.dtype)
    for _ in range(iterations + 1):
        if keys.erode():
            break
        opened = values[to_positions_(keys.opened().clone())]
        level = values[to_positions_(keys.level.clone())]
        removed = (level - opened).relu()
        removed = removed if outside is None else removed.masked_fill(outside, 0)
        skeleton = skeleton + (removed - skeleton * removed).relu()
        keys.descend()
    return skeleton.to(x.dtype)
