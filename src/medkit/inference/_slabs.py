"""Prediction by windows that never holds the scores of the whole volume."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from tqdm import tqdm

from medkit._core import check
from medkit.ops import patch_grid

from ._activation import entropy
from ._slab_resize import resized
from ._sliding_window import (
    check_parts,
    cover_of_a_row,
    cut,
    importance_weight,
    padded_to_window,
    scores_of,
    window_size,
)

Corner = tuple[int, ...]


class Slab(NamedTuple):
    """Scores of consecutive planes of a volume.

    Attributes:
        start: Index of the first plane along the first spatial axis.
        scores: Blended scores ``(batch, channel, planes, *rest)``.
    """

    start: int
    scores: Float[Tensor, "batch channel planes *rest"]


def sliding_window_slabs(
    inputs: Shaped[Tensor, "batch channel *spatial"],
    predictor: Callable[[Tensor], Tensor],
    *,
    roi_size: int | Sequence[int],
    overlap: float | Sequence[float] = 0.5,
    importance: Literal["gaussian", "constant"] | Float[Tensor, "*window"] = "gaussian",
    batch_size: int = 1,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Iterator[Slab]:
    """Yield the prediction of a whole volume from its first plane to its last, a slab at a time.

    The slabs put together are, bit for bit, what ``sliding_window_inference`` returns with the
    same options; but only the planes under the windows at work are held, so that memory does not
    grow with the depth of the volume. Use it to write or to reduce scores of many classes as they
    come; ``sliding_window_segmentation`` reduces them to a label map.

    Args:
        inputs: Volumes of one size, 2D or 3D; put their longest axis first. A volume smaller than
            the window is padded with zeros.
        predictor: Takes windows ``(n, channel, *roi_size)`` and returns scores ``(n, any,
            *roi_size)`` in one floating-point tensor.
        roi_size: Size of the window in voxels; one per axis, or one for all.
        overlap: Fraction of a window that the next one covers again; one per axis, or one for
            all.
        importance: How voxels count within their window, as in ``sliding_window_inference``.
        batch_size: Number of windows per call of the predictor.
        device: Where scores are summed; None means where ``inputs`` is.
        progress: Show a progress bar over the calls of the predictor.

    Returns:
        An iterator; predictions are made as it is advanced, without gradients.

    Raises:
        ValueError: If an option is out of range, or the predictor changes the number or the size
            of its windows.
        TypeError: If the predictor returns anything but one floating-point tensor.

    Example:
        >>> import torch
        >>> volume = torch.arange(30.0).reshape(1, 1, 6, 5)
        >>> slabs = sliding_window_slabs(volume, lambda windows: windows / 2, roi_size=4)
        >>> [(slab.start, slab.scores.shape[2]) for slab in slabs]
        [(0, 2), (2, 4)]

    References:
        Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical
        image segmentation", Nature Methods 18, 2021, online methods, "Inference".
    """
    return _prediction(
        inputs,
        predictor,
        roi_size=roi_size,
        overlap=overlap,
        importance=importance,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )


def sliding_window_segmentation(
    inputs: Shaped[Tensor, "batch channel *spatial"],
    predictor: Callable[[Tensor], Tensor],
    *,
    roi_size: int | Sequence[int],
    overlap: float | Sequence[float] = 0.5,
    importance: Literal["gaussian", "constant"] | Float[Tensor, "*window"] = "gaussian",
    batch_size: int = 1,
    output_size: Sequence[int] | None = None,
    reduce: Literal["argmax", "entropy"] | Callable[[Tensor], Tensor] = "argmax",
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Shaped[Tensor, "batch *output"]:
    """Return the label map of a whole volume without ever holding the scores of all of it.

    Windows are predicted and blended slab by slab, brought to the size of the output and reduced
    plane by plane, so that memory is that of the planes under one window, of a few planes of the
    output and one label map: a hundred classes cost no more depth than two. Labels equal those of
    ``sliding_window_inference`` followed by linear interpolation and ``argmax`` wherever the two
    best scores differ by more than rounding.

    Args:
        inputs: Volumes of one size; put their longest axis first.
        predictor: Takes windows, returns logits or probabilities, see ``sliding_window_slabs``.
        roi_size: Size of the window in voxels; one per axis, or one for all.
        overlap: Fraction of a window that the next one covers again.
        importance: How voxels count within their window.
        batch_size: Number of windows per call of the predictor.
        output_size: Spatial size of the result, such as that of the volume before resampling;
            scores are interpolated linearly with half-pixel centres. None is the size of the
            input.
        reduce: What becomes of the scores of one or a few planes: the index of the best class,
            the "entropy" of their softmax in nats, or a function ``(batch, channel, planes,
            *rest) -> (batch, planes, *rest)``.
        device: Where scores are summed and the result is; None means where ``inputs`` is.
        progress: Show a progress bar over the calls of the predictor.

    Returns:
        The map ``(batch, *output)``: for "argmax" in uint8, or in int16 or int32 for more than
        256 or 32768 classes.

    Raises:
        ValueError: If an option is out of range, or a function of the caller changes the shape.
        TypeError: If the predictor returns anything but one floating-point tensor.

    Example:
        >>> import torch
        >>> volume = torch.tensor([0.0, 0.2, 0.9, 1.0]).reshape(1, 1, 4, 1)
        >>> def two_classes(windows):
        ...     return torch.cat([1 - windows, windows], dim=1)
        >>> labels = sliding_window_segmentation(
        ...     volume, two_classes, roi_size=(2, 1), output_size=(8, 1)
        ... )
        >>> labels.flatten().tolist()
        [0, 0, 0, 0, 1, 1, 1, 1]

    References:
        Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical
        image segmentation", Nature Methods 18, 2021, online methods, "Inference".
    """
    if not callable(reduce):
        check.one_of("reduce", reduce, ("argmax", "entropy"))
    sizes = tuple(inputs.shape[2:])
    given = check.per_axis("output_size", sizes if output_size is None else output_size, len(sizes))
    target = [check.integer("output_size", size, minimum=1) for size in given]
    slabs = _prediction(
        inputs,
        predictor,
        roi_size=roi_size,
        overlap=overlap,
        importance=importance,
        batch_size=batch_size,
        device=device,
        progress=progress,
        planes_at_once=1,
    )
    if tuple(target) != sizes:
        slabs = (Slab(*part) for part in resized(slabs, sizes[0], target))
    result = torch.empty(0)
    for start, scores in slabs:
        part = _reduced(scores, reduce)
        if not start:
            result = part.new_empty((len(inputs), *target))
        result[:, start : start + part.shape[1]] = part
    return result


def _prediction(
    inputs: Tensor,
    predictor: Callable[[Tensor], Tensor],
    *,
    roi_size: int | Sequence[int],
    overlap: float | Sequence[float],
    importance: Literal["gaussian", "constant"] | Tensor,
    batch_size: int,
    device: torch.device | str | None,
    progress: bool,
    planes_at_once: int | None = None,
) -> Iterator[Slab]:
    """Return the slabs, as they become complete or cut into thinner ones."""
    sizes = tuple(inputs.shape[2:])
    if not sizes or not len(inputs):
        raise check.fail("inputs", "(batch, channel, *spatial)", f"shape {tuple(inputs.shape)}")
    window = window_size(roi_size, len(sizes))
    grid = patch_grid(sizes, patch_size=window, overlap=overlap)
    weight = importance_weight(importance, window)
    check.integer("batch_size", batch_size, minimum=1)
    padded, first = padded_to_window(inputs, window, "constant", 0.0)
    front = _Front(padded, grid, weight.to(device or inputs.device))
    work = _batches(len(inputs), grid, window[0], batch_size)
    calls = tqdm(work, disable=not progress)
    slabs = _blended(padded, predictor, front, calls, planes_at_once or window[0])
    return _cropped(slabs, first, sizes)


class _Front:
    """Weighted sums of the planes that windows still to come may add to."""

    def __init__(self, inputs: Tensor, grid: Sequence[Sequence[int]], weight: Tensor) -> None:
        self.shape = inputs.shape
        self.wide = inputs.dtype if inputs.is_floating_point() else torch.float32
        self.grid = grid
        self.weight = weight
        self.total: Tensor | None = None
        self.cover = weight.new_empty(0)
        self.row = weight.new_empty(0)

    def add(self, scores: Tensor, corners: Sequence[Corner]) -> None:
        """Add the scores of windows that start at the first plane of the front."""
        if self.total is None:
            self._begin(scores)
        total = cast("Tensor", self.total)
        check_parts({0: scores}, {0: total})
        weight, parts = self.weight.to(total.dtype), scores.to(total)
        for i, (sample, _, *rest) in enumerate(corners):
            cut(total, (sample, 0, *rest), weight.shape).addcmul_(parts[i], weight)

    def finish(self, planes: int, at_once: int) -> Iterator[tuple[int, Tensor]]:
        """Yield the blended scores of the first planes, which are complete, and go past them."""
        total, depth = cast("Tensor", self.total), self.weight.shape[0]
        self.cover += self.row
        for start in range(0, planes, at_once):
            part = slice(start, min(start + at_once, planes))
            yield start, total[:, :, part] / self.cover[part]
        for start in range(0, depth, planes):  # a piece at a time, so that none overlaps its copy
            kept = min(planes, depth - planes - start)
            for buffer, axis in ((total, 2), (self.cover, 0)):
                if kept > 0:
                    moved = buffer.narrow(axis, start + planes, kept)
                    buffer.narrow(axis, start, kept).copy_(moved)
        total[:, :, depth - planes :] = 0
        self.cover[depth - planes :] = 0

    def _begin(self, scores: Tensor) -> None:
        wide = torch.promote_types(scores.dtype, torch.promote_types(self.wide, torch.float32))
        depth = self.weight.shape[0]
        shape = (self.shape[0], scores.shape[1], depth, *self.shape[3:])
        self.total = torch.zeros(shape, dtype=wide, device=self.weight.device)
        self.row = cover_of_a_row(self.weight.to(wide), self.shape[2:], self.grid)
        self.cover = torch.zeros_like(self.row)


def _batches(
    samples: int, grid: Sequence[Sequence[int]], depth: int, batch_size: int
) -> list[tuple[list[Corner], int]]:
    """List the windows of each call, with the planes that are complete after it."""
    starts = grid[0]
    work: list[tuple[list[Corner], int]] = []
    for start, following in itertools.pairwise([*starts, starts[-1] + depth]):
        corners = list(itertools.product(range(samples), [start], *grid[1:]))
        for i in range(0, len(corners), batch_size):
            last = i + batch_size >= len(corners)
            work.append((corners[i : i + batch_size], following - start if last else 0))
    return work


def _blended(
    padded: Tensor,
    predictor: Callable[[Tensor], Tensor],
    front: _Front,
    work: Iterable[tuple[list[Corner], int]],
    planes_at_once: int,
) -> Iterator[Slab]:
    for corners, planes in work:
        _predict(padded, predictor, front, corners)
        if planes:
            for start, scores in front.finish(planes, planes_at_once):
                yield Slab(corners[0][1] + start, scores)


@torch.no_grad()
def _predict(
    padded: Tensor,
    predictor: Callable[[Tensor], Tensor],
    front: _Front,
    corners: Sequence[Corner],
) -> None:
    """Add the prediction of some windows to the front, and forget it."""
    window = tuple(front.weight.shape)
    prediction = predictor(torch.stack([cut(padded, corner, window) for corner in corners]))
    if not isinstance(prediction, Tensor):
        raise TypeError(f"predictor must return one tensor; got {type(prediction).__name__}")
    front.add(scores_of(prediction, len(corners), window)[0], corners)


def _cropped(slabs: Iterator[Slab], first: Sequence[int], sizes: Sequence[int]) -> Iterator[Slab]:
    """Take away the planes and margins that padding has added."""
    inside = tuple(slice(a, a + n) for a, n in zip(first[1:], sizes[1:], strict=True))
    for start, scores in slabs:
        low = max(first[0] - start, 0)
        high = min(first[0] + sizes[0] - start, scores.shape[2])
        if high > low:
            yield Slab(start + low - first[0], scores[(..., slice(low, high), *inside)])


def _reduced(scores: Tensor, reduce: str | Callable[[Tensor], Tensor]) -> Tensor:
    if callable(reduce):
        result = reduce(scores)
        if result.shape != (len(scores), *scores.shape[2:]):
            rule = f"a function to (batch, planes, *rest), here {(len(scores), *scores.shape[2:])}"
            raise check.fail("reduce", rule, f"shape {tuple(result.shape)}")
        return result
    if reduce == "entropy":
        return entropy(torch.softmax(scores, dim=1), "softmax")
    classes = scores.shape[1]
    small = torch.int16 if classes <= 2**15 else torch.int32
    return scores.argmax(1).to(torch.uint8 if classes <= 2**8 else small)
