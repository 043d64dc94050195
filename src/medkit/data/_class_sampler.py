"""Patches that see every class equally often, or as often as asked."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Integer
from torch import Tensor

from medkit._core import check

from ._any_case import AnyCase, row_of
from ._case_rules import case_rules, label_of
from ._patch_place import VoxelTable, place, voxel_in_row
from ._patch_samplers import PatchDraw


class ClassBalancedPatchSampler:
    """Draws a class and then a voxel of it: small structures come as often as large ones.

    Of the classes that a case has, one is drawn by its ratio, then one of its voxels, each equally
    likely, then a patch among all that contain it. A class that a case lacks leaves its share to
    the others.

    Args:
        classes: Labels to draw, equally often, or a ratio for each; None means all that the case
            has, 0 too.
        ignore_index: Label that is never drawn.
        without_classes: What to do with cases that have none of them: ``"error"`` names them all,
            ``"uniform"`` draws their patches anywhere.

    Raises:
        ValueError: If there is no class, a ratio is negative, or all are 0.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import Case, Volume
        >>> label = torch.zeros(1, 99, 99, 99, dtype=torch.uint8)
        >>> label[0, 50, 60, 70] = 7
        >>> volume = Volume(label, np.eye(4))
        >>> case = Case(volume, volume, "a")
        >>> (draw,) = ClassBalancedPatchSampler(classes={0: 0.0, 7: 1.0}).prepare([case])
        >>> draw.start(case, (1, 1, 1), np.random.default_rng(0))
        (50, 60, 70)
    """

    def __init__(
        self,
        *,
        classes: Sequence[int] | Mapping[int, float] | None = None,
        ignore_index: int | None = None,
        without_classes: Literal["error", "uniform"] = "error",
    ) -> None:
        check.one_of("without_classes", without_classes, ("error", "uniform"))
        self.ratios: dict[int, float] | None = None if classes is None else _ratios(classes)
        self.ignore_index: int | None = (
            None if ignore_index is None else check.integer("ignore_index", ignore_index)
        )
        self.without_classes: Literal["error", "uniform"] = without_classes

    def prepare(self, cases: Iterable[AnyCase]) -> Sequence[PatchDraw]:
        """Count the voxels of each class in every case, so that drawing from them is cheap.

        Args:
            cases: The cases in order; each needs a label.

        Returns:
            One rule per case. It holds 8 bytes per row of the label and class.

        Raises:
            ValueError: If cases have no label, or none of the classes under ``"error"``; the
                message names them.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> from medkit.data import Case, Volume
            >>> empty = Volume(torch.zeros(1, 9, 9, 9, dtype=torch.uint8), np.eye(4))
            >>> sampler = ClassBalancedPatchSampler(classes=[1, 2])
            >>> sampler.prepare([Case(empty, empty, "scan 7")])
            Traceback (most recent call last):
            ValueError: classes must be in every case, ...; got none in 'scan 7'
        """

        def rule_of(case: AnyCase) -> _ByClass:
            label = label_of(case).data
            return _ByClass(self._present(label), label)

        return case_rules(
            cases,
            rule_of,
            name="classes",
            rule="in every case, or without_classes='uniform'",
            without=self.without_classes,
        )

    def _present(self, label: Tensor) -> dict[int, float]:
        """Ratios of the classes that a label has."""
        labels = np.unique(label.cpu().numpy()).tolist()
        found = [int(value) for value in labels if value != self.ignore_index]
        wanted = self.ratios or dict.fromkeys(found, 1.0)
        return {number: wanted[number] for number in found if wanted.get(number)}


class _ByClass:
    """One table of voxels per class."""

    def __init__(
        self, ratios: Mapping[int, float], label: Integer[Tensor, "1 depth height width"]
    ) -> None:
        self.classes = list(ratios)
        self.total = len(self.classes)
        shares = np.array(list(ratios.values()), dtype=float)
        self._ends = np.cumsum(shares / shares.sum()) if self.classes else shares
        self._tables = [VoxelTable(plane == c for plane in label[0]) for c in self.classes]

    def start(
        self, case: AnyCase, patch_size: Sequence[int], generator: np.random.Generator
    ) -> tuple[int, ...]:
        inside: Sequence[int | None] = (None, None, None)
        if self.classes and case.label is not None:
            chosen = int(np.searchsorted(self._ends[:-1], generator.random(), side="right"))
            table = self._tables[chosen]
            number = int(generator.integers(int(table.total)))
            d, h, before = table.row(number)
            row = row_of(case.label, d, h) == self.classes[chosen]
            inside = (d, h, voxel_in_row(row, number - before))
        return place(case, patch_size, generator, inside)


def _ratios(classes: Sequence[int] | Mapping[int, float]) -> dict[int, float]:
    ratios: dict[int, float] = {}
    numbers = check.integers("classes", classes)
    given = classes if isinstance(classes, Mapping) else dict.fromkeys(numbers, 1.0)
    for number, ratio in given.items():
        value = check.real(f"classes[{number}]", ratio)
        if value < 0:
            raise check.fail(f"classes[{number}]", "a ratio of 0 or more", ratio)
        ratios[int(number)] = value
    if not any(ratios.values()):
        raise check.fail("classes", "at least one class with a ratio above 0", classes)
    return ratios
