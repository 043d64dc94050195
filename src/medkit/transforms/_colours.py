"""Colours of one image like those of another: Reinhard's means and deviations."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Shaped
from torch import Tensor

from medkit._core import check

from ._stain import light
from ._transform import IntensityTransform, Sample, names

_CONES = (
    (0.3811, 0.5783, 0.0402),
    (0.1967, 0.7244, 0.0782),
    (0.0241, 0.1288, 0.8444),
)
"""Long, middle and short waves of red, green and blue (Reinhard et al., equation 4)."""

_OPPONENT = ((3**-0.5,) * 3, (6**-0.5, 6**-0.5, -2 * 6**-0.5), (2**-0.5, -(2**-0.5), 0.0))
"""Lightness, yellow-blue and red-green of the logarithms of those (equation 6)."""

_DARKEST = 1 / 255  # light below it counts as this much
_FLAT = 1e-9  # deviation below which there is nothing to stretch


class ColourStatistics(NamedTuple):
    """Where the colours of an image lie, on three axes that hardly depend on each other.

    Attributes:
        means: Of lightness, yellow-blue and red-green: natural logarithms of light in [0, 1].
        deviations: Standard deviation of each.
    """

    means: tuple[float, float, float]
    deviations: tuple[float, float, float]


_USUAL = ColourStatistics((-0.85666891, -0.12440419, 0.0444982), (0.6135447, 0.10989545, 0.0286032))
"""Of the slide TCGA-A2-A3XS-DX1, the standard of HistomicsTK, there on light up to 255."""


def colour_statistics(
    image: Shaped[Tensor, "colour height width"],
    *,
    mask: Bool[Tensor, "height width"] | None = None,
) -> ColourStatistics:
    r"""Return means and deviations of an RGB image on the axes :math:`l \alpha \beta`.

    Args:
        image: Red, green, blue in [0, 1], or bytes.
        mask: Pixels that count, such as tissue; None means all.

    Returns:
        The statistics, a reference for :func:`normalize_colours`.

    Raises:
        ValueError: If there are not three channels, or no pixel counts.

    Example:
        >>> import torch
        >>> colour_statistics(torch.ones(3, 4, 4)).deviations
        (0.0, 0.0, 0.0)

    References:
        E. Reinhard et al., "Color Transfer between Images", IEEE Computer Graphics and
        Applications, 2001, equations 4 to 6.
    """
    axes = _opponent(light(image).double())
    return _statistics(axes.flatten(1) if mask is None else axes[:, mask])


def normalize_colours(
    image: Shaped[Tensor, "colour height width"],
    *,
    target: ColourStatistics = _USUAL,
    source: ColourStatistics | None = None,
) -> Float[Tensor, "colour height width"]:
    r"""RGB image with the means and deviations of a reference.

    .. math:: x \to \frac{\sigma_t}{\sigma_s} (x - \mu_s) + \mu_t

    on each of the axes :math:`l \alpha \beta`. It needs no stain to be named, and it colours the
    background too: see :func:`normalize_stains` for tissue with haematoxylin and eosin.

    Args:
        image: Red, green, blue in [0, 1], or bytes.
        target: Statistics of the reference; the default is the standard of HistomicsTK.
        source: Those of the image, e.g. of its tissue alone, or of the whole slide that a tile is
            from, so that no seams arise; None takes them from all of its pixels.

    Returns:
        The image in [0, 1], in float32 or float64.

    Raises:
        ValueError: If there are not three channels.

    Example:
        >>> import torch
        >>> tissue = torch.rand(3, 8, 8) / 2 + 0.3
        >>> reference = colour_statistics(tissue)
        >>> torch.allclose(normalize_colours(tissue, target=reference), tissue, atol=1e-5)
        True

    References:
        E. Reinhard et al., "Color Transfer between Images", IEEE Computer Graphics and
        Applications, 2001, equations 10 and 11.
    """
    values = light(image)
    axes = _opponent(values.double())
    own = _statistics(axes.flatten(1)) if source is None else source
    ratio = np.array(target.deviations) / np.maximum(own.deviations, _FLAT)
    shift = np.array(target.means) - ratio * own.means
    ratio, shift = (torch.as_tensor(n).to(axes).reshape(3, 1, 1) for n in (ratio, shift))
    waves = torch.einsum("ij,i...->j...", axes.new_tensor(_OPPONENT), axes * ratio + shift).exp()
    colours = torch.as_tensor(np.linalg.inv(np.array(_CONES))).to(waves)
    output = torch.einsum("ij,j...->i...", colours, waves)
    return output.clamp_(0, 1).to(values.dtype)


class NormalizeColours(IntensityTransform):
    """Brings an image to the colours of a reference, as in :func:`normalize_colours`.

    Args:
        target: Statistics of the reference; the default is the standard of HistomicsTK.
        source: Those of every image; None takes those of each.
        images: Keys of the images.

    Example:
        >>> import torch
        >>> NormalizeColours()({"image": torch.rand(3, 8, 8)})["image"].shape
        torch.Size([3, 8, 8])
    """

    def __init__(
        self,
        *,
        target: ColourStatistics = _USUAL,
        source: ColourStatistics | None = None,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.target: ColourStatistics = target
        self.source: ColourStatistics | None = source
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return normalize_colours(image, target=self.target, source=self.source)


def _opponent(
    values: Float64[Tensor, "colour height width"],
) -> Float64[Tensor, "axis height width"]:
    waves = torch.einsum("ij,j...->i...", values.new_tensor(_CONES), values)
    logarithms = waves.clamp_min(_DARKEST).log()
    return torch.einsum("ij,j...->i...", values.new_tensor(_OPPONENT), logarithms)


def _statistics(axes: Float64[Tensor, "axis pixel"]) -> ColourStatistics:
    if not axes.shape[1]:
        raise check.fail("mask", "true somewhere", "no pixel")
    means, deviations = axes.mean(1), axes.std(1, correction=0)
    return ColourStatistics(_three(means), _three(deviations))


def _three(values: Float64[Tensor, " axis"]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
