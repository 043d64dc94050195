"""Rows of layer boundaries, along the warp of their image."""

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from medkit._core import check

from ._warp import Warp

Numbers = npt.NDArray[np.float64]

_ROUNDING = 1e-6  # of columns


def move_boundaries(
    boundaries: Float[Tensor, "boundary width"], warp: Warp
) -> Float[Tensor, "boundary new_width"]:
    """Return the rows of layer boundaries on the new grid of a warp.

    A boundary is a line through its row in each column. Its points move with the image, between
    pixels too, and the line is read off in the new columns. Spatial transforms do so for the key
    ``boundaries`` of a sample.

    Args:
        boundaries: Rows on the old grid, counted from the upper edge of the first row, so that a
            boundary is the number of rows above it; NaN where unknown.
        warp: Of the image, in two dimensions.

    Returns:
        Rows from 0 to the new height. NaN where a neighbour is unknown, where the line does not
        reach, and where it would run through a column more than once.

    Raises:
        ValueError: If ``boundaries`` do not have the width of the old grid, or the warp turns the
            layers upside down or on their side: their classes would be wrong.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> down = Warp(np.array([[1.0, 0, -3], [0, 1, 0], [0, 0, 1]]), (8, 4), (8, 4))
        >>> move_boundaries(torch.tensor([[2.5, 2.5, torch.nan, 4.0]]), down)
        tensor([[5.5000, 5.5000,    nan, 7.0000]])
    """
    if len(warp.old_size) != 2 or boundaries.shape[-1] != warp.old_size[1]:
        rule = f"of a width for the grid {warp.old_size} of two dimensions"
        raise check.fail("boundaries", rule, f"shape {tuple(boundaries.shape)}")
    if warp.matrix[0, 0] <= 0 or warp.matrix[1, 1] == 0:
        rule = "that leaves the layers one below the other (no flip of rows, no quarter turn)"
        raise check.fail("warp", f"one {rule}", warp.matrix[:-1, :-1].tolist())
    new = np.stack([_line(row, warp) for row in boundaries.detach().cpu().double().numpy()])
    return torch.as_tensor(new.clip(0, warp.size[0])).to(boundaries)


def _line(rows: Numbers, warp: Warp) -> Numbers:
    """Return the row of one line in each new column."""
    number, known = np.arange(float(len(rows))), ~np.isnan(rows)
    if not known.any():
        return np.full(warp.size[1], np.nan)
    filled = np.interp(number, number[known], rows[known])
    points = torch.as_tensor(np.stack([filled - 0.5, number], axis=1))
    placed: Numbers = warp.move_points(points).T.numpy()
    moved: Numbers = placed[0]
    columns: Numbers = placed[1]
    if warp.matrix[1, 1] < 0:
        moved, columns, known = moved[::-1], columns[::-1], known[::-1]
    before, after = np.maximum.accumulate(columns), np.minimum.accumulate(columns[::-1])[::-1]
    once = (columns >= before) & (columns <= after)
    if not once.any():
        return np.full(warp.size[1], np.nan)
    columns = np.interp(number, number[once], columns[once])
    new, reach = np.arange(warp.size[1]), abs(0.5 / warp.matrix[1, 1]) + _ROUNDING
    beyond = (new < columns[0] - reach) | (new > columns[-1] + reach)
    doubt = np.interp(new, columns, (~(known & once)).astype(float)) > _ROUNDING
    return np.where(beyond | doubt, np.nan, np.interp(new, columns, moved + 0.5))
