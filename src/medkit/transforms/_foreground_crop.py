"""A crop about foreground or about background."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medkit._core import check

from ._crops import inside, start_about_voxel
from ._maps import crop_map
from ._transform import Grid, SpatialTransform, names, tensor
from ._warp import Warp


class RandomForegroundCrop(SpatialTransform):
    """Cuts out a box whose middle is a voxel of the foreground, or else of the background.

    With ``probability`` the middle is drawn among the voxels of the foreground, each equally
    likely, otherwise among those of the background; a box that would stick out is moved in. A
    sample that lacks the one is cut about the other, one that lacks both anywhere. It is MONAI's
    and medicai's crop by positive and negative labels, ``probability`` being pos / (pos + neg).

    Args:
        size: Voxels per spatial axis, one number for all; an axis that is shorter is kept whole.
        probability: Share of crops about the foreground, in [0, 1].
        classes: Labels that are foreground; None means all above 0. The others are background.
        ignore_index: Label that is neither.
        label: Key of the label that is looked at.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> label = torch.zeros(1, 99, dtype=torch.uint8)
        >>> label[0, 60] = 1
        >>> crop = RandomForegroundCrop(size=3, probability=1.0)
        >>> crop({"image": torch.arange(99.0)[None], "label": label})["image"]
        tensor([[59., 60., 61.]])
    """

    moves: bool = True
    draws: bool = True
    looks: bool = True

    def __init__(
        self,
        *,
        size: int | Sequence[int],
        probability: float = 0.5,
        classes: Sequence[int] | None = None,
        ignore_index: int | None = None,
        label: str = "label",
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        self.size: int | Sequence[int] = size
        self.probability: float = check.fraction("probability", probability)
        self.classes: tuple[int, ...] | None = (
            None if classes is None else check.integers("classes", classes)
        )
        self.ignore_index: int | None = (
            None if ignore_index is None else check.integer("ignore_index", ignore_index)
        )
        self.label: str = label
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        size = inside(self.size, grid.size)
        wanted, other = self._masks(tensor(grid.sample, self.label))
        if generator.random() >= self.probability:
            wanted, other = other, wanted
        start = start_about_voxel(wanted, size, generator)
        if start is None:
            start = start_about_voxel(other, size, generator)
        if start is None:
            places = zip(grid.size, size, strict=True)
            start = [int(generator.integers(n - m + 1)) for n, m in places]
        return (crop_map(grid.size, start, size),)

    def _masks(self, label: Tensor) -> tuple[Tensor, Tensor]:
        if self.classes is None:
            foreground = label > 0
        else:
            foreground = torch.isin(label, torch.tensor(self.classes, device=label.device))
        known = torch.ones_like(foreground)
        if self.ignore_index is not None:
            known = label != self.ignore_index
        return (foreground & known).any(0), (~foreground & known).all(0)
