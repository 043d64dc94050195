"""Patches whose label is known well enough."""

from collections.abc import Iterable, Sequence

import numpy as np

from medkit._core import check

from ._any_case import AnyCase, part_of
from ._case_rules import label_of
from ._lazy_volume import LazyVolume
from ._patch_samplers import PatchDraw, PatchSampler, UniformPatchSampler
from ._volume import Volume


class ValidPatchSampler:
    """Draws again while too much of a patch is without annotation.

    Another sampler draws; a patch is taken when the share of its voxels whose label is not
    ``ignore_index`` is at least ``min_valid_ratio``. When ``max_attempts`` of them fail, the best
    is taken. Voxels of the patch beyond the volume do not count.

    Args:
        ignore_index: Label of voxels that nothing is known about.
        min_valid_ratio: Least share of other voxels, in [0, 1].
        max_attempts: How many patches are tried.
        sampler: Draws the patches; None means :class:`UniformPatchSampler`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import Case, Volume
        >>> label = torch.full((1, 40, 8, 8), 255, dtype=torch.uint8)
        >>> label[:, :8] = 0
        >>> volume = Volume(label, np.eye(4))
        >>> case = Case(volume, volume, "a")
        >>> sampler = ValidPatchSampler(ignore_index=255, max_attempts=1000)
        >>> (draw,) = sampler.prepare([case])
        >>> draw.start(case, (8, 8, 8), np.random.default_rng(0))[0] <= 4
        True
    """

    def __init__(
        self,
        *,
        ignore_index: int,
        min_valid_ratio: float = 0.5,
        max_attempts: int = 10,
        sampler: PatchSampler | None = None,
    ) -> None:
        self.ignore_index: int = check.integer("ignore_index", ignore_index)
        self.min_valid_ratio: float = check.fraction("min_valid_ratio", min_valid_ratio)
        self.max_attempts: int = check.integer("max_attempts", max_attempts, minimum=1)
        self.sampler: PatchSampler = sampler or UniformPatchSampler()

    def prepare(self, cases: Iterable[AnyCase]) -> Sequence[PatchDraw]:
        """Let the other sampler look at every case.

        Args:
            cases: The cases in order; each needs a label.

        Returns:
            One rule per case.

        Raises:
            ValueError: If cases have no label, or no voxel whose label is known; the message names
                them. Whatever the other sampler raises.

        Example:
            >>> import numpy as np
            >>> import torch
            >>> from medkit.data import Case, Volume
            >>> unknown = Volume(torch.full((1, 9, 9, 9), 2, dtype=torch.uint8), np.eye(4))
            >>> ValidPatchSampler(ignore_index=2).prepare([Case(unknown, unknown, "scan 7")])
            Traceback (most recent call last):
            ValueError: label must be other than 2 somewhere in every case; got none in 'scan 7'
        """
        unknown: list[str] = []

        def looked_at() -> Iterable[AnyCase]:
            for case in cases:
                if not bool((label_of(case).data != self.ignore_index).any()):
                    unknown.append(repr(case.id))
                yield case

        draws = self.sampler.prepare(looked_at())
        if unknown:
            rule = f"other than {self.ignore_index} somewhere in every case"
            raise check.fail("label", rule, f"none in {', '.join(unknown)}")
        return [_Valid(self, draw) for draw in draws]


class _Valid:
    """Draws of another rule until one is good enough."""

    def __init__(self, sampler: ValidPatchSampler, draw: PatchDraw) -> None:
        self._sampler = sampler
        self._draw = draw

    def start(
        self, case: AnyCase, patch_size: Sequence[int], generator: np.random.Generator
    ) -> tuple[int, ...]:
        best, most = self._draw.start(case, patch_size, generator), -1.0
        for attempt in range(self._sampler.max_attempts):
            start = self._draw.start(case, patch_size, generator) if attempt else best
            share = self._share(label_of(case), start, patch_size)
            if share > most:
                best, most = start, share
            if share >= self._sampler.min_valid_ratio:
                break
        return best

    def _share(
        self, label: Volume | LazyVolume, start: Sequence[int], patch_size: Sequence[int]
    ) -> float:
        box = [
            slice(max(a, 0), min(a + n, size))
            for a, n, size in zip(start, patch_size, label.spatial_shape, strict=True)
        ]
        return (part_of(label, box) != self._sampler.ignore_index).float().mean().item()
