"""Patches drawn by a map of weights."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check

from ._any_case import AnyCase, in_memory
from ._case_rules import case_rules
from ._dataset import Case
from ._patch_place import VoxelTable, comparable, place_around, voxel_in_row
from ._patch_samplers import PatchDraw


class WeightedPatchSampler:
    """Draws the middle of a patch by a map of weights: vessels, uncertain places, a prior.

    The middle voxel, at index n // 2 of n, is drawn with a probability proportional to its weight.
    A patch that would stick out is moved into the volume.

    Args:
        weights: Gives the map of a case: a tensor (D, H, W) or (1, D, H, W) on its grid, zero or
            more everywhere; boolean, integer or floating-point. It is called once for each case.
        without_weight: What to do with cases whose map is 0 everywhere: ``"error"`` names them
            all, ``"uniform"`` draws their patches anywhere.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import Case, Volume
        >>> image = torch.zeros(1, 99, 99, 99)
        >>> image[0, 50, 60, 70] = 0.1
        >>> case = Case(Volume(image, np.eye(4)), None, "a")
        >>> (draw,) = WeightedPatchSampler(lambda case: case.image.data).prepare([case])
        >>> draw.start(case, (5, 5, 5), np.random.default_rng(0))
        (48, 58, 68)
    """

    def __init__(
        self,
        weights: Callable[[Case], Shaped[Tensor, "..."]],
        *,
        without_weight: Literal["error", "uniform"] = "error",
    ) -> None:
        check.one_of("without_weight", without_weight, ("error", "uniform"))
        self.weights: Callable[[Case], Tensor] = weights
        self.without_weight: Literal["error", "uniform"] = without_weight

    def prepare(self, cases: Iterable[AnyCase]) -> Sequence[PatchDraw]:
        """Compute the map of every case and add it up, so that drawing from it is cheap.

        Args:
            cases: The cases in order.

        Returns:
            One rule per case, which holds its map.

        Raises:
            ValueError: If a map has another shape, a negative weight or one that is not finite,
                or is 0 everywhere under ``"error"``; the message names the cases.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> from medkit.data import Case, Volume
            >>> case = Case(Volume(torch.zeros(1, 9, 9, 9), np.eye(4)), None, "scan 7")
            >>> WeightedPatchSampler(lambda case: case.image.data).prepare([case])
            Traceback (most recent call last):
            ValueError: weights must be above 0 somewhere, ...; got 0 everywhere in 'scan 7'
        """
        return case_rules(
            cases,
            lambda case: _Weighted(_checked(self.weights(in_memory(case)), case)),
            name="weights",
            rule="above 0 somewhere, or without_weight='uniform'",
            without=self.without_weight,
            found="0 everywhere",
        )


class _Weighted:
    """A map of weights and its table."""

    def __init__(self, weights: Shaped[Tensor, "depth height width"]) -> None:
        self._weights = weights
        self._table = VoxelTable(weights)
        self.total = self._table.total

    def start(
        self, case: AnyCase, patch_size: Sequence[int], generator: np.random.Generator
    ) -> tuple[int, ...]:
        if not self.total:
            return place_around(case, patch_size, generator, None)
        number = generator.random() * self.total
        d, h, before = self._table.row(number)
        middle = (d, h, voxel_in_row(self._weights[d, h], number - before))
        return place_around(case, patch_size, generator, middle)


def _checked(weights: Tensor, case: AnyCase) -> Tensor:
    check.kind("weights", weights, Tensor, "a function that returns a tensor")
    shape = case.image.spatial_shape
    if tuple(weights.shape) not in (shape, (1, *shape)):
        rule = f"of the shape of {case.id!r}, {shape}"
        raise check.fail("weights", rule, tuple(weights.shape))
    weights = comparable(weights.reshape(shape))
    if weights.is_floating_point() and not bool(weights.isfinite().all()):
        raise check.fail("weights", "finite", f"NaN or infinity in {case.id!r}")
    if bool((weights < 0).any()):
        raise check.fail("weights", "0 or more", f"{weights.min().item()} in {case.id!r}")
    return weights
