"""Ways to look at a volume that can be undone: flips, quarter turns, scales."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, kw_only=True)
class View:
    """One way to look at a volume, and how to bring a prediction back from it.

    The volume is resized, flipped and turned, in this order; a prediction goes the way back.
    Spatial axes are counted from 0: D H W in a volume, H W in an image. Flips and turns move
    values exactly; a scale interpolates linearly with half-pixel centres. Use it in
    ``test_time_augmentation`` and ``predictive_uncertainty``; ``flip_views`` and ``turn_views``
    list the usual ones, and a subset of them keeps what anatomy allows, such as left and right
    alone.

    Args:
        flip: Axes to reverse.
        turns: Number of quarter turns in ``plane``, from its first axis to its second.
        plane: The two axes to turn in; the last two are ``(-2, -1)``.
        scale: Size of the view as a multiple of the volume's.
        swap: Pairs of channels of the prediction that change places in a mirrored world, such as
            left and right kidney under a flip of the axis from left to right.

    Raises:
        ValueError: If an axis is named twice, ``plane`` is no plane, a channel is swapped twice or
            the scale is not positive.

    Example:
        >>> import torch
        >>> view = View(flip=(1,), swap=((1, 2),))
        >>> scores = torch.arange(6.0).reshape(1, 3, 1, 2)  # background, left, right
        >>> view.invert(scores, (1, 2)).flatten().tolist()
        [1.0, 0.0, 5.0, 4.0, 3.0, 2.0]

    References:
        G. Wang et al., "Aleatoric uncertainty estimation with test-time augmentation for medical
        image segmentation with convolutional neural networks", Neurocomputing 338, 2019,
        section 3.2: predictions under transformations that can be inverted.
    """

    flip: tuple[int, ...] = ()
    turns: int = 0
    plane: tuple[int, int] = (-2, -1)
    scale: float = 1.0
    swap: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Check the options."""
        check.kind("flip", self.flip, Sequence, "a tuple of axes")
        if len(set(self.flip)) < len(self.flip):
            raise check.fail("flip", "different axes", self.flip)
        check.integer("turns", self.turns)
        if len(self.plane) != 2 or len(set(self.plane)) != 2:
            raise check.fail("plane", "two different axes", self.plane)
        check.positive("scale", self.scale)
        channels = [channel for pair in self.swap for channel in pair]
        if len(set(channels)) < len(channels) or any(len(pair) != 2 for pair in self.swap):
            raise check.fail("swap", "pairs of channels, each named once", self.swap)

    def apply(
        self, input: Shaped[Tensor, "batch channel *spatial"]
    ) -> Shaped[Tensor, "batch channel *view"]:
        """Return the volume as seen in this view.

        Args:
            input: Volumes of one size; floating point if the view has a scale.
        """
        if self.scale != 1:
            size = [max(1, round(self.scale * n)) for n in input.shape[2:]]
            return self._turned(_resized(input, size).flip(self._flipped(input)), self.turns)
        return self._turned(input.flip(self._flipped(input)), self.turns)

    def invert(
        self, scores: Float[Tensor, "batch channel *view"], size: Sequence[int]
    ) -> Float[Tensor, "batch channel *spatial"]:
        """Return a prediction made in this view as one of the volume.

        Args:
            scores: Logits or probabilities of every voxel of the view.
            size: Spatial size of the volume.

        Raises:
            ValueError: If a channel to swap does not exist.
        """
        scores = self._turned(scores, -self.turns).flip(self._flipped(scores))
        if self.scale != 1:
            scores = _resized(scores, size)
        if not self.swap:
            return scores
        order = list(range(scores.shape[1]))
        for first, second in self.swap:
            if not (0 <= first < len(order) and 0 <= second < len(order)):
                raise check.fail("swap", f"channels below {len(order)}", self.swap)
            order[first], order[second] = second, first
        return scores[:, order]

    def _flipped(self, x: Tensor) -> list[int]:
        """Return the axes of a tensor that are flipped."""
        return _axes("flip", self.flip, x)

    def _turned(self, x: Tensor, turns: int) -> Tensor:
        return torch.rot90(x, turns, _axes("plane", self.plane, x)) if turns % 4 else x


def flip_views(axes: Sequence[int]) -> tuple[View, ...]:
    """Return the views of every combination of flips, the volume as it is first.

    Use it for test-time augmentation as in nnU-Net: eight views of a volume. Leave out axes along
    which anatomy has a direction: a retina has no upside down.

    Args:
        axes: Spatial axes that may be flipped, counted from 0.

    Example:
        >>> [view.flip for view in flip_views((1, 2))]
        [(), (1,), (2,), (1, 2)]

    References:
        F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical
        image segmentation", Nature Methods 18, 2021, online methods, "Inference": mirroring along
        all axes.
    """
    sizes = range(len(axes) + 1)
    subsets = itertools.chain.from_iterable(itertools.combinations(axes, n) for n in sizes)
    return tuple(View(flip=subset) for subset in subsets)


def turn_views(*, plane: tuple[int, int] = (-2, -1), mirrored: bool = False) -> tuple[View, ...]:
    """Return the views of the four quarter turns in a plane, the volume as it is first.

    Use it where the plane has no preferred direction, such as tissue under a microscope. Views of
    a plane that is not square have another shape.

    Args:
        plane: The two axes to turn in; the last two by default.
        mirrored: Also return the turns of the mirror image: all eight symmetries of a square.

    Example:
        >>> [(view.flip, view.turns) for view in turn_views(mirrored=True)][3:6]
        [((), 3), ((-1,), 0), ((-1,), 1)]

    References:
        T. Cohen, M. Welling, "Group Equivariant Convolutional Networks", ICML, 2016, section 4:
        the groups p4 and p4m.
    """
    flips: list[tuple[int, ...]] = [(), (plane[1],)] if mirrored else [()]
    return tuple(View(flip=f, turns=k, plane=plane) for f in flips for k in range(4))


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode=_LINEAR[x.ndim - 2], align_corners=False)


def _axes(name: str, axes: Sequence[int], x: Tensor) -> list[int]:
    """Return the axes of a tensor that are meant by spatial axes."""
    dims = x.ndim - 2
    if not all(-dims <= axis < dims for axis in axes):
        raise check.fail(name, f"axes of {dims} spatial dimensions", axes)
    found = [2 + axis % dims for axis in axes]
    if len(set(found)) < len(found):
        raise check.fail(name, "different axes", axes)
    return found
