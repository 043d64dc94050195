"""Where patches are taken from: rules that draw the first voxel of a patch."""

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from medkit._core import check

from ._any_case import AnyCase, row_of
from ._case_rules import case_rules, label_of
from ._lazy_volume import LazyVolume
from ._patch_place import VoxelTable, comparable, place, voxel_in_row
from ._volume import Volume


@runtime_checkable
class PatchDraw(Protocol):
    """The rule of a sampler for one case; it must be picklable."""

    def start(
        self, case: AnyCase, patch_size: Sequence[int], generator: np.random.Generator
    ) -> tuple[int, ...]:
        """Return the first voxel (d, h, w) of a patch, negative on axes that need padding."""
        ...


@runtime_checkable
class PatchSampler(Protocol):
    """Looks at every case once and gives the rule by which its patches are drawn."""

    def prepare(self, cases: Iterable[AnyCase]) -> Sequence[PatchDraw]:
        """Return one rule per case."""
        ...


class UniformPatchSampler:
    """Draws patches anywhere in the volume, every position equally likely.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import Volume
        >>> case = Case(Volume(torch.zeros(1, 9, 9, 9), np.eye(4)), None, "a")
        >>> (draw,) = UniformPatchSampler().prepare([case])
        >>> draw.start(case, (9, 9, 11), np.random.default_rng(0))
        (0, 0, -1)
    """

    def prepare(self, cases: Iterable[AnyCase]) -> Sequence[PatchDraw]:
        """Return the same rule for every case.

        Args:
            cases: The cases in order.

        Returns:
            One rule per case.

        Example:
            >>> UniformPatchSampler().prepare([])
            []
        """
        return [_Uniform() for _ in cases]


class ForegroundPatchSampler:
    """Draws some of the patches so that they are sure to hold foreground.

    With ``probability`` a foreground voxel is drawn, each equally likely, and then a patch among
    all that contain it, so that foreground lies anywhere in the patch and not always in its
    middle. Otherwise every position is equally likely.

    Args:
        probability: Share of patches, in [0, 1], that are drawn around a foreground voxel.
        classes: Labels that count as foreground; None means all above 0.
        ignore_index: Label that never counts as foreground.
        without_foreground: What to do with cases that have none: ``"error"`` names them all,
            ``"uniform"`` draws their patches anywhere.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import Volume
        >>> label = torch.zeros(1, 99, 99, 99, dtype=torch.uint8)
        >>> label[0, 50, 60, 70] = 1
        >>> volume = Volume(label, np.eye(4))
        >>> case = Case(volume, volume, "a")
        >>> (draw,) = ForegroundPatchSampler(probability=1).prepare([case])
        >>> draw.start(case, (1, 1, 1), np.random.default_rng(0))
        (50, 60, 70)
    """

    def __init__(
        self,
        *,
        probability: float = 0.5,
        classes: Sequence[int] | None = None,
        ignore_index: int | None = None,
        without_foreground: Literal["error", "uniform"] = "error",
    ) -> None:
        check.one_of("without_foreground", without_foreground, ("error", "uniform"))
        self.probability: float = check.fraction("probability", probability)
        self.classes: tuple[int, ...] | None = (
            None if classes is None else check.integers("classes", classes)
        )
        self.ignore_index: int | None = (
            None if ignore_index is None else check.integer("ignore_index", ignore_index)
        )
        self.without_foreground: Literal["error", "uniform"] = without_foreground

    def prepare(self, cases: Iterable[AnyCase]) -> Sequence[PatchDraw]:
        """Count the foreground of every case, so that drawing from it is cheap.

        Args:
            cases: The cases in order; each needs a label.

        Returns:
            One rule per case. It holds 8 bytes per row of the label, 3 % of the size of a uint8
            label 256 voxels wide, however much foreground there is.

        Raises:
            ValueError: If cases have no label, or no foreground under ``"error"``; the message
                names them.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> from medkit.data import Volume
            >>> empty = Volume(torch.zeros(1, 9, 9, 9, dtype=torch.uint8), np.eye(4))
            >>> ForegroundPatchSampler().prepare([Case(empty, empty, "scan 7")])
            Traceback (most recent call last):
            ValueError: foreground must be in every case, ...; got none in 'scan 7'
        """
        return case_rules(
            cases,
            lambda case: _Foreground(self, label_of(case).data),
            name="foreground",
            rule="in every case, or without_foreground='uniform'",
            without=self.without_foreground,
        )

    def mask(self, label: Tensor) -> Tensor:
        """Where a label counts as foreground.

        Args:
            label: Class numbers of any shape.

        Returns:
            A boolean tensor of that shape.

        Example:
            >>> import torch
            >>> ForegroundPatchSampler(ignore_index=2).mask(torch.tensor([0, 1, 2])).tolist()
            [False, True, False]
        """
        label = comparable(label)
        if self.classes is None:
            mask = label > 0
        else:
            mask = torch.isin(label, torch.tensor(self.classes, device=label.device))
        return mask if self.ignore_index is None else mask & (label != self.ignore_index)


class _Uniform:
    """Every position inside the volume is equally likely."""

    def start(
        self, case: AnyCase, patch_size: Sequence[int], generator: np.random.Generator
    ) -> tuple[int, ...]:
        return place(case, patch_size, generator, (None, None, None))


class _Foreground:
    """Foreground voxels counted per row and added up: a table from which any can be drawn."""

    def __init__(
        self, sampler: ForegroundPatchSampler, label: Integer[Tensor, "1 depth height width"]
    ) -> None:
        self._sampler = sampler
        self._table = VoxelTable(sampler.mask(plane) for plane in label[0])
        self.total = int(self._table.total)

    def start(
        self, case: AnyCase, patch_size: Sequence[int], generator: np.random.Generator
    ) -> tuple[int, ...]:
        inside: Sequence[int | None] = (None, None, None)
        wanted = generator.random() < self._sampler.probability
        if wanted and self.total and case.label is not None:
            inside = self._voxel(case.label, int(generator.integers(self.total)))
        return place(case, patch_size, generator, inside)

    def _voxel(self, label: Volume | LazyVolume, number: int) -> tuple[int, int, int]:
        """Index of one foreground voxel by its number in reading order."""
        d, h, before = self._table.row(number)
        return d, h, voxel_in_row(self._sampler.mask(row_of(label, d, h)), number - before)
