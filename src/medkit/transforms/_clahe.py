"""Contrast made even from place to place (CLAHE)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check

from ._intensity import as_float
from ._transform import IntensityTransform, Sample, names

_BINS = 256


def equalize_contrast(
    image: Shaped[Tensor, "channel height width"],
    *,
    clip_limit: float = 4.0,
    tiles: int | Sequence[int] = 8,
) -> Float[Tensor, "channel height width"]:
    """Image with its histogram made even tile by tile, as OpenCV's CLAHE does for bytes.

    Each tile maps values by its cumulated histogram of 256 bins, from which was cut what is above
    the limit and spread over all; between the middles of tiles the maps are interpolated. For bytes
    the result is that of ``cv2.createCLAHE``; other values in [0, 1] are rounded to bytes.

    Args:
        image: Bytes, or values in [0, 1].
        clip_limit: Largest count of a bin, in means of all bins of a tile.
        tiles: Number of tiles along height and width; one number for both.

    Returns:
        Values in [0, 1], multiples of 1/255.

    Raises:
        ValueError: If ``clip_limit`` or ``tiles`` is not positive, or a tile would be empty.

    Example:
        >>> import torch
        >>> dull = torch.linspace(0.4, 0.6, 64 * 64).reshape(1, 64, 64)
        >>> bool(equalize_contrast(dull).std() > dull.std())
        True

    References:
        K. Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994.
    """
    rows, columns = (
        check.integer("tiles", n, minimum=1) for n in check.per_axis("tiles", tiles, 2)
    )
    check.positive("clip_limit", clip_limit)
    height, width = image.shape[-2:]
    bytes_ = image if image.dtype == torch.uint8 else (as_float(image).clamp(0, 1) * 255).round()
    values = bytes_.long()
    pads = (-height % rows, -width % columns)
    if any(pads):  # OpenCV mirrors on both axes as soon as one does not fit
        pads = (rows - height % rows, columns - width % columns)
    if pads[0] >= height or pads[1] >= width:
        raise check.fail("tiles", "fewer than there are voxels", tiles)
    padded = F.pad(values.float()[None], (0, pads[1], 0, pads[0]), mode="reflect")[0].long()
    size = padded.shape[-2] // rows, padded.shape[-1] // columns
    output: list[Tensor] = []
    for channel, whole in zip(values, padded, strict=True):
        blocks = whole.reshape(rows, size[0], columns, size[1]).transpose(1, 2).flatten(2)
        maps = _tile_maps(blocks.flatten(0, 1), clip_limit).reshape(rows, columns, _BINS)
        output.append(_interpolated(channel, maps, size))
    return torch.stack(output) / 255


class EqualizeContrast(IntensityTransform):
    """Makes contrast even from place to place (CLAHE), as in :func:`equalize_contrast`.

    Args:
        clip_limit: Largest count of a bin, in means of all bins of a tile.
        tiles: Number of tiles along height and width; one number for both.
        images: Keys of the images.

    Raises:
        ValueError: If ``clip_limit`` is not positive.

    Example:
        >>> import torch
        >>> EqualizeContrast()({"image": torch.rand(1, 64, 64)})["image"].shape
        torch.Size([1, 64, 64])
    """

    def __init__(
        self,
        *,
        clip_limit: float = 4.0,
        tiles: int | Sequence[int] = 8,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.clip_limit: float = check.positive("clip_limit", clip_limit)
        self.tiles: int | Sequence[int] = tiles
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return equalize_contrast(image, clip_limit=self.clip_limit, tiles=self.tiles)


def _tile_maps(blocks: Tensor, clip_limit: float) -> Tensor:
    """Return where each tile sends each byte: (tile, 256)."""
    area = blocks.shape[1]
    counts = blocks.new_zeros(len(blocks), _BINS)
    counts = counts.scatter_add_(1, blocks, torch.ones_like(blocks))
    limit = max(1, int(clip_limit * area / _BINS))
    excess = (counts - limit).clamp_min(0).sum(1)
    counts = counts.clamp(max=limit) + (excess // _BINS).unsqueeze(1)
    left = excess % _BINS
    for tile, rest in enumerate(left.cpu().numpy().astype(int)):  # one more in evenly spread bins
        if rest:
            step = max(_BINS // int(rest), 1)
            counts[tile, torch.arange(0, _BINS, step, device=blocks.device)[: int(rest)]] += 1
    return (counts.cumsum(1).float() * ((_BINS - 1) / area)).round().clamp(0, _BINS - 1)


def _interpolated(channel: Tensor, maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return bytes sent through the maps of the four tiles around, weighted by distance."""
    low: list[Tensor] = []
    high: list[Tensor] = []
    weight: list[Tensor] = []
    for count, length, tile in zip(channel.shape, maps.shape, size, strict=False):
        index = torch.arange(count, dtype=torch.float32, device=channel.device)
        place = index * (1 / tile) - 0.5
        below = place.floor()
        weight.append(place - below)
        low.append(below.clamp_min(0).long())
        high.append((below + 1).clamp_max(length - 1).long())

    def sent(rows: Tensor, columns: Tensor) -> Tensor:
        return maps[rows.unsqueeze(1), columns, channel]

    across = weight[1]
    top = sent(low[0], low[1]) * (1 - across) + sent(low[0], high[1]) * across
    bottom = sent(high[0], low[1]) * (1 - across) + sent(high[0], high[1]) * across
    down = weight[0].unsqueeze(1)
    return (top * (1 - down) + bottom * down).round()
