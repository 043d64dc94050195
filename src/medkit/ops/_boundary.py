"""Layers of an image, as a class map and as the rows where they begin."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Integer, Num
from torch import Tensor

from medkit._core import check

from ._one_hot import class_index


def boundaries_to_mask(
    boundaries: Num[Tensor, "*batch boundary width"], *, height: int, ignore_index: int = 255
) -> Integer[Tensor, "*batch {height} width"]:
    r"""Fill the layers between boundaries with their class.

    .. math:: m(y, x) = |\{k : \mathrm{round}(b_k(x)) \le y\}|

    Use it to turn annotated lines, such as ILM and BM of a retinal OCT, into a target for
    segmentation. A boundary is the number of rows above it, so rows 0 to ``round(b_0)`` - 1 are
    class 0, the next ones up to ``round(b_1)`` - 1 class 1, and so on; halves are rounded to even.
    Boundaries that cross are put in order, those outside the image lie at its edge.

    Args:
        boundaries: Rows, one line after the other, for each column; NaN where nobody looked.
        height: Number of rows.
        ignore_index: Class of all rows of a column in which a boundary is NaN, so that a loss
            can leave the column out.

    Returns:
        Classes 0 to the number of boundaries, int64.

    Raises:
        ValueError: If ``height`` is below 1, or ``ignore_index`` is one of the classes.

    Example:
        >>> import torch
        >>> ilm, bm = [0.0, 1.4, torch.nan], [2.0, 2.6, 2.0]
        >>> boundaries_to_mask(torch.tensor([ilm, bm]), height=4)
        tensor([[  1,   0, 255],
                [  1,   1, 255],
                [  2,   1, 255],
                [  2,   2, 255]])
    """
    rows = torch.arange(check.integer("height", height, minimum=1), device=boundaries.device)
    if 0 <= ignore_index <= boundaries.shape[-2]:
        raise check.fail("ignore_index", f"no class (0 to {boundaries.shape[-2]})", ignore_index)
    shape = (*boundaries.shape[:-2], height, boundaries.shape[-1])
    mask = torch.zeros(shape, dtype=torch.int64, device=boundaries.device)
    for boundary in boundaries.unbind(-2):
        mask += rows[:, None] >= boundary.round().unsqueeze(-2)
    unknown = boundaries.isnan().any(-2, keepdim=True)
    return torch.where(unknown, ignore_index, mask)


def mask_to_boundaries(
    mask: Integer[Tensor, "*batch height width"],
    *,
    num_classes: int,
    ignore_index: int | None = 255,
    missing: Literal["nan", "bottom"] = "nan",
) -> Float[Tensor, "*batch {num_classes}-1 width"]:
    r"""Find the row where each layer begins, column by column.

    .. math:: b_k(x) = \min\{y : m(y, x) \ge k\}, \quad k = 1, \ldots, C - 1

    Use it to measure layers in a class map, or to train on one with a loss on boundaries. It
    undoes :func:`boundaries_to_mask`. The first layer may begin at row 0. The boundaries are always
    in order, also where the classes of a column are not: a row of class 2 ends class 0 and class 1.

    Args:
        mask: Class of each voxel.
        num_classes: Number of classes C; there is one boundary less.
        ignore_index: Class of voxels that say nothing. A boundary is NaN where the row above it is
            such a voxel, since it may lie higher; so is one of a column of nothing else. None
            allows no such class.
        missing: Value of a boundary that no row of the column lies below: "nan", or "bottom" for
            the number of rows, as the mask of such a boundary has it.

    Returns:
        Rows, float32.

    Raises:
        TypeError: If ``mask`` are not integers.
        ValueError: If a class is out of range.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[0, 1, 255], [1, 1, 255], [2, 1, 255]])
        >>> mask_to_boundaries(mask, num_classes=3)
        tensor([[1., 0., nan],
                [2., nan, nan]])
    """
    check.integer("num_classes", num_classes, minimum=2)
    check.one_of("missing", missing, ("nan", "bottom"))
    index, known = class_index(
        mask, num_classes=num_classes, ignore_index=ignore_index, name="mask"
    )
    height = mask.shape[-2]
    rows: list[Tensor] = []
    for k in range(1, num_classes):
        below = index >= k if known is None else (index >= k) & known
        found = below.any(-2)
        row = torch.where(found, below.byte().argmax(-2), height)
        unclear = ~found if missing == "nan" else torch.zeros_like(found)
        if known is not None:
            above = known.gather(-2, (row - 1).clamp(min=0).unsqueeze(-2)).squeeze(-2)
            unclear = unclear | ((row > 0) & ~above)
        rows.append(row.float().masked_fill(unclear, torch.nan))
    return torch.stack(rows, dim=-2)


def rescale_boundaries(
    boundaries: Float[Tensor, "*batch boundary width"],
    *,
    from_shape: Sequence[int],
    to_shape: Sequence[int],
    origin: Literal["edge", "center"] = "edge",
) -> Float[Tensor, "*batch boundary new_width"]:
    r"""Move boundaries from an image to the same image at another size.

    .. math:: b' = b\,H'/H \quad\text{or}\quad b' = (b + \tfrac12)\,H'/H - \tfrac12

    Use it to compare predictions made on a resized image with annotations of the original one: a
    line left in rows of the small image is wrong by as much as the sizes differ. Columns are
    interpolated between their centres, as a resized image is (``align_corners=False``), and
    beyond the outermost centres repeat the outermost column.

    Args:
        boundaries: Rows of the image of ``from_shape``; NaN where unknown. A new column is NaN if
            one of the columns it lies between is.
        from_shape: Height H and width of the image the rows are of.
        to_shape: Height H' and width of the image to move to.
        origin: Where row 0 is measured: "edge", the upper edge of the first row, so that a
            boundary is the number of rows above it, as everywhere in medkit; or "center", the
            centre of the first row, as for coordinates of pixels.

    Returns:
        Rows of the image of ``to_shape``, one per column of it.

    Raises:
        ValueError: If a shape is not a positive height and width, or ``boundaries`` does not have
            the width of ``from_shape``.

    Example:
        >>> import torch
        >>> lines = torch.tensor([[120.0, 123.0]])
        >>> rescale_boundaries(lines, from_shape=(480, 2), to_shape=(496, 2))
        tensor([[124.0000, 127.1000]])
    """
    check.one_of("origin", origin, ("edge", "center"))
    height, width = _height_and_width("from_shape", from_shape)
    new_height, new_width = _height_and_width("to_shape", to_shape)
    if boundaries.shape[-1] != width:
        rule = f"of the width of from_shape, {width}"
        raise check.fail("boundaries", rule, f"shape {tuple(boundaries.shape)}")
    offset = 0.0 if origin == "edge" else 0.5
    moved = (boundaries + offset) * (new_height / height) - offset
    return moved if new_width == width else _resample_columns(moved, new_width)


def _height_and_width(name: str, shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) != 2:
        raise check.fail(name, "a height and a width", tuple(shape))
    height, width = (check.integer(name, size, minimum=1) for size in shape)
    return height, width


def _resample_columns(boundaries: Tensor, new_width: int) -> Tensor:
    width = boundaries.shape[-1]
    centres = torch.arange(new_width, dtype=boundaries.dtype, device=boundaries.device) + 0.5
    position = (centres * (width / new_width) - 0.5).clamp(0, width - 1)
    left = position.floor()
    right = position.ceil().long()
    left_value, right_value = boundaries[..., left.long()], boundaries[..., right]
    between = torch.lerp(left_value, right_value, position - left)
    return torch.where(position == left, left_value, between)
