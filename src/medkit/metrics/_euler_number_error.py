"""By how much the Euler numbers of two masks differ."""

import itertools
import math
from functools import lru_cache

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from ._mask_score import CaseMasks, MaskScore, score_masks, spatial_size
from ._scores import Scores
from ._surface_elements import cube_codes


def euler_number_error(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    *,
    num_classes: int | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    mask: Shaped[Tensor, "batch ..."] | None = None,
) -> Scores:
    r"""Return by how much the Euler numbers of two masks differ.

    .. math:: |\chi(P) - \chi(T)|, \quad \chi = b_0 - b_1 + b_2

    the number of parts less that of tunnels, and in 3D more by that of cavities, with corners
    touching (26 neighbours in 3D, 8 in 2D). Use it beside ``betti_zero_error`` for vessels, walls
    and sheets: it also sees a loop that is closed and a hole that is torn. Errors of two kinds may
    cancel each other.

    A structure missed or invented has a number that no two masks of this image exceed: 5/4, in
    2D 3/4, for every corner of a voxel. So missing one never improves a mean; where both are
    empty the value is NaN.

    Args:
        prediction: Class map ``(batch, *spatial)`` or ``(batch, 1, *spatial)`` of integers, or
            boolean masks ``(batch, channel, *spatial)``; two or three spatial axes.
        target: Truth in the form of ``prediction``.
        num_classes: Number of classes of the maps; None for masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that belong to no structure, whatever is predicted
            there; for class maps only. None counts all.
        mask: Voxels that count, boolean; others belong to no structure. None counts all.

    Returns:
        Values and statuses per case and class.

    Raises:
        TypeError: If a segmentation is neither of integers nor of booleans.
        ValueError: If shapes differ or a label is no class.

    Example:
        >>> import torch
        >>> ring = torch.ones(1, 1, 5, 5, dtype=torch.bool)
        >>> ring[..., 2, 2] = False
        >>> disc = torch.ones_like(ring)
        >>> euler_number_error(disc, ring).values.item()  # one part less one hole, and one part
        1.0

    References:
        S. B. Gray, "Local Properties of Binary Images in Two Dimensions", IEEE Transactions on
        Computers 20, 1971. J. Ohser, W. Nagel, K. Schladitz, "The Euler Number of Discretized
        Sets", in "Morphology of Condensed Matter", Springer 2002: tables of eight voxels.
    """
    size = spatial_size(prediction, target)
    table = _shares(len(size))
    worst = (int(table.max()) - int(table.min())) / 2 ** len(size) * math.prod(n + 1 for n in size)
    return score_masks(
        prediction,
        target,
        _difference,
        num_classes=num_classes,
        include_background=include_background,
        ignore_index=ignore_index,
        mask=mask,
        worst=worst,
        perfect=0.0,
    )


def _difference(case: CaseMasks) -> float:
    return float(abs(_euler_number(case.prediction) - _euler_number(case.target)))


def _euler_number(mask: np.ndarray) -> int:
    """Return the Euler number of the union of the voxels of a mask, each with its border."""
    counts = np.bincount(cube_codes(mask).ravel(), minlength=2 ** (2**mask.ndim))
    return int(counts @ _shares(mask.ndim)) // 2**mask.ndim


@lru_cache(maxsize=2)
def _shares(dims: int) -> np.ndarray:
    """Return what each corner of voxels adds to the Euler number, in eighths (quarters in 2D).

    Corners less edges and more faces less voxels: around a corner, half of every edge, a quarter
    of every face and an eighth of every voxel belong to it. Each is there if a voxel on it is.
    """
    corners = list(itertools.product((0, 1), repeat=dims))
    shares = np.zeros(2 ** len(corners), dtype=np.int64)
    for fixed in itertools.product((None, 0, 1), repeat=dims):
        loose = fixed.count(None)
        on_it = [all(f in (None, x) for f, x in zip(fixed, c, strict=True)) for c in corners]
        bits = int("".join(str(int(on)) for on in on_it), 2)
        there = np.arange(len(shares)) & bits > 0
        shares += there * (-1) ** (dims - loose) * 2**loose
    return shares


class EulerNumberError(MaskScore):
    """Difference of Euler numbers over any number of batches.

    It keeps one value and one status per case and class, so that results are the same bit for bit
    however cases are batched or split over processes.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that belong to no structure.

    Example:
        >>> import torch
        >>> metric = EulerNumberError(2, include_background=False)
        >>> truth = torch.zeros(1, 8, 8, dtype=torch.int64)
        >>> truth[:, 2:4, 1:7] = 1
        >>> metric.update(truth, truth)
        >>> metric.compute().mean()
        0.0

    References:
        S. B. Gray, "Local Properties of Binary Images in Two Dimensions", IEEE Transactions on
        Computers 20, 1971; see ``euler_number_error``.
    """

    perfect: float = 0.0

    def score(
        self,
        prediction: Shaped[Tensor, "batch ..."],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None,
    ) -> Scores:
        """Return the scores of a batch of cases, which are not kept.

        Args:
            prediction: Class map or boolean masks.
            target: Truth in the form of ``prediction``.
            mask: Voxels that count; None counts all.
        """
        return euler_number_error(
            prediction,
            target,
            num_classes=self.num_classes,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            mask=mask,
        )
