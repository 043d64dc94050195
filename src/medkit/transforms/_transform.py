"""What every transform is: a sample in, a sample out, and the way back."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check

from ._boundary_rows import move_boundaries
from ._warp import Interpolation, Warp, merged

Sample = Mapping[str, object]


class Applied(NamedTuple):
    """What a transform made of a sample, and how to go back.

    Attributes:
        sample: The new sample.
        warps: The spatial changes in the order they were made; empty if there were none.
    """

    sample: dict[str, object]
    warps: tuple[Warp, ...] = ()

    def restore(
        self,
        prediction: Shaped[Tensor, "channel *_spatial"],
        *,
        mode: Interpolation,
        fill: float = 0.0,
    ) -> Shaped[Tensor, "channel *_old_spatial"]:
        """Return what lies on the grid of the new sample on the grid of the one before.

        Changes without displacement go back in one interpolation, or none where voxels were only
        moved, whatever their number.

        Args:
            prediction: On the new grid, e.g. class numbers or probabilities.
            mode: "nearest" for classes, "linear" for probabilities, or "cubic".
            fill: Value of what was cropped away.

        Returns:
            The prediction on the old grid.

        Raises:
            ValueError: If the prediction is not on the new grid.
        """
        for warp in merged([warp.inverse() for warp in reversed(self.warps)]):
            prediction = warp.move(prediction, mode=mode, fill=fill)
        return prediction

    def move_points(self, points: Float[Tensor, "point axis"]) -> Float[Tensor, "point axis"]:
        """Return where points of the old sample, such as landmarks, lie in the new one.

        In mm they stay where they are unless the image was bent: the new affine takes the new
        indices there.

        Args:
            points: Indices on the old grid, from 0 at the middle of the first voxel.

        Returns:
            Indices on the new grid, outside of it where the points were cut off.

        Raises:
            ValueError: If the points are no floats, one for each axis of the old grid.
        """
        for warp in self.warps:
            points = warp.move_points(points)
        return points


class Transform(ABC):
    """A change of samples: dicts of tensors ``(channel, *spatial)`` and whatever else, by name.

    Most have an ``image``, many a ``label`` on its grid, volumes an ``affine`` from (d, h, w) to
    mm (RAS+), images of layers their ``boundaries`` (see :func:`move_boundaries`).

    A call returns a new dict and leaves the given one as it is. Random transforms draw from the
    ``generator`` and nothing else: with ``medkit.train.sample_rng(seed, epoch, index)`` a sample is
    the same in any process. Without a generator one is seeded from torch's global state, which
    ``medkit.train.SeededDataset`` sets for each sample.

    Your own transform overrides ``_apply``, or is a function in :class:`Apply`.

    Example:
        >>> import torch
        >>> from medkit.transforms import Flip
        >>> Flip(axes=0)({"image": torch.tensor([[1, 2, 3]])})["image"]
        tensor([[3, 2, 1]])
    """

    draws: bool = False
    """Whether the transform draws random numbers."""

    def __call__(
        self, sample: Sample, *, generator: np.random.Generator | None = None
    ) -> dict[str, object]:
        """Return the changed sample."""
        return self.apply(sample, generator=generator).sample

    def apply(self, sample: Sample, *, generator: np.random.Generator | None = None) -> Applied:
        """Return the changed sample, and what leads predictions for it back to the old grid.

        Args:
            sample: Tensors and whatever else by name.
            generator: Where random numbers come from; None seeds one from torch's global state.

        Returns:
            The new sample and its warps.
        """
        check.kind("sample", sample, Mapping, "a dict of tensors by name, such as 'image'")
        if generator is None:
            seed = int(torch.randint(2**62, ())) if self.draws else 0
            generator = np.random.default_rng(seed)
        return self._apply(dict(sample), generator)

    @abstractmethod
    def _apply(self, sample: dict[str, object], generator: np.random.Generator) -> Applied:
        """Change a sample that is the transform's own dict, with tensors that are not."""


def tensor(sample: Sample, key: str) -> Tensor:
    """Return a tensor of a sample; raise if it is not there."""
    value = sample.get(key)
    if not isinstance(value, Tensor):
        got = "nothing" if value is None else type(value).__name__
        raise check.fail(f"sample[{key!r}]", "a tensor (channel, *spatial)", got)
    if value.ndim < 2:
        raise check.fail(f"sample[{key!r}]", "(channel, *spatial)", f"shape {tuple(value.shape)}")
    return value


def on_grid(sample: Sample, key: str, warp: Warp) -> Tensor:
    """Return a tensor of a sample; raise if it is not on the grid that a warp leaves."""
    value = tensor(sample, key)
    if tuple(value.shape[1:]) != warp.old_size:
        rule = f"(channel, {', '.join(map(str, warp.old_size))}) like the image"
        raise check.fail(f"sample[{key!r}]", rule, f"shape {tuple(value.shape)}")
    return value


