"""Prediction of a whole volume, window by window."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import EllipsisType
from typing import Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor
from tqdm import tqdm

from medkit._core import check
from medkit.ops import gaussian_importance, patch_grid

Prediction = TypeVar("Prediction", bound=Tensor | Sequence[Tensor] | Mapping[str, Tensor])
"""What a predictor returns: a tensor, or several in a tuple, a list or a dictionary."""

Corner = tuple[int, ...]
Part = str | int


def sliding_window_inference(
    inputs: Shaped[Tensor, "batch channel *spatial"],
    predictor: Callable[[Tensor], Prediction],
    *,
    roi_size: int | Sequence[int],
    overlap: float | Sequence[float] = 0.5,
    importance: Literal["gaussian", "constant"] | Float[Tensor, "*window"] = "gaussian",
    batch_size: int = 1,
    padding_mode: Literal["constant", "reflect", "replicate", "circular"] = "constant",
    padding_value: float = 0.0,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Prediction:
    r"""Prediction of a whole volume by a network that sees one window of it at a time.

    .. math:: y(x) = \frac{\sum_w m(x - x_w)\, f_w(x)}{\sum_w m(x - x_w)}

    :math:`f_w` is the prediction of window w at :math:`x_w`, m the importance of a voxel inside
    its window. Use it wherever a volume does not fit the network or the memory. The values equal
    MONAI's ``sliding_window_inference`` and medicai's ``SlidingWindowInference``, with one
    decision of ours: sums are accumulated in float32 whatever the predictor returns (float64
    stays float64), so half precision loses nothing to blending, and the result has that type.
    No gradient is recorded. Put the network in ``eval()`` mode first.

    Args:
        inputs: Volumes of one size, 2D or 3D; they are not modified.
        predictor: Takes windows ``(n, channel, *roi_size)`` and returns scores ``(n, any,
            *roi_size)``: logits or probabilities, in one floating-point tensor or in a tuple, list
            or dictionary of them. A network is one; for volumes that stay in host memory, write
            ``lambda windows: network(windows.cuda())``.
        roi_size: Size of the window in voxels; one per axis, or one for all.
        overlap: Fraction of a window that the next one covers again; one per axis, or one for
            all. MONAI and medicai default to 0.25, nnU-Net and this function to 0.5.
        importance: How voxels count within their window: ``"gaussian"`` trusts its centre more,
            ``"constant"`` all alike; or a window of positive weights, e.g. from
            ``gaussian_importance`` with another ``sigma_scale``.
        batch_size: Number of windows per call of the predictor; they may come from several
            volumes of the batch.
        padding_mode: How a volume smaller than the window is extended, evenly on both sides; the
            prediction is cropped back.
        padding_value: What ``padding_mode="constant"`` fills in, in the units of the input.
        device: Where predictions are summed and returned; None means where ``inputs`` is.
            ``"cpu"`` keeps whole-volume scores of many classes out of a GPU's memory.
        progress: Show a progress bar over the calls of the predictor.

    Returns:
        What the predictor returns, for the whole volume: ``(batch, any, *spatial)`` in float32 or
        float64.

    Raises:
        ValueError: If an option is out of range, or the predictor changes the number or the size
            of its windows, or returns other parts or channels than before.
        TypeError: If the predictor returns anything but floating-point tensors.

    Example:
        >>> import torch
        >>> volume = torch.arange(30.0).reshape(1, 1, 5, 6)
        >>> half = sliding_window_inference(volume, lambda windows: windows / 2, roi_size=4)
        >>> half.shape, round(float(half[0, 0, 4, 5]), 4)
        (torch.Size([1, 1, 5, 6]), 14.5)

    References:
        Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical
        image segmentation", Nature Methods 18, 2021, online methods, "Inference".
    """
    check.kind("inputs", inputs, Tensor, "a tensor; the predictor comes second")
    sizes = tuple(inputs.shape[2:])
    if not sizes or not len(inputs):
        raise check.fail("inputs", "(batch, channel, *spatial)", f"shape {tuple(inputs.shape)}")
    window = window_size(roi_size, len(sizes))
    grid = patch_grid(sizes, patch_size=window, overlap=overlap)
    weight = importance_weight(importance, window)
    check.integer("batch_size", batch_size, minimum=1)
    padded, first = padded_to_window(inputs, window, padding_mode, padding_value)
    blend = _Blend(padded, grid=grid, weight=weight, device=device or inputs.device)
    corners = list(itertools.product(range(len(inputs)), *grid))
    batches = [corners[i : i + batch_size] for i in range(0, len(corners), batch_size)]
    patches = padded.new_empty(min(batch_size, len(corners)), padded.shape[1], *window)
    prediction = None
    with torch.no_grad():
        for batch in cast("Iterable[list[Corner]]", tqdm(batches, disable=not progress)):
            for i, corner in enumerate(batch):
                patches[i].copy_(cut(padded, corner, window))
            prediction = predictor(patches[: len(batch)])
            blend.add(scores_of(prediction, len(batch), window), batch)
        means = {name: mean[_region(first, sizes)] for name, mean in blend.means().items()}
    return _like(cast("Prediction", prediction), means)


class _Blend:
    """Running weighted sums of the predictor's outputs over whole volumes."""

    def __init__(
        self,
        inputs: Tensor,
        *,
        grid: Sequence[Sequence[int]],
        weight: Tensor,
        device: torch.device | str,
    ) -> None:
        self.shape = inputs.shape
        self.dtype = inputs.dtype if inputs.is_floating_point() else torch.float32
        self.grid = grid
        self.weight = weight.to(device)
        self.totals: dict[Part, Tensor] = {}

    def add(self, scores: Mapping[Part, Tensor], corners: Sequence[Corner]) -> None:
        """Add each window's scores at its corner ``(sample, *first voxel)``."""
        if not self.totals:
            self.totals = {name: self._zeros(score) for name, score in scores.items()}
        check_parts(scores, self.totals)
        for name, total in self.totals.items():
            weight, parts = self.weight.to(total.dtype), scores[name].to(total)
            for i, corner in enumerate(corners):
                cut(total, corner, weight.shape).addcmul_(parts[i], weight)

    def means(self) -> dict[Part, Tensor]:
        """Divide each sum, in place, by the weight that its voxels have received.

        Between two edges of windows along the first axis the same windows cover every plane, so
        their weights are added up for one such slab at a time.
        """
        starts, extent = self.grid[0], self.weight.shape[0]
        edges = sorted({edge for start in starts for edge in (start, start + extent)})
        for total in self.totals.values():
            cover = cover_of_a_row(self.weight.to(total.dtype), total.shape[2:], self.grid)
            for low, high in itertools.pairwise(edges):
                over = [s for s in starts if s <= low and high <= s + extent]
                received = cover[low - over[0] : high - over[0]].clone()
                for start in over[1:]:
                    received += cover[low - start : high - start]
                total[:, :, low:high] /= received
        return self.totals

    def _zeros(self, score: Tensor) -> Tensor:
        wide = torch.promote_types(score.dtype, torch.promote_types(self.dtype, torch.float32))
        shape = (self.shape[0], score.shape[1], *self.shape[2:])
        return torch.zeros(shape, dtype=wide, device=self.weight.device)


