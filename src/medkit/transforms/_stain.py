"""Colours of stained tissue: jitter in haematoxylin-eosin-DAB space, and Macenko normalisation."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from medkit._core import check

from ._intensity import as_float
from ._transform import IntensityTransform, Sample, names

_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Colours of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston)."""

_DARKEST = 1e-6  # light below it counts as this much
_TARGET = ((0.5626, 0.2159), (0.7201, 0.8012), (0.4062, 0.5581))
_TARGET_MAXIMA = (1.9705, 1.0308)
_BACKGROUND = 0.15  # optical density, natural logarithm, below which there is no tissue
_PERCENT = 1.0  # percentile of angles and 100 minus that of concentrations


def jitter_stains(
    image: Shaped[Tensor, "colour height width"],
    *,
    factors: Sequence[float],
    offsets: Sequence[float] = (0.0, 0.0, 0.0),
) -> Float[Tensor, "colour height width"]:
    r"""RGB image with more or less of each stain: :math:`s_i \to f_i s_i + o_i`.

    The amounts :math:`s` of haematoxylin, eosin and DAB are those of ``skimage.color.rgb2hed``:
    optical density, in units of the darkest light kept, times the inverse of the stains' colours.

    Args:
        image: Red, green, blue in [0, 1], or bytes.
        factors: :math:`f`, one for each stain; 1 changes nothing.
        offsets: :math:`o`, one for each stain.

    Returns:
        The image in [0, 1], in float32 or float64.

    Raises:
        ValueError: If there are not three channels, factors or offsets.

    Example:
        >>> import torch
        >>> tissue = torch.tensor([0.8, 0.5, 0.7]).reshape(3, 1, 1)
        >>> jitter_stains(tissue, factors=(1.2, 1.0, 1.0)).flatten()
        tensor([0.7837, 0.4890, 0.6936])

    References:
        D. Tellez et al., "Whole-Slide Mitosis Detection in H&E Breast Histology Using PHH3 as a
        Reference", IEEE Transactions on Medical Imaging, 2018, section III-C.
    """
    values = light(image)
    given = np.array([*map(float, factors), *map(float, offsets)])
    if len(given) != 6:
        raise check.fail("factors and offsets", "three numbers each", (factors, offsets))
    colours = np.array(_STAINS)
    change = np.linalg.inv(colours) @ np.diag(given[:3]) @ colours
    shift = given[3:] @ colours
    density = values.clamp_min(_DARKEST).log() / float(np.log(_DARKEST))
    mixed = torch.einsum("ij,i...->j...", torch.as_tensor(change).to(values), density)
    mixed = mixed + torch.as_tensor(shift).to(values).reshape(3, 1, 1)
    return (mixed * float(np.log(_DARKEST))).exp_().clamp_(0, 1)


def normalize_stains(
    image: Shaped[Tensor, "colour height width"],
    *,
    stains: Float64[np.ndarray, "3 2"] | None = None,
    maxima: Sequence[float] = _TARGET_MAXIMA,
) -> Float[Tensor, "colour height width"]:
    """RGB image of haematoxylin and eosin with the colours of a reference.

    The two stains of the image are the extreme directions, at the first and last percent, in the
    plane of its two largest principal directions of optical density; their amounts, at 99 percent,
    are scaled to the reference. An image with hardly any tissue is returned as it is.

    Args:
        image: Red, green, blue in [0, 1], or bytes; white where there is no tissue.
        stains: Colours of haematoxylin and eosin in columns; None takes those that are usual.
        maxima: Amounts, at 99 percent, of each.

    Returns:
        The image in [0, 1], in float32 or float64.

    Raises:
        ValueError: If there are not three channels.

    Example:
        >>> import torch
        >>> normalize_stains(torch.ones(3, 8, 8)).min()
        tensor(1.)

    References:
        M. Macenko et al., "A method for normalizing histology slides for quantitative analysis",
        ISBI, 2009, section 2.
    """
    values = light(image)
    density = -values.clamp_min(1 / 255).log().double().flatten(1)
    tissue = density[:, (density > _BACKGROUND).all(0)]
    if tissue.shape[1] < 10:
        return values.clone()
    unmix = torch.as_tensor(np.linalg.pinv(_extreme_stains(tissue))).to(density)
    tops = torch.stack([_quantile(row, 100 - _PERCENT) for row in (unmix @ tissue).unbind()])
    wanted = torch.tensor(maxima, dtype=torch.float64, device=values.device)
    scale = (wanted / tops.clamp_min(_DARKEST)).unsqueeze(1)
    target = np.array(_TARGET) if stains is None else stains
    colours = torch.as_tensor(target / np.sqrt(np.square(target).sum(axis=0))).to(density)
    output = (-(colours @ (unmix @ density * scale))).exp_().clamp_(0, 1)
    return output.reshape(values.shape).to(values.dtype)


