"""Transforms that move voxels as they are: nothing is interpolated."""

from collections.abc import Sequence

import numpy as np

from medkit._core import check
from medkit.ops import axes_towards

from ._maps import flip_map, permute_map, turn_map
from ._transform import Grid, SpatialTransform, names, spatial_axes
from ._warp import Warp


class Flip(SpatialTransform):
    """Reverses spatial axes.

    Args:
        axes: Spatial axes, from 0, or from the end if negative.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If an axis does not exist or is named twice.

    Example:
        >>> import torch
        >>> Flip(axes=-1)({"image": torch.tensor([[[1, 2], [3, 4]]])})["image"].tolist()
        [[[2, 1], [4, 3]]]
    """

    moves: bool = True

    def __init__(
        self,
        *,
        axes: int | Sequence[int],
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        self.axes: int | Sequence[int] = axes
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        return (flip_map(grid.size, spatial_axes("axes", self.axes, len(grid.size))),)


class RandomFlip(SpatialTransform):
    """Reverses each of some spatial axes, or not, by a coin of its own.

    Args:
        axes: Axes that may be reversed; None means all.
        probability: Of each axis to be reversed.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If an axis does not exist, or ``probability`` is outside of [0, 1].

    Example:
        >>> import torch
        >>> RandomFlip(probability=1.0)({"image": torch.tensor([[1, 2, 3]])})["image"]
        tensor([[3, 2, 1]])
    """

    moves: bool = True
    draws: bool = True

    def __init__(
        self,
        *,
        axes: int | Sequence[int] | None = None,
        probability: float = 0.5,
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        self.axes: int | Sequence[int] | None = axes
        self.probability: float = check.fraction("probability", probability)
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        dims = len(grid.size)
        axes = spatial_axes("axes", range(dims) if self.axes is None else self.axes, dims)
        drawn = [axis for axis in axes if generator.random() < self.probability]
        return (flip_map(grid.size, drawn),) if drawn else ()


class Rotate90(SpatialTransform):
    """Turns by quarters, as ``numpy.rot90`` and ``torch.rot90`` do.

    Args:
        times: Quarters, from the first towards the second axis.
        axes: The two axes of the plane.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If ``axes`` are not two different spatial axes.

    Example:
        >>> import torch
        >>> Rotate90()({"image": torch.tensor([[[1, 2], [3, 4]]])})["image"].tolist()
        [[[2, 4], [1, 3]]]
    """

    moves: bool = True

    def __init__(
        self,
        *,
        times: int = 1,
        axes: Sequence[int] = (-2, -1),
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        self.times: int = check.integer("times", times)
        self.axes: tuple[int, int] = _plane(axes)
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        axes = spatial_axes("axes", self.axes, len(grid.size))
        return (turn_map(grid.size, self.times, axes),) if self.times % 4 else ()


class RandomRotate90(SpatialTransform):
    """Turns by one, two or three quarters, each equally likely, or not at all.

    Args:
        axes: The two axes of the plane.
        probability: Of a turn.
        max_times: Most quarters, 1 to 3.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If ``axes`` are not two different spatial axes, ``probability`` is outside of
            [0, 1] or ``max_times`` outside of 1 to 3.

    Example:
        >>> import torch
        >>> turn = RandomRotate90(probability=1.0)
        >>> turn({"image": torch.zeros(1, 2, 3)})["image"].shape in ((1, 3, 2), (1, 2, 3))
        True
    """

    moves: bool = True
    draws: bool = True

    def __init__(
        self,
        *,
        axes: Sequence[int] = (-2, -1),
        probability: float = 0.5,
        max_times: int = 3,
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        self.axes: tuple[int, int] = _plane(axes)
        self.probability: float = check.fraction("probability", probability)
        check.one_of("max_times", max_times, (1, 2, 3))
        self.max_times: int = max_times
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        axes = spatial_axes("axes", self.axes, len(grid.size))
        if generator.random() >= self.probability:
            return ()
        times = int(generator.integers(1, self.max_times + 1))
        return (turn_map(grid.size, times, axes),)


class RandomD4(SpatialTransform):
    """One of the eight symmetries of a square, in the last two axes, each equally likely.

    For images without a right way up, such as histology. On images that are not square half of
    them exchange height and width.

    Args:
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Example:
        >>> import torch
        >>> RandomD4()({"image": torch.rand(3, 4, 4)})["image"].shape
        torch.Size([3, 4, 4])
    """

    moves: bool = True
    draws: bool = True

    def __init__(
        self,
        *,
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        dims = len(grid.size)
        axes = spatial_axes("the last two axes", (-2, -1), dims)
        times, flipped = divmod(int(generator.integers(8)), 2)
        warp = turn_map(grid.size, times, axes)
        return (warp.then(flip_map(warp.size, axes[1:])) if flipped else warp,)


class Orientation(SpatialTransform):
    """Permutes and reverses the axes of a volume towards directions of the body.

    The sample needs an ``affine``. An oblique volume stays oblique.

    Args:
        axcodes: Direction of the new d, h and w: one letter of each of R/L, A/P and S/I. medicai's
            ``"RAS"`` is ``"SAR"`` here, as it counts the axes from the last.
        images: Keys of the images.
        labels: Keys of labels that go along; those a sample lacks are passed over.

    Raises:
        ValueError: If ``axcodes`` does not name three directions, or a sample has no affine.

    Example:
        >>> import torch
        >>> sample = {"image": torch.zeros(1, 2, 3, 4), "affine": torch.eye(4)}
        >>> Orientation(axcodes="SAR")(sample)["image"].shape
        torch.Size([1, 4, 3, 2])
    """

    moves: bool = True

    def __init__(
        self,
        *,
        axcodes: str,
        images: str | Sequence[str] = "image",
        labels: str | Sequence[str] = "label",
    ) -> None:
        axes_towards(np.eye(4), axcodes)
        self.axcodes: str = axcodes
        self.images: tuple[str, ...] = names(images)
        self.labels: tuple[str, ...] = names(labels)

    def _plan(self, grid: Grid, generator: np.random.Generator) -> tuple[Warp, ...]:
        if grid.affine is None:
            raise check.fail("sample['affine']", "the 4 x 4 matrix of a volume", "none")
        axes, flips = axes_towards(grid.affine, self.axcodes)
        turned = permute_map(grid.size, axes)
        return (turned.then(flip_map(turned.size, flips)),)


def _plane(axes: Sequence[int]) -> tuple[int, int]:
    if len(axes) != 2 or axes[0] == axes[1]:
        raise check.fail("axes", "two different spatial axes", axes)
    a, b = axes
    return a, b
