"""Transforms made of transforms."""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from medkit._core import check

from ._transform import Applied, Grid, Sample, SpatialTransform, Transform, names, tensor
from ._warp import Warp, merged


class Compose(Transform):
    """Transforms one after the other, neighbouring spatial ones in one interpolation.

    Spatial changes that follow each other, draw and look at no voxels in between are multiplied
    before any voxel is touched, if they agree on keys, mode and fill; a resize, which fills
    nothing, agrees with any fill. A rotation after a crop then
    shows what lay beside the crop instead of filling it. Each transform draws from a stream of its
    own, spawned from the generator: changing one leaves the numbers of the others as they are.

    Args:
        transforms: In order.
        fused: Whether spatial neighbours become one; False makes each by itself.

    Raises:
        TypeError: If one of them is no Transform.

    Example:
        >>> import torch
        >>> from medkit.transforms import Flip, Resize
        >>> both = Compose([Flip(axes=0), Resize(size=2)])
        >>> both({"image": torch.tensor([[0.0, 1.0, 2.0, 3.0]])})["image"]
        tensor([[2.5000, 0.5000]])
    """

    def __init__(self, transforms: Sequence[Transform], *, fused: bool = True) -> None:
        check.kind("transforms", transforms, Sequence, "a list of transforms")
        self.transforms: tuple[Transform, ...] = tuple(transforms)
        for number, transform in enumerate(self.transforms):
            rule = "a Transform (a function goes into Apply)"
            check.kind(f"transforms[{number}]", transform, Transform, rule)
        self.fused: bool = fused
        self.draws: bool = any(transform.draws for transform in self.transforms)

    def _apply(self, sample: dict[str, object], generator: np.random.Generator) -> Applied:
        made: list[Warp] = []
        pending = _Pending()
        streams = generator.spawn(len(self.transforms))
        for transform, stream in zip(self.transforms, streams, strict=True):
            if isinstance(transform, SpatialTransform) and self.fused and transform.fuses:
                if not pending.takes(transform):
                    sample = pending.done(sample, made)
                pending.add(transform, sample, stream)
                continue
            sample = pending.done(sample, made)
            applied = transform.apply(sample, generator=stream)
            sample = applied.sample
            made.extend(applied.warps)
        return Applied(pending.done(sample, made), tuple(made))


class OneOf(Transform):
    """One of several transforms, drawn for each sample.

    Args:
        transforms: To choose from.
        weights: Relative probabilities; None makes each equally likely.

    Raises:
        ValueError: If there is nothing to choose from, or the weights do not fit.

    Example:
        >>> import torch
        >>> from medkit.transforms import Flip, Rotate90
        >>> OneOf([Flip(axes=0), Rotate90()])({"image": torch.zeros(1, 2, 2)})["image"].shape
        torch.Size([1, 2, 2])
    """

    draws: bool = True

    def __init__(
        self, transforms: Sequence[Transform], *, weights: Sequence[float] | None = None
    ) -> None:
        self.transforms: tuple[Transform, ...] = tuple(transforms)
        given = [1.0] * len(self.transforms) if weights is None else list(weights)
        if not given or len(given) != len(self.transforms):
            raise check.fail("weights", "one for each of one or more transforms", weights)
        each = np.array([check.non_negative("weights", weight) for weight in given])
        self.weights: tuple[float, ...] = tuple(
            (each / check.positive("sum of weights", float(each.sum()))).tolist()
        )

    def _apply(self, sample: dict[str, object], generator: np.random.Generator) -> Applied:
        number = int(generator.choice(len(self.transforms), p=self.weights))
        return self.transforms[number].apply(sample, generator=generator)


class RandomApply(Transform):
    """A transform with a probability, else nothing.

    Args:
        transform: What may be done.
        probability: Of doing it.

    Raises:
        ValueError: If ``probability`` is outside of [0, 1].

    Example:
        >>> import torch
        >>> from medkit.transforms import Flip
        >>> sample = {"image": torch.tensor([[1, 2]])}
        >>> RandomApply(Flip(axes=0), probability=0.0)(sample)["image"]
        tensor([[1, 2]])
    """

    draws: bool = True

    def __init__(self, transform: Transform, *, probability: float = 0.5) -> None:
        self.transform: Transform = transform
        self.probability: float = check.fraction("probability", probability)

    def _apply(self, sample: dict[str, object], generator: np.random.Generator) -> Applied:
        if generator.random() >= self.probability:
            return Applied(sample)
        return self.transform.apply(sample, generator=generator)