class RandomStainJitter(IntensityTransform):
    """Changes the amount of each stain at random, as in :func:`jitter_stains`.

    Args:
        factor: Largest distance of the factors from 1, each equally likely.
        offset: Largest distance of the offsets from 0.
        probability: Of a change.
        images: Keys of the images.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> RandomStainJitter(probability=1.0)({"image": torch.rand(3, 8, 8)})["image"].shape
        torch.Size([3, 8, 8])
    """

    draws: bool = True

    def __init__(
        self,
        *,
        factor: float = 0.05,
        offset: float = 0.05,
        probability: float = 0.5,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.factor: float = check.non_negative("factor", factor)
        self.offset: float = check.non_negative("offset", offset)
        self.probability: float = check.fraction("probability", probability)
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        factors = generator.uniform(1 - self.factor, 1 + self.factor, 3)
        offsets = generator.uniform(-self.offset, self.offset, 3)
        return jitter_stains(image, factors=factors.tolist(), offsets=offsets.tolist())


class NormalizeStains(IntensityTransform):
    """Brings haematoxylin and eosin to reference colours, as in :func:`normalize_stains`.

    Args:
        images: Keys of the images.

    Example:
        >>> import torch
        >>> NormalizeStains()({"image": torch.ones(3, 8, 8)})["image"].min()
        tensor(1.)
    """

    def __init__(self, *, images: str | Sequence[str] = "image") -> None:
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return normalize_stains(image)


def light(image: Tensor) -> Tensor:
    """Return red, green and blue as numbers in [0, 1]."""
    if image.ndim != 3 or len(image) != 3:
        raise check.fail("image", "(3, height, width)", f"shape {tuple(image.shape)}")
    return as_float(image) / 255 if image.dtype == torch.uint8 else as_float(image)


def _extreme_stains(tissue: Float64[Tensor, "3 pixel"]) -> Float64[np.ndarray, "3 2"]:
    """Return the unit colours of the two stains, haematoxylin (more red absorbed) first."""
    covariance = np.cov(tissue.cpu().numpy())
    plane = np.linalg.eigh(covariance)[1][:, [2, 1]]
    plane = plane * np.where(plane[0] < 0, -1, 1)
    basis = torch.as_tensor(plane).to(tissue)
    first, second = basis.T @ tissue
    angle = torch.atan2(second, first)
    ends = [float(_quantile(angle, q)) for q in (_PERCENT, 100 - _PERCENT)]
    found = np.stack([plane @ (np.cos(angle), np.sin(angle)) for angle in ends], axis=1)
    return found if found[0, 0] > found[0, 1] else found[:, ::-1].copy()


def _quantile(values: Tensor, percent: float) -> Tensor:
    place = percent / 100 * (len(values) - 1)
    low = int(place)
    below = values.kthvalue(low + 1).values
    above = values.kthvalue(min(low + 2, len(values))).values
    return below + (place - low) * (above - below)
