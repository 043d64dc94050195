"""Random changes of the values of images."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from medkit._core import check

from ._bias_field import apply_bias_field, num_bias_coefficients
from ._intensity import (
    adjust_contrast,
    adjust_gamma,
    as_float,
    gaussian_blur,
    simulate_low_resolution,
)
from ._transform import IntensityTransform, Sample, interval, names


class RandomShiftIntensity(IntensityTransform):
    """Adds one random number to every voxel.

    Args:
        offset: Largest number on either side of 0, or (low, high); each equally likely.
        probability: Of a shift.
        images: Keys of the images.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> shifted = RandomShiftIntensity(offset=0.1)({"image": torch.zeros(1, 2)})["image"]
        >>> bool((shifted.abs() <= 0.1).all())
        True
    """

    draws: bool = True

    def __init__(
        self,
        *,
        offset: float | Sequence[float],
        probability: float = 0.5,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.offset: tuple[float, float] = interval("offset", offset)
        self.probability: float = check.fraction("probability", probability)
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return as_float(image) + generator.uniform(*self.offset)


class RandomBrightness(IntensityTransform):
    """Multiplies every voxel by one random number.

    Args:
        factor: The number as (low, high); each equally likely.
        probability: Of a change.
        images: Keys of the images.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> bright = RandomBrightness(factor=(2, 3), probability=1.0)
        >>> bool((bright({"image": torch.ones(1, 2)})["image"] >= 2).all())
        True
    """

    draws: bool = True

    def __init__(
        self,
        *,
        factor: Sequence[float] = (0.75, 1.25),
        probability: float = 0.15,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.factor: tuple[float, float] = interval("factor", factor)
        self.probability: float = check.fraction("probability", probability)
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return as_float(image) * generator.uniform(*self.factor)


class RandomContrast(IntensityTransform):
    """Spreads values about their mean by a random factor, as in :func:`adjust_contrast`.

    Args:
        factor: As (low, high); with even odds below and above 1 where both are possible.
        probability: Of a change.
        keeps_range: Whether values beyond the old least and largest are clipped to these.
        images: Keys of the images.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> less = RandomContrast(factor=(0.5, 0.5), probability=1.0)
        >>> less({"image": torch.tensor([[0.0, 4.0]])})["image"]
        tensor([[1., 3.]])
    """

    draws: bool = True

    def __init__(
        self,
        *,
        factor: Sequence[float] = (0.75, 1.25),
        probability: float = 0.15,
        keeps_range: bool = True,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.factor: tuple[float, float] = interval("factor", factor)
        self.probability: float = check.fraction("probability", probability)
        self.keeps_range: bool = keeps_range
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        factor = either_side_of_one(self.factor, generator)
        return adjust_contrast(image, factor=factor, keeps_range=self.keeps_range)


class RandomGamma(IntensityTransform):
    """Raises values to a random power, as in :func:`adjust_gamma`.

    Args:
        gamma: The power as (low, high); with even odds below and above 1 where both are possible.
        probability: Of a change.
        inverted: Whether the negative image is changed, and turned back.
        keeps_statistics: Whether mean and standard deviation are put back after.
        images: Keys of the images.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> square = RandomGamma(gamma=(2, 2), probability=1.0, keeps_statistics=False)
        >>> square({"image": torch.tensor([[0.0, 1.0, 2.0]])})["image"]
        tensor([[0.0000, 0.5000, 2.0000]])
    """

    draws: bool = True

    def __init__(
        self,
        *,
        gamma: Sequence[float] = (0.7, 1.5),
        probability: float = 0.3,
        inverted: bool = False,
        keeps_statistics: bool = True,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.gamma: tuple[float, float] = interval("gamma", gamma)
        check.positive("gamma", self.gamma[0])
        self.probability: float = check.fraction("probability", probability)
        self.inverted: bool = inverted
        self.keeps_statistics: bool = keeps_statistics
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return adjust_gamma(
            image,
            gamma=either_side_of_one(self.gamma, generator),
            inverted=self.inverted,
            keeps_statistics=self.keeps_statistics,
        )


class RandomGaussianNoise(IntensityTransform):
    """Adds normal noise of mean 0 to every voxel.

    The noise is drawn on the device of the image; its numbers differ between kinds of devices.

    Args:
        standard_deviation: As (low, high), each equally likely; one number is the largest.
        probability: Of noise.
        images: Keys of the images.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> noise = RandomGaussianNoise(standard_deviation=(2, 2), probability=1.0)
        >>> noisy = noise({"image": torch.zeros(1, 10_000)})["image"]
        >>> bool(1.9 < noisy.std() < 2.1)
        True
    """

    draws: bool = True

    def __init__(
        self,
        *,
        standard_deviation: float | Sequence[float] = 0.1,
        probability: float = 0.1,
        images: str | Sequence[str] = "image",
    ) -> None:
        if isinstance(standard_deviation, (int, float)):
            standard_deviation = (0.0, standard_deviation)
        self.standard_deviation: tuple[float, float] = interval(
            "standard_deviation", standard_deviation
        )
        check.non_negative("standard_deviation", self.standard_deviation[0])
        self.probability: float = check.fraction("probability", probability)
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        deviation = generator.uniform(*self.standard_deviation)
        values = as_float(image)
        return noise(values, generator).mul_(deviation).add_(values)


class RandomGaussianBlur(IntensityTransform):
    """Smooths by a Gaussian of random width, as in :func:`gaussian_blur`.

    Args:
        sigma: Standard deviation in voxels as (low, high), each equally likely.
        probability: Of smoothing.
        channel_probability: Of each channel to be smoothed then, with a width of its own.
        images: Keys of the images.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> blur = RandomGaussianBlur(probability=1.0, channel_probability=1.0)
        >>> bool(blur({"image": torch.eye(9)[None]})["image"].max() < 1)
        True
    """

    draws: bool = True

    def __init__(
        self,
        *,
        sigma: Sequence[float] = (0.5, 1.0),
        probability: float = 0.2,
        channel_probability: float = 0.5,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.sigma: tuple[float, float] = interval("sigma", sigma)
        check.non_negative("sigma", self.sigma[0])
        self.probability: float = check.fraction("probability", probability)
        self.channel_probability: float = check.fraction("channel_probability", channel_probability)
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return _some_channels(
            image,
            self.channel_probability,
            self.sigma,
            generator,
            lambda channel, sigma: gaussian_blur(channel, sigma=sigma),
        )


class RandomLowResolution(IntensityTransform):
    """Drops voxels and interpolates, as in :func:`simulate_low_resolution`.

    Args:
        zoom: Share of the voxels along each axis that is kept as (low, high), each equally likely.
        probability: Of a change.
        channel_probability: Of each channel to be changed then, by a share of its own.
        images: Keys of the images.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> RandomLowResolution(probability=1.0)({"image": torch.rand(1, 9, 9)})["image"].shape
        torch.Size([1, 9, 9])
    """

    draws: bool = True

    def __init__(
        self,
        *,
        zoom: Sequence[float] = (0.5, 1.0),
        probability: float = 0.25,
        channel_probability: float = 0.5,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.zoom: tuple[float, float] = interval("zoom", zoom)
        if not 0 < self.zoom[0] <= self.zoom[1] <= 1:
            raise check.fail("zoom", "in (0, 1]", zoom)
        self.probability: float = check.fraction("probability", probability)
        self.channel_probability: float = check.fraction("channel_probability", channel_probability)
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return _some_channels(
            image,
            self.channel_probability,
            self.zoom,
            generator,
            lambda channel, zoom: simulate_low_resolution(channel, zoom=zoom),
        )


class RandomBiasField(IntensityTransform):
    """Multiplies by a slow random field, as in :func:`apply_bias_field`.

    Args:
        coefficient: Largest size of the coefficients, each drawn evenly on either side of 0.
        order: Highest power of the polynomial.
        probability: Of a field.
        images: Keys of the images.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> field = RandomBiasField(probability=1.0)({"image": torch.ones(1, 9, 9)})["image"]
        >>> bool((field > 0).all())
        True
    """

    draws: bool = True

    def __init__(
        self,
        *,
        coefficient: float = 0.5,
        order: int = 3,
        probability: float = 0.3,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.coefficient: float = check.non_negative("coefficient", coefficient)
        self.order: int = check.integer("order", order, minimum=0)
        self.probability: float = check.fraction("probability", probability)
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        count = num_bias_coefficients(self.order, spatial_dims=image.ndim - 1)
        drawn = generator.uniform(-self.coefficient, self.coefficient, count)
        return apply_bias_field(image, coefficients=drawn.tolist(), order=self.order)


def noise(like: Tensor, generator: np.random.Generator) -> Tensor:
    """Return standard normal numbers on the device of a tensor."""
    stream = torch.Generator(like.device).manual_seed(int(generator.integers(2**62)))
    return torch.randn(like.shape, generator=stream, dtype=like.dtype, device=like.device)


def _some_channels(
    image: Tensor,
    probability: float,
    limits: tuple[float, float],
    generator: np.random.Generator,
    change: Callable[[Tensor, float], Tensor],
) -> Tensor:
    """Return an image with each channel changed, or not, by a number of its own."""
    chosen = generator.random(len(image)) < probability
    drawn = generator.uniform(*limits, len(image))
    channels = [channel[None] for channel in image]
    return torch.cat(
        [
            change(channel, float(number)) if yes else as_float(channel)
            for channel, yes, number in zip(channels, chosen, drawn, strict=True)
        ]
    )


def either_side_of_one(limits: tuple[float, float], generator: np.random.Generator) -> float:
    """Return a factor, half of the time below 1 and half above if the limits allow both."""
    low, high = limits
    if low < 1 < high:
        low, high = (low, 1.0) if generator.random() < 0.5 else (1.0, high)
    return low if math.isclose(low, high) else float(generator.uniform(low, high))