class Apply(Transform):
    """Any function of a tensor, as a transform.

    Args:
        function: Takes a tensor ``(channel, *spatial)`` and returns one on the same grid; it must
            not write into what it is given.
        keys: Keys of the tensors it is called with, each by itself.

    Example:
        >>> import torch
        >>> Apply(torch.log1p)({"image": torch.zeros(1, 2)})["image"]
        tensor([[0., 0.]])
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], *, keys: str | Sequence[str] = "image"
    ) -> None:
        self.function: Callable[[Tensor], Tensor] = function
        self.keys: tuple[str, ...] = names(keys)

    def _apply(self, sample: dict[str, object], generator: np.random.Generator) -> Applied:
        for key in self.keys:
            sample[key] = self.function(tensor(sample, key))
        return Applied(sample)


def apply_to_batch(
    transform: Transform,
    batch: Sample,
    *,
    generators: Sequence[np.random.Generator] | None = None,
) -> dict[str, object]:
    """Return a batch, each sample of which was changed by itself, on the device where it is.

    The result is that of the samples one by one, stacked: use it to augment on a GPU what a
    DataLoader collated.

    Args:
        transform: What to do with each sample.
        batch: Tensors (batch, ...), and lists with one entry for each sample.
        generators: One for each sample; None seeds them from torch's global state.

    Returns:
        The new batch.

    Raises:
        ValueError: If the entries do not have one length, or ``generators`` another, or the
            samples become unequal in size.

    Example:
        >>> import torch
        >>> from medkit.transforms import Flip
        >>> apply_to_batch(Flip(axes=0), {"image": torch.tensor([[[1, 2]], [[3, 4]]])})["image"]
        tensor([[[2, 1]],
        <BLANKLINE>
                [[4, 3]]])
    """
    columns = {
        key: cast("Sequence[object]", value)
        for key, value in batch.items()
        if isinstance(value, Tensor | list | tuple)
    }
    if len(columns) != len(batch) or len({len(column) for column in columns.values()}) != 1:
        raise check.fail("batch", "tensors and lists of one length", sorted(batch))
    count = len(next(iter(columns.values())))
    if generators is not None and len(generators) != count:
        raise check.fail("generators", f"one for each of {count} samples", len(generators))
    samples = [
        transform(
            {key: column[i] for key, column in columns.items()},
            generator=None if generators is None else generators[i],
        )
        for i in range(count)
    ]
    result: dict[str, object] = {}
    for key in samples[0]:
        values = [sample[key] for sample in samples]
        tensors = [value for value in values if isinstance(value, Tensor)]
        shapes = sorted({tuple(value.shape) for value in tensors})
        if len(shapes) > 1:
            raise check.fail(f"shape of {key!r} after the transform", "one for all samples", shapes)
        result[key] = torch.stack(tensors) if len(tensors) == count else values
    return result


class _Pending:
    """Spatial changes that no voxel has followed yet."""

    def __init__(self) -> None:
        self._lead: SpatialTransform | None = None
        self._warps: list[Warp] = []

    def takes(self, transform: SpatialTransform) -> bool:
        """Return whether a change can be made with those that wait."""
        lead = self._lead
        if lead is None:
            return True
        if transform.looks or _keys(lead) != _keys(transform):
            return False
        if lead.moves or transform.moves:
            return True
        one_fill = None in {lead.fill, transform.fill} or _fills(lead) == _fills(transform)
        return lead.mode == transform.mode and one_fill

    def add(
        self, transform: SpatialTransform, sample: Sample, generator: np.random.Generator
    ) -> None:
        """Plan a change for the grid that the sample will have."""
        grid = Grid.of(sample, transform.images[0])
        for warp in self._warps:
            affine = None if grid.affine is None else grid.affine @ warp.matrix
            grid = grid._replace(size=warp.size, affine=affine)
        warps = transform.plan(grid, generator)
        if warps and (self._lead is None or _demands(transform) > _demands(self._lead)):
            self._lead = transform
        self._warps.extend(warps)

    def done(self, sample: dict[str, object], made: list[Warp]) -> dict[str, object]:
        """Return the sample after all changes, and forget them."""
        if self._lead is not None:
            warps = merged(self._warps)
            sample = self._lead.moved(sample, warps)
            made.extend(warps)
        self._lead, self._warps = None, []
        return sample


def _keys(transform: SpatialTransform) -> tuple[object, ...]:
    return transform.images, transform.labels


def _fills(transform: SpatialTransform) -> tuple[object, ...]:
    return transform.fill, transform.label_fill


def _demands(transform: SpatialTransform) -> int:
    """Return 0 for what only moves voxels, 1 for what repeats the edge, 2 for what fills."""
    return 0 if transform.moves else 1 + (transform.fill is not None)