def grid_affine(sample: Sample, spatial_dims: int) -> np.ndarray | None:
    """Return the affine of a volume as float64, or None if there is none."""
    value = sample.get("affine")
    if spatial_dims != 3 or value is None:
        return None
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.shape != (4, 4):
        raise check.fail("sample['affine']", "a 4 x 4 matrix", f"shape {array.shape}")
    return np.asarray(array, dtype=np.float64)


class SpatialTransform(Transform):
    """A change of the grid that image, label, affine and boundaries of a sample follow."""

    looks: bool = False
    """Whether the plan depends on voxels."""

    moves: bool = False
    """Whether it moves voxels as they are and never leaves the grid, so that it fills nothing."""

    fuses: bool = True
    """Whether it may be made in one interpolation with its neighbours."""

    images: tuple[str, ...]
    labels: tuple[str, ...]
    mode: Interpolation = "linear"
    fill: float | None = 0.0
    label_fill: int = 0

    @abstractmethod
    def _plan(self, grid: "Grid", generator: np.random.Generator) -> tuple[Warp, ...]:
        """Return the warps for a grid; none leaves the sample as it is."""

    def plan(self, grid: "Grid", generator: np.random.Generator) -> tuple[Warp, ...]:
        """Return the warps that the transform would make of a grid, without making them.

        Args:
            grid: The grid of the sample.
            generator: Where random numbers come from.

        Returns:
            The warps, none if the sample is to be left as it is.
        """
        return self._plan(grid, generator)

    def _label(self, label: Tensor, warp: Warp) -> Tensor:
        fill = None if self.fill is None else self.label_fill
        return warp.move(label, mode="nearest", fill=fill)

    def _apply(self, sample: dict[str, object], generator: np.random.Generator) -> Applied:
        warps = self.plan(Grid.of(sample, self.images[0]), generator)
        return Applied(self.moved(sample, warps), warps)

    def moved(self, sample: dict[str, object], warps: Sequence[Warp]) -> dict[str, object]:
        """Return a sample along warps.

        Args:
            sample: The sample before.
            warps: In order.

        Returns:
            The sample after.
        """
        for warp in warps:
            for key in self.images:
                sample[key] = warp.move(on_grid(sample, key, warp), mode=self.mode, fill=self.fill)
            for key in self.labels:
                if key in sample:
                    sample[key] = self._label(on_grid(sample, key, warp), warp)
            if sample.get("boundaries") is not None:
                sample["boundaries"] = move_boundaries(tensor(sample, "boundaries"), warp)
            affine = grid_affine(sample, len(warp.size))
            if affine is not None:
                old = sample["affine"]
                device = old.device if isinstance(old, Tensor) else None
                sample["affine"] = torch.tensor(affine @ warp.matrix, device=device)
        return sample


class Grid(NamedTuple):
    """What a plan may look at: size, place in space, and the sample itself.

    Attributes:
        size: Voxels per spatial axis.
        affine: Matrix from indices to mm, or None.
        sample: The sample as it was before any change that waits.
        device: Of the image.
    """

    size: tuple[int, ...]
    affine: np.ndarray | None
    sample: Sample
    device: torch.device

    @classmethod
    def of(cls, sample: Sample, key: str) -> "Grid":
        """Return the grid of an image of a sample.

        Args:
            sample: The sample.
            key: Of the image.

        Returns:
            The grid.
        """
        image = tensor(sample, key)
        size = tuple(image.shape[1:])
        return cls(size, grid_affine(sample, len(size)), sample, image.device)

    @property
    def spacing(self) -> np.ndarray:
        """Distance between voxels: mm where there is an affine, else 1."""
        if self.affine is None:
            return np.ones(len(self.size))
        return np.sqrt(np.square(self.affine[:3, :3]).sum(axis=0))


class IntensityTransform(Transform):
    """A change of the values of images that leaves the grid as it is."""

    images: tuple[str, ...]
    probability: float = 1.0

    @abstractmethod
    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        """Return the changed image."""

    def _apply(self, sample: dict[str, object], generator: np.random.Generator) -> Applied:
        if self.probability < 1 and generator.random() >= self.probability:
            return Applied(sample)
        for key in self.images:
            sample[key] = self._change(tensor(sample, key), sample, generator)
        return Applied(sample)


def names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return keys as a tuple; one key may stand alone."""
    return (value,) if isinstance(value, str) else tuple(value)


def interval(name: str, value: float | Sequence[float], middle: float = 0.0) -> tuple[float, float]:
    """Return a range as (low, high); one number is the distance from the middle on both sides."""
    if isinstance(value, (int, float)):
        reach = check.non_negative(name, value)
        return middle - reach, middle + reach
    low, high = (check.real(name, number) for number in value)
    if low > high:
        raise check.fail(name, "(low, high) with low <= high", value)
    return low, high


def spatial_axes(name: str, axes: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """Return axes counted from 0; each may be given once, negative ones count from the end."""
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    wanted = tuple(axis + dims if axis < 0 else axis for axis in given)
    if any(not 0 <= axis < dims for axis in wanted) or len(set(wanted)) != len(wanted):
        raise check.fail(name, f"different spatial axes below {dims}", axes)
    return wanted