def cover_of_a_row(weight: Tensor, size: Sequence[int], grid: Sequence[Sequence[int]]) -> Tensor:
    """Sum the weights of all windows at one place of the first axis.

    One axis is summed after the other, which the grid, being a product, allows.

    Args:
        weight: One weight per voxel of the window.
        size: Spatial size of the volume.
        grid: First voxels of the windows along each axis.
    """
    cover = weight
    for axis in reversed(range(1, cover.ndim)):
        wider = cover.new_zeros((*cover.shape[:axis], size[axis], *cover.shape[axis + 1 :]))
        for start in grid[axis]:
            wider.narrow(axis, start, cover.shape[axis]).add_(cover)
        cover = wider
    return cover


def window_size(roi_size: int | Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    """Return the size of the window along each axis."""
    sizes = check.per_axis("roi_size", roi_size, spatial_dims)
    return tuple(check.integer("roi_size", size, minimum=1) for size in sizes)


def _region(start: Sequence[int], size: Sequence[int]) -> tuple[EllipsisType | slice, ...]:
    """Index of a box in the last axes."""
    return (..., *(slice(a, a + n) for a, n in zip(start, size, strict=True)))


def cut(volumes: Tensor, corner: Corner, window: Sequence[int]) -> Tensor:
    """View the window at ``corner``, ``(sample, *first voxel)``."""
    return volumes[corner[0]][_region(corner[1:], window)]


def importance_weight(importance: str | Tensor, window: Sequence[int]) -> Tensor:
    """Turn the option into one weight per voxel of the window."""
    if isinstance(importance, Tensor):
        if tuple(importance.shape) != tuple(window) or not bool((importance > 0).all()):
            rule = f"positive and of the window's shape {tuple(window)}"
            raise check.fail("importance", rule, f"shape {tuple(importance.shape)}")
        return importance
    check.one_of("importance", importance, ("gaussian", "constant"))
    return gaussian_importance(window) if importance == "gaussian" else torch.ones(*window)


def padded_to_window(
    inputs: Tensor, window: Sequence[int], mode: str, value: float
) -> tuple[Tensor, tuple[int, ...]]:
    """Extend volumes to at least one window; give also where the original begins."""
    check.one_of("padding_mode", mode, ("constant", "reflect", "replicate", "circular"))
    missing = [max(w - n, 0) for w, n in zip(window, inputs.shape[2:], strict=True)]
    before = tuple(margin // 2 for margin in missing)
    if not any(missing):
        return inputs, before
    after = [margin - low for margin, low in zip(missing, before, strict=True)]
    room = {"reflect": -1, "circular": 0}.get(mode)
    if room is not None and any(m > n + room for m, n in zip(after, inputs.shape[2:], strict=True)):
        rule = f"'constant' or 'replicate' where the volume is less than half of {tuple(window)}"
        raise check.fail("padding_mode", rule, repr(mode))
    sides = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    return F.pad(inputs, sides, mode=mode, value=value if mode == "constant" else None), before


def scores_of(prediction: object, count: int, window: Sequence[int]) -> dict[Part, Tensor]:
    """Return the tensors of a prediction by key or number, each checked against its windows."""
    parts: dict[Part, object] = {0: prediction}
    if isinstance(prediction, Mapping):
        parts = dict(cast("Mapping[Part, object]", prediction))
    elif isinstance(prediction, Sequence):
        parts = dict(enumerate(cast("Sequence[object]", prediction)))
    scores: dict[Part, Tensor] = {}
    for name, part in parts.items():
        if not isinstance(part, Tensor) or not part.is_floating_point():
            got = part.dtype if isinstance(part, Tensor) else type(part).__name__
            raise TypeError(f"predictor must return floating-point tensors; got {got}")
        if part.ndim != len(window) + 2 or (len(part), *part.shape[2:]) != (count, *window):
            rule = f"of shape ({count}, any, {', '.join(map(str, window))}), as its windows"
            got = f"shape {tuple(part.shape)}"
            if len(parts) > 1:
                got += "; of a network with coarser heads, pass the network itself"
            raise check.fail("the predictor's output", rule, got)
        scores[name] = part
    return scores


def check_parts(scores: Mapping[Part, Tensor], totals: Mapping[Part, Tensor]) -> None:
    """Raise unless a prediction has the parts and the channels of the one before."""
    now, before = ({name: x.shape[1] for name, x in each.items()} for each in (scores, totals))
    if now != before:
        rule = f"of the same parts and channels for every window, {before}"
        raise check.fail("the predictor's output", rule, now)


def _like(prediction: Prediction, parts: Mapping[Part, Tensor]) -> Prediction:
    """Put whole-volume tensors in the container that the predictor used."""
    if isinstance(prediction, Mapping):
        return cast("Prediction", dict(parts))
    if isinstance(prediction, Tensor):
        return cast("Prediction", parts[0])
    fields = getattr(type(prediction), "_fields", None)
    make = cast("Callable[..., Prediction]", type(prediction))
    return make(*parts.values()) if fields else make(parts.values())
