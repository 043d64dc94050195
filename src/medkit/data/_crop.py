"""A box out of an array, filled where it sticks out."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check


def crop_padded(
    data: Shaped[Tensor, "channel _d _h _w"],
    start: Sequence[int],
    size: Sequence[int],
    fill: float | None,
    *,
    dtype: torch.dtype | None = None,
) -> Shaped[Tensor, "channel d h w"]:
    """Copy a box out of ``data``; what lies outside is ``fill``, or an error when it is None."""

    def copy(box: tuple[slice, ...]) -> Tensor:
        part = data[:, *box]
        return part.to(dtype or data.dtype, copy=True, memory_format=torch.contiguous_format)

    return box_padded(tuple(data.shape[1:]), start, size, fill, copy)


def box_padded(
    shape: Sequence[int],
    start: Sequence[int],
    size: Sequence[int],
    fill: float | None,
    copy: Callable[[tuple[slice, ...]], Tensor],
) -> Tensor:
    """Return a box of a volume of ``shape``; ``copy`` gives what is inside, in new memory."""
    stop = [a + n for a, n in zip(start, size, strict=True)]
    inside = tuple(slice(max(0, a), min(n, b)) for a, b, n in zip(start, stop, shape, strict=True))
    if fill is None and any(a < 0 or b > n for a, b, n in zip(start, stop, shape, strict=True)):
        rule = f"inside the volume {tuple(shape)}, or fill given"
        raise check.fail("start and size", rule, f"{tuple(start)}, {tuple(size)}")
    if any(part.start >= part.stop for part in inside):
        rule = f"a box that meets the volume {tuple(shape)}"
        raise check.fail("start and size", rule, f"{tuple(start)}, {tuple(size)}")
    box = copy(inside)
    if fill is None or list(box.shape[1:]) == list(size):
        return box
    out = box.new_full((box.shape[0], *size), fill)
    d, h, w = (slice(part.start - a, part.stop - a) for part, a in zip(inside, start, strict=True))
    out[:, d, h, w] = box
    return out
